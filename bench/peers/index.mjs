/**
 * Who is compared. A peer is { name, share, open }: `share` of the events that the bus gets, so that a slow one does not take most of the
 * time (rates are what is compared); `open(context)` resolves with
 *
 *   publish(i), publishBatch(first, size)   resolve once the server has the event, or all of them
 *   subscribe(handler, enough)              takes events from the first one on; resolves with { ended, close }: `ended` rejects when that
 *                                           fails, `close()` resolves once all that was handled is acknowledged
 *   state()                                 how many events the server was given, and how many of them are not acknowledged
 *   close()
 */
import { bullmq } from './bullmq.mjs';
import { glide } from './glide.mjs';
import { ioredis, ioredisAutoPipelining } from './ioredis.mjs';
import { nodeRedis } from './node-redis.mjs';
import { ossa, ossaWide } from './ossa.mjs';

/** Where publishing counts. */
export const writers = [ossa, ioredis, ioredisAutoPipelining, nodeRedis, bullmq, glide];

/** Where consuming counts, too; the first ones are the bus. */
export const readers = [ossaWide, ossa, ioredis, nodeRedis, bullmq, glide];

/** Where what the bus does beyond its defaults makes no difference. */
export const plain = [ossa, ioredis, nodeRedis, bullmq, glide];

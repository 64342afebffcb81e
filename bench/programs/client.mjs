/**
 * A process of a measurement: loads a client and connects it, or loads nothing. Answers how long that took in ms, and, once it had nothing to
 * do for a while, the memory it has. Ends with the channel.
 */
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

const require = createRequire(import.meta.url);
const { client, entry, address, restMs } = JSON.parse(process.argv[2]);

const clients = {
  async ossa() {
    const { RedisEventBus } = require(entry);
    const bus = new RedisEventBus({ redis: { url: address, keyPrefix: 'bench' } });
    await bus.connect();
    return () => bus.disconnect();
  },
  async ioredis() {
    const { Redis } = require('ioredis');
    const redis = new Redis(address, { lazyConnect: true });
    await redis.connect();
    return () => redis.disconnect();
  },
  async nothing() {
    return () => {};
  },
};

const start = performance.now();
const close = await clients[client]();
const tookMs = performance.now() - start;
process.once('disconnect', close);
await sleep(restMs);
process.send({ tookMs, rss: process.memoryUsage.rss() });

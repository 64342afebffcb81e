/**
 * A member of an ordered group that writes down when it begins and ends each event, in a list in Redis: the one order that all
 * processes share. The argument is JSON: { redis, list, pattern, options }
 */
const { RedisEventBus } = require('@bluefly/ossa');
const { default: Redis } = require('ioredis');

const { redis, list, pattern, options } = JSON.parse(process.argv[2]);

(async () => {
  const record = new Redis(redis.url);
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  const note = (step, { key, n }) => record.rpush(list, JSON.stringify([step, key, n, process.pid]));
  await bus.subscribe(
    pattern,
    async ({ data, metadata }) => {
      await note('begin', data);
      if (metadata.attempt === 1 && (data.n * 131 + data.k) % 10 === 0) {
        await note('fail', data);
        throw new Error('each tenth fails at first');
      }
      await note('end', data);
    },
    options,
  );
  process.on('SIGTERM', () => void bus.disconnect().then(() => record.disconnect()));
  process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
})();

/**
 * Publishes many events, or replays them and says how its memory grew: { redis, how: 'publish' | 'replay', events }.
 * Two processes, because memory that publishing freed would hide what replaying takes. Needs --expose-gc.
 */
const { RedisEventBus } = require('@bluefly/ossa');

const { redis, how, events } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const TYPE = 'replayed';
const BATCH = 5000;
const SAMPLE_EVERY = 50_000;

/** Memory of the process once nothing is left to be collected, bytes. */
function rss() {
  global.gc();
  return process.memoryUsage().rss;
}

async function publish(bus) {
  for (let n = 0; n < events; ) {
    const size = Math.min(BATCH, events - n);
    await bus.publishBatch(Array.from({ length: size }, () => ({ eventType: TYPE, data: { n: n++ }, options: { ttl: 86_400 } })));
  }
  print({ published: events });
}

async function replay(bus) {
  const before = rss();
  const started = process.hrtime.bigint();
  let highest = before;
  let count = 0;
  let inOrder = true;
  for await (const { data } of bus.replay(TYPE)) {
    inOrder &&= data.n === count;
    if (++count % SAMPLE_EVERY === 0) highest = Math.max(highest, rss());
  }
  highest = Math.max(highest, rss());
  print({ count, inOrder, before, highest, ms: Number((process.hrtime.bigint() - started) / 1_000_000n) });
}

async function main() {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  await (how === 'publish' ? publish(bus) : replay(bus));
  await bus.disconnect();
}

void main();

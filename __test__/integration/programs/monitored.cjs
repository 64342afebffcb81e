/**
 * A bus that serves its metrics, under a load of its own. The argument is JSON: { redis, token }. It prints { url }, and takes messages
 * - { load: { failEvery } }: from now on publishes some hundred events a second, every so many of which its handler fails; 0: none
 * - { rest: true }: publishes no more; answers, once all is handled, with what it counted itself: { published, handled, failed }
 * SIGTERM ends it.
 */
const { OSSAEventBus } = require('@bluefly/ossa');

const { redis, token } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const EVERY_MS = 20;
const AT_ONCE = 5;

const counted = { published: 0, handled: 0, failed: 0 };
let failEvery = 0;
let loading;
let publishing = Promise.resolve();

const bus = new OSSAEventBus(null, { eventBus: { redis }, monitoring: { metrics: { collectionInterval: 1000 } } });

function load() {
  const events = Array.from({ length: AT_ONCE }, () => {
    const n = counted.published++;
    return { eventType: 'load.event', data: { n, fails: failEvery > 0 && n % failEvery === 0 } };
  });
  publishing = Promise.all([publishing, bus.publishBatch(events)]);
}

function handle({ data }) {
  if (data.fails) {
    counted.failed++;
    throw new Error('as it was told to');
  }
  counted.handled++;
}

async function rest() {
  clearInterval(loading);
  loading = undefined;
  await publishing;
  while (counted.handled + counted.failed < counted.published) await new Promise((resolve) => setTimeout(resolve, 10));
  return counted;
}

process.on('message', async ({ id, load: wanted, rest: resting }) => {
  try {
    if (wanted !== undefined) {
      failEvery = wanted.failEvery;
      loading ??= setInterval(load, EVERY_MS);
    }
    print({ answer: id, value: resting ? await rest() : true });
  } catch (error) {
    print({ answer: id, error: String(error) });
  }
});

(async () => {
  await bus.initialize();
  // A dead letter at once: one failed delivery for each event that fails.
  await bus.subscribe('load.event', handle, { group: 'load', errorStrategy: 'dlq' });
  const { url, close } = await bus.serve({ port: 0, token });
  process.once('SIGTERM', async () => {
    clearInterval(loading);
    await bus.shutdown();
    await close();
    process.disconnect?.();
  });
  print({ url });
})();

/**
 * Publishes at `rate` events a second until SIGTERM, and records each call and what came of it.
 *
 * An event is named by `k`, `<process>:<number>`; the number counts the calls. Keys of partitions belong to one process,
 * so that the order of its calls is the order of publishing.
 */
const { types } = require('../workload.cjs');
const { task, record, pause, openBus } = require('./worker.cjs');

const tickMs = 50;
/** Calls that wait for an answer at once; while Redis is away no more are made. */
const outstandingMax = 1_500;
const repeatsMax = 50;

(async () => {
  const { random } = await import('../random.mjs');
  const chance = random(task.seed, `publisher/${task.name}`);
  let over = false;
  let outstanding = 0;
  let number = 0;
  process.once('SIGTERM', () => {
    over = true;
  });
  record({ e: 'begun' });
  const bus = await openBus();
  record({ e: 'ready' });

  const weighted = types.map((type) => [type, type.weight]);

  function nextEvent() {
    const type = chance.weighted(weighted);
    const k = `${task.name}:${number++}`;
    const options = {};
    if (type.keyed) options.partitionKey = `${task.name}-${chance.between(0, 5)}`;
    if (type.priorities) options.priority = chance.pick(type.priorities);
    if (type.delayed) options.delayMs = chance.between(1, 3000);
    if (chance.chance(0.15)) options.idempotencyKey = k;
    const data = { k };
    if (type.payloadBytes) data.pad = 'x'.repeat(type.payloadBytes);
    return { k, type: type.name, data, options };
  }

  const called = ({ k, type, options }, again) =>
    record({
      ...{ e: 'call', k, type, again },
      ...{ key: options.partitionKey, priority: options.priority, delayMs: options.delayMs, idem: options.idempotencyKey !== undefined },
    });
  const resolved = ({ k }, id) => record({ e: 'ok', k, id });
  const rejected = ({ k }, error) =>
    record({
      e: 'no',
      k,
      code: error.code,
      maybe: error.details?.maybeStored === true,
      reply: error.details?.reply,
      message: error.message,
    });

  async function publish(event) {
    outstanding++;
    for (let repeat = 0; ; repeat++) {
      called(event, repeat || undefined);
      try {
        resolved(event, await bus.publish(event.type, event.data, event.options));
        break;
      } catch (error) {
        rejected(event, error);
        // What docs/reliability.md tells users to do. Not where it would change the order of a key.
        const repeats = event.options.idempotencyKey !== undefined && event.options.partitionKey === undefined && error.retryable;
        if (!repeats || over || repeat === repeatsMax) break;
        await pause(chance.between(50, 500));
      }
    }
    outstanding--;
  }

  async function publishBatch(events) {
    outstanding += events.length;
    for (const event of events) called(event);
    const batch = events.map(({ type, data, options }) => ({ eventType: type, data, options }));
    try {
      const ids = await bus.publishBatch(batch);
      events.forEach((event, i) => void resolved(event, ids[i]));
    } catch (error) {
      const results = error.details?.results ?? [];
      events.forEach((event, i) => void (results[i]?.id ? resolved(event, results[i].id) : rejected(event, results[i]?.error ?? error)));
    }
    outstanding -= events.length;
  }

  while (!over) {
    const count = Math.min((task.rate * tickMs) / 1000, outstandingMax - outstanding);
    if (count >= 1 && chance.chance(0.1)) void publishBatch(Array.from({ length: count }, nextEvent));
    else for (let n = 0; n < count; n++) void publish(nextEvent());
    await pause(tickMs);
  }
  while (outstanding > 0) await pause(10);
  record({ e: 'closing' });
  await bus.disconnect({ drainTimeoutMs: 2_000 });
  record({ e: 'closed' });
})();

/** Handles the events of some groups until SIGTERM, and records the beginning and the end of each call of a handler. */
const { keyedStream, retry, subscriptions, fails, workMs } = require('../workload.cjs');
const { task, record, pause, surely, openBus } = require('./worker.cjs');

(async () => {
  let bus;
  let over = false;
  process.once('SIGTERM', async () => {
    over = true;
    if (bus === undefined) process.exit(0);
    record({ e: 'closing' });
    await bus.disconnect({ drainTimeoutMs: 3_000 });
    record({ e: 'closed' });
  });
  record({ e: 'begun' });
  bus = await openBus();
  // Where Redis forgot the stream, its first event may have decided how many partitions it has now.
  await surely('createStream', () => bus.createStream(keyedStream.name, keyedStream.config)).catch(() => {});

  const handle = async ({ metadata, data }, { group, streamId, attempt }) => {
    const about = { g: group, id: metadata.id, k: data.k, a: attempt, sid: streamId };
    record({ e: 'start', ...about, type: metadata.type, key: metadata.partitionKey });
    const ms = workMs(task.seed, group, data.k);
    if (ms) await pause(ms);
    const failed = fails(task.seed, group, data.k, attempt);
    record({ e: failed ? 'fail' : 'done', ...about });
    if (failed) throw new Error('as planned');
  };
  for (const { group, pattern, ordered = false } of task.subscriptions.map((index) => subscriptions[index])) {
    const options = { group, ordered, retry, maxUnacknowledged: 40, consumerTimeout: 20_000 };
    try {
      await surely(`subscribe ${group} ${pattern}`, () => bus.subscribe(pattern, handle, options));
    } catch (error) {
      // It was told to end meanwhile.
      if (over) return;
      throw error;
    }
  }
  record({ e: 'ready' });
})();

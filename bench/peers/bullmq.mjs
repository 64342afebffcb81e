/**
 * BullMQ: a queue and a worker in one process. A job has an id, a name and a time of its own; the rest of the envelope goes with the data.
 * Done jobs are removed, as an acknowledged event need not be kept; three retries, as the bus has by default.
 */
import { Queue, Worker } from 'bullmq';
import { data, metadata, type } from '../lib/event.mjs';

const queueName = 'plain';
const concurrency = 100;
const options = { removeOnComplete: true, attempts: 4, backoff: { type: 'exponential', delay: 1_000 } };

function job(i) {
  const { source, version, priority, ttl } = metadata();
  return { source, version, priority, ttl, data: data(i) };
}

export const bullmq = {
  name: 'BullMQ',
  share: 0.1,
  async open({ address, redis }) {
    const { hostname: host, port } = new URL(address);
    const connection = { host, port: Number(port) };
    const queue = new Queue(queueName, { connection, defaultJobOptions: options });
    await queue.waitUntilReady();
    let worker;
    return {
      publish: (i) => queue.add(type, job(i)),
      publishBatch: (first, size) => queue.addBulk(Array.from({ length: size }, (_, i) => ({ name: type, data: job(first + i) }))),
      async subscribe(handler) {
        const process = ({ id, name, timestamp, data: { data: body, ...rest } }) =>
          handler({ metadata: { id, type: name, timestamp, ...rest }, data: body });
        worker = new Worker(queueName, process, { connection, concurrency, autorun: false });
        await worker.waitUntilReady();
        const ended = worker.run();
        ended.catch(() => undefined);
        return { ended, close: () => worker.close() };
      },
      async state() {
        const counts = await queue.getJobCounts('wait', 'active', 'delayed', 'prioritized', 'failed', 'paused');
        const unsettled = Object.values(counts).reduce((sum, one) => sum + one, 0);
        return { stored: Number(await redis.get(`bull:${queueName}:id`)), unsettled };
      },
      close: () => queue.close(),
    };
  },
};

/** From the call of publish() to the call of the handler in the same process, at 1,000 events a second. */
import { performance } from 'node:perf_hooks';
import { data, envelope } from '../lib/event.mjs';
import { paced, signal } from '../lib/run.mjs';
import { readGroup, withBus, withClients } from '../lib/sides.mjs';
import { quantile } from '../lib/stats.mjs';

const perSecond = 1_000;
/** Events at the beginning that are not counted. */
const warmUp = 100;

/** Publishes at the rate; resolves with the figures when all have arrived. */
async function measure(seconds, publish) {
  const count = warmUp + seconds * perSecond;
  const sent = new Float64Array(count);
  const took = new Float64Array(count);
  const { promise, done } = signal();
  let arrived = 0;
  const handler = async (event) => {
    const i = event.data.number;
    took[i] = (performance.now() - sent[i]) * 1e3;
    if (++arrived === count) done();
  };
  const enough = () => arrived >= count;
  const run = async () => {
    await paced(count, perSecond, (i) => {
      sent[i] = performance.now();
      publish(i);
    });
    await promise;
    const counted = took.subarray(warmUp);
    return { value: quantile(counted, 0.5), p99: quantile(counted, 0.99) };
  };
  return { handler, enough, run };
}

export const latency = {
  name: 'publish to handler at 1,000/s, p50',
  unit: 'µs',
  sides: {
    ossa: ({ address, seconds }) =>
      withBus(address, async (bus) => {
        const { handler, run } = await measure(seconds, (i) => bus.publish('user.created', data(i)));
        const subscription = await bus.subscribe('user.created', handler);
        const figures = await run();
        await subscription.close();
        return figures;
      }),
    ioredis: ({ address, seconds }) =>
      withClients(address, 2, async (writer, reader) => {
        await writer.xgroup('CREATE', 'plain', 'group', '0', 'MKSTREAM');
        const { handler, enough, run } = await measure(seconds, (i) => writer.xadd('plain', '*', ...envelope('user.created', i)));
        const reading = readGroup(reader, 'plain', handler, enough);
        const figures = await run();
        await reading;
        return figures;
      }),
  },
};

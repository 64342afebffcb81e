/** A backlog, taken by a trivial async handler; every event is acknowledged. */
import { performance } from 'node:perf_hooks';
import { countCpu } from '../lib/cpu.mjs';
import { data, envelope } from '../lib/event.mjs';
import { flight, signal } from '../lib/run.mjs';
import { readGroup, withBus, withClients } from '../lib/sides.mjs';

/** Counts handled events, and the time from now to the last of them. */
async function counter(redis, count) {
  const cpu = await countCpu(redis);
  const { promise, done } = signal();
  const start = performance.now();
  let handled = 0;
  let end = 0;
  return {
    handler: async (event) => {
      if (event.data.userId === undefined) throw new Error('an event without its data');
      if (++handled === count) {
        end = performance.now();
        done();
      }
    },
    enough: () => handled >= count,
    result: async () => {
      await promise;
      const value = count / ((end - start) / 1e3);
      return { value, cpu: await cpu(count) };
    },
  };
}

async function byBus(address, redis, count, options) {
  return withBus(address, async (bus) => {
    await flight({ redis, count, width: 1_000 }, (i) => bus.publish('user.created', data(i)));
    const { handler, result } = await counter(redis, count);
    const subscription = await bus.subscribe('user.created', handler, options);
    const figures = await result();
    await subscription.close();
    return figures;
  });
}

export const consume = {
  name: 'consume a backlog',
  unit: 'events/s',
  sides: {
    'ossa, maxUnacknowledged 1,000': ({ address, redis, count }) => byBus(address, redis, count, { maxUnacknowledged: 1_000 }),
    'ossa, defaults': ({ address, redis, count }) => byBus(address, redis, count, {}),
    'ioredis, COUNT 100, one XACK a batch': ({ address, redis, count }) =>
      withClients(address, 1, async (client) => {
        await flight({ redis, count, width: 1_000 }, (i) => client.xadd('plain', '*', ...envelope('user.created', i)));
        await client.xgroup('CREATE', 'plain', 'group', '0');
        const { handler, enough, result } = await counter(redis, count);
        await readGroup(client, 'plain', handler, enough);
        return result();
      }),
  },
};

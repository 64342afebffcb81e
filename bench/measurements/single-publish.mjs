/** One publish at a time. */
import { data, envelope } from '../lib/event.mjs';
import { oneByOne } from '../lib/run.mjs';
import { withBus, withClients } from '../lib/sides.mjs';
import { quantile } from '../lib/stats.mjs';

const times = (values) => ({ value: quantile(values, 0.5), p99: quantile(values, 0.99) });

export const singlePublish = {
  name: 'one publish at a time, p50',
  unit: 'µs',
  sides: {
    ossa: ({ address, calls }) =>
      withBus(address, async (bus) => times(await oneByOne(calls, (i) => bus.publish('user.created', data(i))))),
    ioredis: ({ address, calls }) =>
      withClients(address, 1, async (client) =>
        times(await oneByOne(calls, (i) => client.xadd('plain', '*', ...envelope('user.created', i)))),
      ),
    'PING by ioredis': ({ address, calls }) => withClients(address, 1, async (client) => times(await oneByOne(calls, () => client.ping()))),
  },
};

/** publish(), 1,000 in flight. */
import { data, envelope } from '../lib/event.mjs';
import { flight } from '../lib/run.mjs';
import { withBus, withClients } from '../lib/sides.mjs';

const width = 1_000;

export const publish = {
  name: 'publish, 1,000 in flight',
  unit: 'events/s',
  sides: {
    ossa: ({ address, redis, count }) =>
      withBus(address, (bus) => flight({ redis, count, width }, (i) => bus.publish('user.created', data(i)))),
    ioredis: ({ address, redis, count }) =>
      withClients(address, 1, (client) =>
        flight({ redis, count, width }, (i) => client.xadd('plain', '*', ...envelope('user.created', i))),
      ),
  },
};

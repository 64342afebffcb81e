/** publishBatch() of 100, ten batches in flight; beside it the same number of events by ioredis, 100 XADD a pipeline. */
import { data, envelope } from '../lib/event.mjs';
import { flight } from '../lib/run.mjs';
import { withBus, withClients } from '../lib/sides.mjs';

const size = 100;
const width = 10;

export const publishBatch = {
  name: 'publishBatch of 100, 10 in flight',
  unit: 'events/s',
  sides: {
    ossa: ({ address, redis, count }) =>
      withBus(address, (bus) =>
        flight({ redis, count: count / size, width, perCall: size }, (batch) =>
          bus.publishBatch(Array.from({ length: size }, (_, i) => ({ eventType: 'user.created', data: data(batch * size + i) }))),
        ),
      ),
    'ioredis pipeline': ({ address, redis, count }) =>
      withClients(address, 1, (client) =>
        flight({ redis, count: count / size, width, perCall: size }, (batch) => {
          const pipeline = client.pipeline();
          for (let i = 0; i < size; i++) pipeline.xadd('plain', '*', ...envelope('user.created', batch * size + i));
          return pipeline.exec();
        }),
      ),
  },
};

/** publish(), 1,000 in flight; and what the server takes, by the tool that comes with it. */
import { flight } from '../lib/run.mjs';
import { expectState, sidesOf } from '../lib/sides.mjs';
import { writers } from '../peers/index.mjs';
import { limit } from './server-limit.mjs';

const width = 1_000;

export const publish = {
  name: 'publish, 1,000 in flight',
  unit: 'events/s',
  sides: {
    ...sidesOf(writers, async (peer, { redis, count }) => {
      const figures = await flight({ redis, count, width }, peer.publish);
      await expectState(peer, { stored: count, unsettled: count });
      return figures;
    }),
    ...limit,
  },
};

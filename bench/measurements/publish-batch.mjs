/** Batches of 100, ten in flight: publishBatch(), and what the peers have for it. */
import { flight } from '../lib/run.mjs';
import { expectState, sidesOf } from '../lib/sides.mjs';
import { plain } from '../peers/index.mjs';

const size = 100;
const width = 10;

export const publishBatch = {
  name: 'publish in batches of 100, 10 in flight',
  unit: 'events/s',
  sides: sidesOf(plain, async (peer, { redis, count }) => {
    const figures = await flight({ redis, count: count / size, width, perCall: size }, (batch) => peer.publishBatch(batch * size, size));
    await expectState(peer, { stored: count, unsettled: count });
    return figures;
  }),
};

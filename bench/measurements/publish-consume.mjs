/** Published and consumed at once in one process: never more than 2,000 events published and not yet handled. */
import { counter, pump } from '../lib/counting.mjs';
import { expectState, sidesOf } from '../lib/sides.mjs';
import { readers } from '../peers/index.mjs';

const ahead = 2_000;

export const publishConsume = {
  name: 'publish and consume at once, one process',
  unit: 'events/s',
  sides: sidesOf(readers, async (peer, { redis, count }) => {
    const more = pump(count, ahead, peer.publish, (error) => fail(error));
    const { handler, enough, fail, result } = await counter(redis, count, more);
    const subscription = await peer.subscribe(handler, enough);
    more(0);
    const figures = await result(subscription.ended);
    await subscription.close();
    await expectState(peer, { stored: count, unsettled: 0 });
    return figures;
  }),
};

/** A backlog, taken by a trivial async handler; every event is acknowledged. */
import { counter } from '../lib/counting.mjs';
import { lanes } from '../lib/run.mjs';
import { expectState, sidesOf } from '../lib/sides.mjs';
import { readers } from '../peers/index.mjs';

const size = 100;
const width = 10;

export const consume = {
  name: 'consume a backlog',
  unit: 'events/s',
  sides: sidesOf(readers, async (peer, { redis, count }) => {
    await lanes({ count: count / size, width }, (batch) => peer.publishBatch(batch * size, size));
    const { handler, enough, result } = await counter(redis, count);
    const subscription = await peer.subscribe(handler, enough);
    const figures = await result(subscription.ended);
    await subscription.close();
    await expectState(peer, { stored: count, unsettled: 0 });
    return figures;
  }),
};

/** One publish at a time, and the server's round trip. */
import { oneByOne } from '../lib/run.mjs';
import { expectState, sidesOf, withClient } from '../lib/sides.mjs';
import { quantile } from '../lib/stats.mjs';
import { plain } from '../peers/index.mjs';

const times = (values) => ({ value: quantile(values, 0.5), p99: quantile(values, 0.99) });

/** Calls before those that count: the first ones meet code that is not compiled yet. */
const warmUp = 200;

async function measure(calls, call) {
  await oneByOne(warmUp, call);
  return times(await oneByOne(calls, call));
}

export const singlePublish = {
  name: 'one publish at a time, p50',
  unit: 'µs',
  sides: {
    ...sidesOf(plain, async (peer, { calls }) => {
      const figures = await measure(calls, peer.publish);
      await expectState(peer, { stored: warmUp + calls, unsettled: warmUp + calls });
      return figures;
    }),
    'PING by ioredis': ({ address, calls }) => withClient(address, (client) => measure(calls, () => client.ping())),
  },
};

/** From the call of publish() to the call of the handler in the same process, at 1,000 events a second; and PING as often. */
import { performance } from 'node:perf_hooks';
import { paced, signal } from '../lib/run.mjs';
import { expectState, sidesOf, withClient } from '../lib/sides.mjs';
import { quantile } from '../lib/stats.mjs';
import { plain } from '../peers/index.mjs';

const perSecond = 1_000;
/** Events at the beginning that are not counted. */
const warmUp = 200;

/** Calls begun and ended, by their number. */
function stopwatch(seconds) {
  const count = warmUp + seconds * perSecond;
  const sent = new Float64Array(count);
  const took = new Float64Array(count);
  const { promise, done, fail } = signal();
  let ended = 0;
  return {
    count,
    fail,
    end(i) {
      took[i] = (performance.now() - sent[i]) * 1e3;
      if (++ended === count) done();
    },
    enough: () => ended >= count,
    /** Begins at the rate; resolves with the figures when all have ended. */
    async run(begin, failed = promise) {
      await paced(count, perSecond, (i) => {
        sent[i] = performance.now();
        begin(i).catch(fail);
      });
      await Promise.race([promise, failed.then(() => promise)]);
      const counted = took.subarray(warmUp);
      return { value: quantile(counted, 0.5), p99: quantile(counted, 0.99) };
    },
  };
}

export const latency = {
  name: 'publish to handler at 1,000/s, p50',
  unit: 'µs',
  sides: {
    ...sidesOf(plain, async (peer, { seconds }) => {
      const { count, end, enough, run } = stopwatch(seconds);
      const subscription = await peer.subscribe(async ({ data }) => end(data.number), enough);
      const figures = await run(peer.publish, subscription.ended);
      await subscription.close();
      await expectState(peer, { stored: count, unsettled: 0 });
      return figures;
    }),
    'PING by ioredis': ({ address, seconds }) =>
      withClient(address, (client) => {
        const { end, run } = stopwatch(seconds);
        return run((i) => client.ping().then(() => end(i)));
      }),
  },
};

/** The command line of the load test. */
import { parseArgs } from 'node:util';

/** Short, so that Redis comes to rest within a run; longer than events wait on a machine that is busy with other things. */
const ttlSeconds = 60;

export const usage = `npm run test:load -- [options]
  --minutes N                how long events are published (default 10); below 3 nothing is said about levelling off
  --rate N                   events a second in all (default 300)
  --topology single|cluster  one server, or three masters with a replica each (default single)
  --seed N                   who subscribes to what, and what is published (default 1)
  --report file.md           writes what is printed at the end there, too
  --no-build                 runs what is built already`;

/** What was asked for; throws an Error with one line that says what is wrong. */
export function readOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      minutes: { type: 'string', default: '10' },
      rate: { type: 'string', default: '300' },
      topology: { type: 'string', default: 'single' },
      seed: { type: 'string', default: '1' },
      report: { type: 'string' },
      'no-build': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (!['single', 'cluster'].includes(values.topology)) throw new Error(`--topology is single or cluster, not ${values.topology}`);
  const seconds = 60 * between('minutes', values.minutes, 0.2, 1440);
  return {
    ...values,
    ...times(seconds),
    build: !values['no-build'],
    rate: between('rate', values.rate, 4, 100_000),
    seed: between('seed', values.seed, 0, Number.MAX_SAFE_INTEGER),
  };
}

/** What depends on how long a run is; all in seconds. */
const times = (seconds) => ({
  seconds,
  warmUp: Math.min(60, seconds / 10),
  every: Math.max(2, Math.min(10, seconds / 15)),
  ttl: ttlSeconds,
  /** Upkeep of a stream comes up to 15 s after the ttl: in a shorter run nothing has come to rest by the middle. */
  levels: seconds >= 180,
});

function between(name, text, least, most) {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least && value <= most))
    throw new Error(`--${name} is a number from ${least} to ${most}, not ${text}`);
  return value;
}

/** The command line of the fault suite. */
import { parseArgs } from 'node:util';

export const usage = `npm run test:faults -- [options]
  --seed N                   the first seed; a run with the same seed has the same plan (default: by the time)
  --runs N                   seeds from the first one on (default 3)
  --seconds N                how long faults are made in each run (default 20)
  --topology single|cluster  one server, or three masters with a replica each (default single)
  --only kind,kind           faults of these kinds only
  --report file.md           writes the table there, too
  --no-build                 runs what is built already
  --keep                     leaves the records of all runs in target/faults/, not only those of failed ones`;

/** What was asked for; throws an Error with one line that says what is wrong. */
export function readOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: 'string' },
      runs: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '20' },
      topology: { type: 'string', default: 'single' },
      only: { type: 'string' },
      report: { type: 'string' },
      keep: { type: 'boolean', default: false },
      'no-build': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (!['single', 'cluster'].includes(values.topology)) throw new Error(`--topology is single or cluster, not ${values.topology}`);
  return {
    ...values,
    build: !values['no-build'],
    seed: values.seed === undefined ? Date.now() % 1_000_000 : whole('seed', values.seed, 0),
    runs: whole('runs', values.runs, 1),
    seconds: whole('seconds', values.seconds, 1),
    only: values.only?.split(','),
  };
}

function whole(name, text, least) {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw new Error(`--${name} is a whole number from ${least}, not ${text}`);
  return value;
}

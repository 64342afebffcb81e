/**
 * Measures this bus beside a plain Redis client on one server. `npm run bench`; options:
 *
 *   --quick          fewer events and rounds, in about twenty seconds
 *   --check          exit code 1 when a goal is missed
 *   --rounds <n>     rounds that count (5, at least)
 *   --seconds <n>    how long each measurement at a fixed rate takes (3)
 *   --only <a,b>     measurements by name: publish, publishBatch, singlePublish, consume, latency, crossProject, orchestration,
 *                    orchestrationCost, serverLimit
 *
 * The server is that of OSSA_TEST_REDIS, and everything in it is deleted.
 */
import { parseArgs } from 'node:util';
import { dataBytes } from './lib/event.mjs';
import { judge } from './lib/goals.mjs';
import { countOthers, load, machine } from './lib/machine.mjs';
import { markdown, write } from './lib/report.mjs';
import { runRounds } from './lib/rounds.mjs';
import { openClient } from './lib/sides.mjs';
import { consume } from './measurements/consume.mjs';
import { crossProject } from './measurements/cross-project.mjs';
import { latency } from './measurements/latency.mjs';
import { orchestration, orchestrationCost } from './measurements/orchestration.mjs';
import { publish } from './measurements/publish.mjs';
import { publishBatch } from './measurements/publish-batch.mjs';
import { serverLimit } from './measurements/server-limit.mjs';
import { singlePublish } from './measurements/single-publish.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    check: { type: 'boolean' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string' },
  },
});
const address = process.env.OSSA_TEST_REDIS;
if (!address) throw new Error('OSSA_TEST_REDIS is not set: run this by `npm run bench`');

const all = {
  ...{ publish, publishBatch, singlePublish, consume, latency, crossProject, orchestration, orchestrationCost },
  ...(serverLimit ? { serverLimit } : {}),
};
const wanted = options.only?.split(',') ?? Object.keys(all);
for (const key of wanted) if (!(key in all)) throw new Error(`--only ${key}: there are ${Object.keys(all).join(', ')}`);

const sizes = options.quick
  ? { count: 20_000, calls: 1_000, tasks: 2_000, seconds: 1 }
  : { count: 100_000, calls: 3_000, tasks: 20_000, seconds: 3 };
if (options.seconds !== undefined) sizes.seconds = Number(options.seconds);
if (!Number.isInteger(sizes.seconds) || sizes.seconds < 1) throw new Error('--seconds has to be a number, 1 or more');
const rounds = options.rounds === undefined ? (options.quick ? 3 : 5) : Number(options.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds has to be a number, 1 or more');

const redis = await openClient(address);
const about = await machine(redis);
const others = await countOthers(redis);
const list = await runRounds(
  wanted.map((key) => all[key]),
  {
    rounds,
    context: { address, redis, ...sizes },
    onSide: ({ round, name, side, figures }) =>
      console.log('%s %s: %s: %s', round === 0 ? 'warm-up' : `round ${round}`, name, side, Math.round(figures.value)),
  },
);
about.cpusBusyWithOtherPrograms = await others();
redis.disconnect();

const results = Object.fromEntries(wanted.map((key, i) => [key, list[i]]));
const goals = judge(results);
about.loadAfter = load();
const method = [
  `one redis-server on loopback without persistence, emptied before every side; ${rounds} rounds after one that does not count; ` +
    'in each every measurement, its sides one after the other, the other way round in every second round',
  `${sizes.count.toLocaleString('en-US')} events of ${dataBytes} bytes of JSON, with id, type, source, time, version, priority and ttl beside them on ` +
    `both sides; ${sizes.calls.toLocaleString('en-US')} calls one at a time; ${sizes.seconds} s at 1,000 events or messages between projects a second`,
  `${sizes.tasks.toLocaleString('en-US')} tasks to agents that return at once, in two processes; 600 wait for an answer at any time`,
  'the bus with its default configuration: counters, lease, acknowledgements and the record of batches in force',
  'ratios are of one round each, and then the median of those',
  'the bus works on several threads, a plain client on one: what other programs take of the machine costs the bus more; ' +
    'redis-benchmark counts as one of them here',
];
const text = markdown({ machine: about, method, results, goals });
console.log('\n%s', text);
write(options.quick ? 'quick' : 'bench', text, { machine: about, method, results, goals });
if (options.check && goals.some(({ reached }) => !reached)) process.exitCode = 1;

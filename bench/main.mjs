/**
 * Measures this bus beside what one would use instead, on one server. `npm run bench`; options:
 *
 *   --quick          fewer events and rounds
 *   --check          exit code 1 when a goal is missed
 *   --write          writes the figures into docs/performance.md, with their picture
 *   --rounds <n>     rounds that count (5, at least)
 *   --seconds <n>    how long each measurement at a fixed rate takes (2)
 *   --only <a,b>     some measurements; a wrong name is answered with all of them
 *
 * The server is that of OSSA_TEST_REDIS, and everything in it is deleted.
 */
import { parseArgs } from 'node:util';
import { writeDocument } from './lib/document.mjs';
import { dataBytes } from './lib/event.mjs';
import { judge } from './lib/goals.mjs';
import { countOthers, load, machine, peerVersions } from './lib/machine.mjs';
import { moreServers } from './lib/more-servers.mjs';
import { parts, write } from './lib/report.mjs';
import { runRounds } from './lib/rounds.mjs';
import { openClient } from './lib/sides.mjs';
import { cluster } from './measurements/cluster.mjs';
import { consume } from './measurements/consume.mjs';
import { crossProject } from './measurements/cross-project.mjs';
import { growthBacklog, growthSubscriptions, growthTypes } from './measurements/growth.mjs';
import { latency } from './measurements/latency.mjs';
import { orchestration, orchestrationCost } from './measurements/orchestration.mjs';
import { payload } from './measurements/payload.mjs';
import { publish } from './measurements/publish.mjs';
import { publishBatch } from './measurements/publish-batch.mjs';
import { publishConsume } from './measurements/publish-consume.mjs';
import { singlePublish } from './measurements/single-publish.mjs';
import { memory, start } from './measurements/start.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    check: { type: 'boolean' },
    write: { type: 'boolean' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    only: { type: 'string' },
  },
});
const address = process.env.OSSA_TEST_REDIS;
if (!address) throw new Error('OSSA_TEST_REDIS is not set: run this by `npm run bench`');

const all = {
  ...{ publish, publishBatch, singlePublish, consume, publishConsume, latency, crossProject, cluster },
  ...{ growthTypes, growthSubscriptions, growthBacklog, payload, memory, start, orchestration, orchestrationCost },
};
const wanted = options.only?.split(',') ?? Object.keys(all);
for (const key of wanted) if (!(key in all)) throw new Error(`--only ${key}: there are ${Object.keys(all).join(', ')}`);
if (options.write && options.only !== undefined) throw new Error('--write is for all measurements: leave out --only');

const sizes = options.quick
  ? { count: 20_000, calls: 1_000, tasks: 2_000, seconds: 1, fleet: 9_000, signed: 1_500 }
  : { count: 100_000, calls: 3_000, tasks: 10_000, seconds: 2, fleet: 45_000, signed: 6_000 };
if (options.seconds !== undefined) sizes.seconds = Number(options.seconds);
if (!Number.isInteger(sizes.seconds) || sizes.seconds < 1) throw new Error('--seconds has to be a number, 1 or more');
// The first round is for compilers and caches: they need not all of it.
const warmUp = { ...sizes, count: sizes.count / 5, tasks: sizes.tasks / 5, fleet: sizes.fleet / 3, signed: sizes.signed / 3, seconds: 1 };
const rounds = options.rounds === undefined ? (options.quick ? 2 : 5) : Number(options.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds has to be a number, 1 or more');

const redis = await openClient(address);
const servers = moreServers();
const about = { ...(await machine(redis)), peers: peerVersions() };
const others = await countOthers(redis);
let list;
try {
  list = await runRounds(
    wanted.map((key) => all[key]),
    {
      rounds,
      context: { address, redis, servers, ...sizes },
      warmUp: { address, redis, servers, ...warmUp },
      onSide: ({ round, name, side, figures }) =>
        console.log('%s %s: %s: %d', round === 0 ? 'warm-up' : `round ${round}`, name, side, Number(figures.value.toPrecision(4))),
    },
  );
} finally {
  await servers.stop();
}
about.cpusBusyWithOtherPrograms = await others();
about.loadAfter = load();
redis.disconnect();

const results = Object.fromEntries(wanted.map((key, i) => [key, list[i]]));
const goals = judge(results);
const number = (value) => value.toLocaleString('en-US');
const method = [
  `One redis-server on loopback without persistence, emptied before every side; ${rounds} rounds after one that does not count. In each, every ` +
    'measurement, its sides one after the other, the other way round in every second round. A ratio is one of figures of the same round; ' +
    'given is the median of those.',
  `${number(sizes.count)} events of ${dataBytes} bytes of JSON, and with each its id, type, source, time, version, priority and ttl, for all; fewer for ` +
    'slower peers. What was stored, and that nothing is left that is not acknowledged, is asked of the server after each run.',
  'The bus has its default configuration, the peers what their documentation advises: ioredis, node-redis and valkey-glide write over one connection and ' +
    'read over another, as a group, 100 entries a call (node-redis and valkey-glide 1,000, which serves them better), handled together, acknowledged by one XACK that the next read does not wait for; ' +
    'BullMQ has a worker with a concurrency of 100, and removes what is done.',
  'redis-benchmark, over one connection, is told to write what the bus writes for an event: fields of the same lengths. It shows what the server can do, not what a client does.',
  `${number(sizes.calls)} calls one at a time; ${sizes.seconds} s at 1,000 events a second. PING is sent just as often in the same round: ` +
    'a machine that does little answers later.',
  'Cluster: three masters without replicas, twelve event types, every process an OSSAEventBus with a ServiceRegistry and all that is on by ' +
    `default: metrics, alerts, health, orchestration, projects; no traces are sent. ${number(sizes.fleet)} events, ${number(sizes.signed)} where they ` +
    'are messages between projects, signed, held against a contract and audited.',
  `${number(sizes.tasks)} tasks to agents that return at once, in two processes; 600 wait for an answer at any time.`,
  "CPU time is counted by thread: that of JavaScript, those of the engine, all others (garbage collection, a peer's own). That of JavaScript has the " +
    'making of the data in it. The bus works on several threads, a plain client on one: what other programs take of the machine costs the bus more.',
];
const made = parts({ machine: about, method, results, goals });
const markdown = `${[made.figures, made.goals, made.machine, made.method].join('\n\n')}\n`;
console.log('\n%s', markdown);
write(options.quick ? 'quick' : 'bench', markdown, { machine: about, method, results, goals });
const note = options.quick ? 'A quick run, with fewer events and rounds than count: it shows that the command works, and little else.' : '';
if (options.write) writeDocument({ parts: made, results, machine: about, note });
if (options.check && goals.some(({ reached }) => !reached)) process.exitCode = 1;

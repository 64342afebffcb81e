/**
 * Many events through one subscription that keeps 10,000 acknowledged ones: do memory and handles level off, and is the
 * stream trimmed in the end? `npm run bench -- growth`; options:
 *
 *   --events <n>     1,000,000 unless given
 *   --check          exit code 1 when something grows
 *
 * The server is that of OSSA_TEST_REDIS, and everything in it is deleted.
 */
import { existsSync, readdirSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { data } from './lib/event.mjs';
import { load, machine } from './lib/machine.mjs';
import { facts, table, write } from './lib/report.mjs';
import { signal } from './lib/run.mjs';
import { openClient, withBus } from './lib/sides.mjs';
import { median } from './lib/stats.mjs';

const points = 10;
const keepAcknowledged = 10_000;
/** Entries in a node of a stream, by default: trimming may leave the rest of one. */
const nodeEntries = 100;
/** Published and not yet handled, at most: what is measured is the way through, not a backlog. */
const aheadMax = 2_000;
/**
 * What the median of the later half may be above that of the earlier one. The stream, and with it the server's memory, is a
 * saw: upkeep trims about once a second, so that a sample may find its top or its foot.
 */
const tolerance = { saw: 2, memory: 1.15, handles: 1.1 };
const trimTimeoutMs = 60_000;

const { values: options } = parseArgs({ options: { events: { type: 'string' }, check: { type: 'boolean' } } });
const address = process.env.OSSA_TEST_REDIS;
if (!address) throw new Error('OSSA_TEST_REDIS is not set: run this by `npm run bench -- growth`');
const events = Number(options.events ?? 1_000_000);
if (!Number.isInteger(events) || events < points) throw new Error(`--events has to be a number, ${points} or more`);

const mebibytes = (bytes) => bytes / 2 ** 20;
const redis = await openClient(address);
await redis.flushall();
const about = await machine(redis);

async function streamLength() {
  const lengths = await Promise.all((await redis.keys('growth:*:stream:*')).map((key) => redis.xlen(key)));
  return lengths.reduce((sum, length) => sum + length, 0);
}

async function sample(handled, seconds) {
  const [, used] = /^used_memory:(\d+)/m.exec(await redis.info('memory'));
  const memory = process.memoryUsage();
  return {
    handled,
    seconds,
    redis: mebibytes(Number(used)),
    length: await streamLength(),
    rss: mebibytes(memory.rss),
    heap: mebibytes(memory.heapUsed),
    handles: existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : Number.NaN,
  };
}

/** Publishes all, never far ahead of the handlers; resolves with a sample at each point. */
async function through(bus) {
  const samples = [];
  const start = performance.now();
  const all = signal();
  let published = 0;
  let handled = 0;
  let failed;
  let sampling = Promise.resolve();
  const more = () => {
    while (published < events && published - handled < aheadMax) bus.publish('growth.measured', data(published++)).catch(fail);
  };
  const fail = (error) => {
    failed ??= error;
    all.done();
  };
  const handler = async () => {
    handled++;
    if (handled % (events / points) === 0) {
      const at = handled;
      sampling = sampling.then(async () => samples.push(await sample(at, (performance.now() - start) / 1e3)));
    }
    if (handled === events) all.done();
    else if (published - handled <= aheadMax / 2) more();
  };
  const subscription = await bus.subscribe('growth.measured', handler, { maxUnacknowledged: 1_000 });
  more();
  await all.promise;
  if (failed) throw failed;
  await sampling;
  await subscription.close();
  return samples;
}

/** Waits until the stream is as short as it has to be; resolves with its length at the end. */
async function trimmed() {
  for (const end = performance.now() + trimTimeoutMs; performance.now() < end; await sleep(250)) {
    if ((await streamLength()) <= keepAcknowledged + nodeEntries) break;
  }
  return streamLength();
}

const { samples, last } = await withBus(
  address,
  async (bus) => {
    const taken = await through(bus);
    const length = await trimmed();
    return { samples: taken, last: { ...(await sample(events, Number.NaN)), length } };
  },
  { redis: { keyPrefix: 'growth' }, limits: { keepAcknowledged } },
);
about.loadAfter = load();
await redis.flushall();
redis.disconnect();

/** Whether the later half is not above the earlier one. */
function level(name, field, factor) {
  const middle = (list) => median(list.map((each) => each[field]));
  const half = samples.length >> 1;
  const [before, after] = [middle(samples.slice(0, half)), middle(samples.slice(half))];
  return { name, figure: `${before.toFixed(0)} → ${after.toFixed(0)}`, holds: !(after > before * factor) };
}

const verdicts = [
  level("the server's memory levels off, MiB", 'redis', tolerance.saw),
  level('the stream levels off, entries', 'length', tolerance.saw),
  level('memory of the Node process levels off, MiB', 'rss', tolerance.memory),
  level('file descriptors level off', 'handles', tolerance.handles),
  {
    name: `the stream ends trimmed, ≤ ${keepAcknowledged} + a node`,
    figure: `${last.length}`,
    holds: last.length <= keepAcknowledged + nodeEntries,
  },
];

const cells = ({ handled, seconds, redis: used, length, rss, heap, handles }) => [
  handled.toLocaleString('en-US'),
  Number.isNaN(seconds) ? 'trimmed' : seconds.toFixed(1),
  used.toFixed(1),
  length.toLocaleString('en-US'),
  rss.toFixed(1),
  heap.toFixed(1),
  Number.isNaN(handles) ? '?' : String(handles),
];
const head = ['events handled', 'after s', 'Redis used_memory, MiB', 'XLEN', 'Node RSS, MiB', 'Node heap, MiB', 'open file descriptors'];
const text = [
  table(head, [...samples, last].map(cells)),
  '',
  table(
    ['median of the first half → of the second', 'figure', 'holds'],
    verdicts.map(({ name, figure, holds }) => [name, figure, holds ? 'yes' : 'NO']),
  ),
  '',
  facts(about),
  '',
].join('\n');
console.log(text);
write('growth', text, { machine: about, keepAcknowledged, samples, last, verdicts });
if (options.check && verdicts.some(({ holds }) => !holds)) process.exitCode = 1;

/** One run: servers, processes, subscriptions; then events for some minutes, looked at now and then, and a look at the end. */
import { load } from '../../bench/lib/machine.mjs';
import { waitFor } from '../lib/servers.mjs';
import { buses, busesEach, processes, subscriptions } from './plan.mjs';
import { startRedis } from './redis.mjs';
import { line, phaseLine, takeSample } from './samples.mjs';
import { tally } from './tally.mjs';
import { startWorker } from './workers.mjs';

const drainTimeoutMs = 60_000;
/** How long is looked at what buses cost that have nothing to do. */
const idleMs = 10_000;
/** Room in the books of a process: a burst that makes up for a pause never goes beyond the rate. */
const spareEvents = 1_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const numbers = (count) => Array.from({ length: count }, (_, number) => number);

/** Resolves with all that was seen. */
export async function carryOut(options) {
  const redis = await startRedis(options.topology, buses);
  const workers = [];
  try {
    const about = await redis.about();
    const start = (number) =>
      startWorker({
        ...{ number, seed: options.seed, ttl: options.ttl, rate: options.rate / processes },
        capacity: Math.ceil((options.rate / processes) * options.seconds) + spareEvents,
        redis: numbers(busesEach).map((n) => redis.configOf(number * busesEach + n)),
      });
    const started = await Promise.allSettled(numbers(processes).map(start));
    workers.push(...started.flatMap(({ value }) => value ?? []));
    for (const { reason } of started) if (reason) throw reason;
    const all = (ask) => Promise.all(workers.map((worker) => worker.ask(ask)));
    const phases = [];
    const effort = async () => ({ ...(await redis.traffic()), own: (await all('cpu')).reduce((sum, each) => sum + each, 0) });
    const phase = async (name, action) => {
      const before = await effort();
      const began = performance.now();
      await action();
      const seconds = (performance.now() - began) / 1000;
      const after = await effort();
      const spent = Object.fromEntries(Object.entries(after).map(([key, value]) => [key, value - before[key]]));
      phases.push({ name, seconds, ...spent });
      console.log(phaseLine(phases.at(-1)));
    };
    await phase('opening buses and subscribing', () => all('subscribe'));
    console.log(`${subscriptions(options.seed).length} subscriptions on ${buses} buses in ${processes} processes, Redis ${redis.version}`);

    let first;
    await phase('the first event of each type', async () => {
      // A new type is work for every bus: one step after the other, or a slow machine would be far behind.
      while ((await all('publishFirst')).includes(true)) await waitFor(() => handled(all), drainTimeoutMs);
      first = (await drain(all, redis)).last;
    });
    await phase('nothing published', () => pause(idleMs));
    let seen;
    await phase('publishing at the rate', async () => {
      seen = await publishAndLook(options, all, redis, first);
    });
    const { samples, keyspaces } = seen;
    await all('stop');
    const { left, last } = await drain(all, redis);
    samples.push({ ...last, at: 'drained' });
    const kept = await all('books');
    const deadLetters = await workers[0].ask('deadLetters');
    const closed = await Promise.all(workers.map((worker) => worker.close()));
    return {
      ...{ options, about: { ...about, loadAfter: load() }, masters: redis.masters },
      ...{ phases, first, samples, keyspaces, left, deadLetters, closed },
      tally: tally(kept, options.seed),
      complaints: kept.flatMap(({ complaints }) => complaints),
    };
  } finally {
    await Promise.all(workers.map((worker) => worker.kill()));
    await redis.stop();
  }
}

async function publishAndLook({ seconds, every, warmUp }, all, redis, first) {
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  const samples = [];
  const keyspaces = {};
  const points = { start: warmUp, middle: seconds / 2, end: seconds };
  let previous = { ...first, at: 0 };
  await all('publish');
  for (let at = every; at < seconds + every / 2; at += every) {
    await pause((at - elapsed()) * 1000);
    previous = await takeSample(all, redis, previous, elapsed());
    samples.push(previous);
    for (const [name, from] of Object.entries(points))
      if (at >= from - every / 2 && !keyspaces[name]) keyspaces[name] = await redis.keyspace();
    console.log(line(previous));
  }
  return { samples, keyspaces };
}

/** Whether every delivery that is due was made, as far as the processes know. */
const handled = async (all) => (await all('undelivered')).reduce((sum, each) => sum + each, 0) <= 0;

/** Waits until all that was published is handled; resolves with what is left when that takes too long, and a last sample. */
async function drain(all, redis) {
  let left = [];
  // Handlers have ended a little before Redis knows. What has to be asked of each stream is asked last.
  const drained = async () => (await handled(all)) && (left = await redis.outstanding()).length === 0;
  if (!(await waitFor(drained, drainTimeoutMs))) left = await redis.outstanding();
  return { left, last: await takeSample(all, redis, null, Number.NaN) };
}

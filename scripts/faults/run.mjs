/** One run: a world is set up, its plan is carried out, all is healed, and the checker is asked. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../lib/paths.mjs';
import { waitFor } from '../lib/servers.mjs';
import { check } from './checker.mjs';
import { makeClock } from './clock.mjs';
import { inventory, outstanding } from './inventory.mjs';
import { FaultLog, now, pause } from './log.mjs';
import { makeFault } from './making.mjs';
import { startTopology } from './topology.mjs';
import { readRecords, startWorker } from './workers.mjs';
import workload from './workload.cjs';

const closeTimeoutMs = 25_000;
/** Retries, leases of the dead and what a slow machine needs, with much to spare. */
const quiescenceTimeoutMs = 60_000;
const prefix = 'faults';

/** Carries out a plan; resolves with what the checker says, and where the records are. */
export async function carryOut(plan, { clocks }) {
  const folder = join(root, 'target/faults', `${plan.topology}-${plan.seed}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'plan.json'), JSON.stringify(plan, null, 2));
  const world = await setUp(plan, folder, clocks);
  try {
    await world.begin();
    const began = now();
    // All of them come to their end, so that none makes anything new while the world is torn down.
    const ends = await Promise.allSettled(Object.values(plan.lanes).map((lane) => makeAll(world, lane, began + plan.seconds * 1000)));
    for (const { reason } of ends) if (reason) throw reason;
    const left = await world.comeToRest();
    const held = joined(await world.topology.onMasters((client) => inventory(client, prefix)));
    await Promise.all(world.consumers.filter(({ ended }) => !ended).map((worker) => worker.close(closeTimeoutMs)));
    const records = world.everybody
      .flatMap(({ name, records }) => readRecords(records).map((line) => ({ p: name, ...line })))
      .sort((a, b) => a.t - b.t);
    const processes = world.everybody.map(({ signal, kill, close, ready, exit, ...facts }) => facts);
    const facts = { processes, faults: world.log.faults, outstanding: left, inventory: held };
    writeFileSync(join(folder, 'facts.json'), JSON.stringify(facts));
    const verdict = check({
      ...facts,
      records,
      groupsOf: workload.groupsOf,
      ordered: workload.subscriptions.filter(({ ordered }) => ordered).map(({ group }) => group),
    });
    return { ...verdict, folder };
  } catch (error) {
    // Whatever it was that failed, a server that ended by itself is the reason.
    const crashes = world.topology.nodes.map((node) => node.crash()).filter(Boolean);
    throw crashes.length > 0 ? new Error(`a redis-server crashed:\n${crashes.join('\n')}`) : error;
  } finally {
    await world.tearDown();
  }
}

/** What several servers hold, as if it were one. */
const joined = (parts) => ({
  entries: parts.flatMap(({ entries }) => entries),
  dead: parts.flatMap(({ dead }) => dead),
  streams: parts.flatMap(({ streams }) => streams),
});

/** The faults of a lane, one after the other; none is begun after `end`. */
async function makeAll(world, faults, end) {
  for (const fault of faults) {
    await pause(fault.afterMs);
    if (now() >= end) return;
    await makeFault(world, fault);
  }
}

async function setUp(plan, folder, clocks) {
  const clockOf = (name) => (clocks ? makeClock(folder, name) : undefined);
  const topology = await startTopology(plan.topology, { clocks, folder });
  const world = { log: new FaultLog(), prefix, topology, consumers: [], publishers: [], everybody: [], closeTimeoutMs };

  async function start(role, place, generation) {
    const { proxied, ...own } = plan[`${role}s`][place];
    const name = `${role[0]}${place}.${generation}`;
    const bus = {
      redis: { ...topology.redis(proxied), keyPrefix: prefix, commandTimeoutMs: 3_000, connectTimeoutMs: 2_000 },
      monitoring: { tracing: false },
    };
    const worker = await startWorker(role, name, { folder, task: { seed: plan.seed, bus, ...own }, clock: clockOf(name) });
    Object.assign(worker, { proxied, place, generation });
    world[`${role}s`][place] = worker;
    world.everybody.push(worker);
    return worker;
  }

  /** Starts a process in the place of one that ended; it need not be ready at once. */
  world.replace = ({ role, place, generation }) => start(role, place, generation + 1);

  world.begin = async () => {
    for (const role of ['consumer', 'publisher']) {
      const team = await Promise.all(plan[`${role}s`].map((_, place) => start(role, place, 0)));
      for (const worker of team)
        if (!(await worker.ready()) || worker.ended) throw new Error(`${worker.name} did not get ready\n${worker.stderr}`);
    }
  };

  /** No more events; resolves with what is left to do when nothing is, or when that took too long. */
  world.comeToRest = async () => {
    await topology.ready();
    await Promise.all(world.publishers.filter(({ ended }) => !ended).map((worker) => worker.close(closeTimeoutMs)));
    let left = [];
    const atRest = async () => (left = (await topology.onMasters((client) => outstanding(client, prefix))).flat()).length === 0;
    await waitFor(async () => (await atRest()) || (await pause(200)), quiescenceTimeoutMs);
    return left;
  };

  world.tearDown = async () => {
    await Promise.all(world.everybody.filter(({ ended }) => !ended).map((worker) => worker.kill()));
    await topology.stop();
  };
  return world;
}

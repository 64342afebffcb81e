/**
 * A hundred and twenty agents of four types in eight processes, and three processes that distribute thousands of tasks to them: with
 * dependencies, priorities, and some that fail. Meanwhile agents are killed, others come when they are asked for, and the process that
 * leads is killed, too. What became of the tasks is counted by what handlers wrote down, and by the events.
 *
 * `OSSA_TASKS=20000` for the full number of tasks; fewer are the default, since a debug build does a few hundred a second.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { RedisEventBus } from '@bluefly/ossa';
import { endAll, type Line, type Program, start } from '../support/children';
import { TestServer } from '../support/server';
import { until } from '../support/wait';

const COUNT = Number(process.env['OSSA_TASKS'] ?? 2_000);
jest.setTimeout(240_000 + COUNT * 40);

const PROCESSES = 8;
const AGENTS_A_PROCESS = 15;
const REPORT_MS = 500;
const TIMEOUT_MS = 2_500;
/** Longest time in which no task ends: who leads next does so after 4 s, and reads what the one before had in hand after its lease. */
const STALL_MS = 30_000;
/** Attempts of a task that fails: those of others are not used up by agents that are killed. */
const ATTEMPTS = 2;
const PATIENCE = 20;
/** Tasks that a process is told to distribute at a time. */
const BATCH = 100;

const KINDS = [
  { agentType: 'imager', capabilities: ['image', 'gpu'], taskType: 'resize', requires: ['image'] },
  { agentType: 'encoder', capabilities: ['video', 'gpu'], taskType: 'encode', requires: ['gpu', 'video'] },
  { agentType: 'reader', capabilities: ['text'], taskType: 'parse', requires: ['text'] },
  { agentType: 'scorer', capabilities: ['text', 'model'], taskType: 'score', requires: ['model'] },
];

const orchestration = {
  config: {
    maxAgentsPerPool: 40,
    minAgentsPerPool: 28,
    autoScaling: { scaleUpThreshold: 0.95, scaleDownThreshold: 0.05, cooldownPeriod: 3_000 },
    distributionStrategy: { name: 'least-loaded', parameters: {} },
    agentTimeoutMs: TIMEOUT_MS,
  },
};

interface Task {
  id: string;
  type: string;
  priority: number;
  requiredCapabilities: string[];
  dependencies: string[];
  maxAttempts: number;
  data: { fails?: 'always' | 'permanently'; ms?: number };
}

/** Of fifty tasks six are a chain, and six are a root, four that wait for it and one that waits for those. */
const BLOCK = 50;
function dependencies(n: number): number[] {
  const [first, at] = [n - (n % BLOCK), n % BLOCK];
  if (at >= 1 && at <= 5) return [n - 1];
  if (at >= 7 && at <= 10) return [first + 6];
  if (at === 11) return [7, 8, 9, 10].map((one) => first + one);
  return [];
}

function fails(n: number): Task['data']['fails'] {
  // The root of what waits for it, now and then.
  if (n % (BLOCK * 10) === 6) return 'always';
  if (n % BLOCK < 12) return undefined;
  if (n % 97 === 0) return 'always';
  return n % 193 === 0 ? 'permanently' : undefined;
}

const nameOf = (n: number) => `t${n}`;

function taskOf(n: number): Task {
  const kind = KINDS[n % KINDS.length];
  const failing = fails(n);
  return {
    id: nameOf(n),
    type: kind.taskType,
    priority: (n * 7) % 10,
    requiredCapabilities: kind.requires,
    dependencies: dependencies(n).map(nameOf),
    maxAttempts: failing === 'always' ? ATTEMPTS : PATIENCE,
    data: { ...(failing === undefined ? {} : { fails: failing }), ...(n % 25 === 20 ? { ms: 300 } : {}) },
  };
}

const all = Array.from({ length: COUNT }, (_, n) => n);
const ids = all.map(nameOf);

/** Whether it is never begun: what it waits for fails. */
const isDoomed = (n: number): boolean => dependencies(n).some((of) => fails(of) !== undefined || isDoomed(of));

/** One execution of a handler. */
interface Run {
  task: string;
  attempt: number;
  agent: string;
  began: bigint;
  ended?: { at: bigint; well: boolean };
}

let server: TestServer;
let folder: string;
let watcher: RedisEventBus;
const config = () => ({ redis: { url: server.url, keyPrefix: 'orch' } });

const buses = new Set<Program>();
const workers: Array<Program & { agents: string[] }> = [];
/** Agents whose processes were killed. */
const killed = new Set<string>();
/** Agents that were said to have failed. */
const givenUp = new Set<string>();
const scaled = { up: 0, down: 0, came: 0 };
const events = {
  assigned: new Map<string, Set<string>>(),
  completed: new Map<string, number>(),
  final: new Map<string, string[]>(),
  failed: 0,
};

async function openBus(): Promise<Program> {
  const bus = start('distributing.cjs', { config: { eventBus: config(), orchestration } }, { asked: true });
  await ready(bus);
  buses.add(bus);
  return bus;
}

const ready = (program: Program) =>
  until(() => program.lines.some((line: Line) => line.ready), { timeoutMs: 60_000, show: () => program.stderr() });

let agentsMade = 0;
/** A process with so many agents of the types; some are ten times as fast as others. */
async function openAgents(types: typeof KINDS): Promise<void> {
  const agents = types.map(({ agentType, capabilities }) => {
    const n = agentsMade++;
    return { agentId: `${agentType}-${n}`, agentType, capabilities, maxTasks: 2 + (n % 3), workMs: 2 + (n % 10) * 2 };
  });
  const journal = join(folder, `${workers.length}`);
  const program = start('manyAgents.cjs', { config: config(), journal, agents, reportIntervalMs: REPORT_MS }, { asked: true });
  workers.push(Object.assign(program, { agents: agents.map(({ agentId }) => agentId) }));
  await ready(program);
}

const kindsOf = (first: number) => Array.from({ length: AGENTS_A_PROCESS }, (_, n) => KINDS[(first + n) % KINDS.length]);
const living = () => workers.filter(({ agents }) => !killed.has(agents[0]));

function kill(program: Program): Promise<unknown> {
  program.kill('SIGKILL');
  return program.ended;
}

/** While it is at work. */
async function killWorker(worker: (typeof workers)[number]): Promise<void> {
  await until(async () => (await worker.ask({ busy: true })) > 0);
  for (const agent of worker.agents) killed.add(agent);
  await kill(worker);
}

/** The bus that leads: the one that read what agents tell of themselves last. */
async function leader(): Promise<Program> {
  const client = server.client();
  try {
    const keys = await client.keys('orch:*:stream:performance.metrics:*');
    const consumers: Array<{ pid: number; idle: number }> = [];
    for (const key of keys) {
      for (const fields of (await client.xinfo('CONSUMERS', key, 'ossa-orchestration').catch(() => [])) as unknown[][]) {
        const of = Object.fromEntries(Array.from({ length: fields.length / 2 }, (_, n) => [fields[2 * n], fields[2 * n + 1]]));
        const pid = /^ossa-(\d+)/.exec(of.name)?.[1];
        if (pid !== undefined) consumers.push({ pid: Number(pid), idle: of.idle });
      }
    }
    consumers.sort((a, b) => a.idle - b.idle);
    const found = [...buses].find(({ pid }) => pid === consumers[0]?.pid);
    if (found === undefined) throw new Error(`no bus leads: ${JSON.stringify(consumers)}`);
    return found;
  } finally {
    client.disconnect();
  }
}

/** What handlers wrote. */
function runs(): Map<string, Run[]> {
  const found = new Map<string, Run[]>();
  for (const file of readdirSync(folder)) {
    for (const line of readFileSync(join(folder, file), 'utf8').split('\n')) {
      const [what, task, attempt, agent, ns] = line.split(' ');
      if (ns === undefined) continue;
      const of = found.get(task) ?? [];
      found.set(task, of);
      if (what === 'B') of.push({ task, attempt: Number(attempt), agent, began: BigInt(ns) });
      else {
        const run = of.find((one) => one.attempt === Number(attempt) && one.agent === agent && one.ended === undefined);
        if (run === undefined) throw new Error(`'${line}' without a beginning`);
        run.ended = { at: BigInt(ns), well: what === 'E' };
      }
    }
  }
  return found;
}

async function watch(): Promise<void> {
  watcher = new RedisEventBus(config());
  await watcher.connect();
  const options = { group: 'watcher', startFrom: 'beginning' as const, concurrency: 500, maxUnacknowledged: 500 };
  await watcher.subscribe(
    'task.assigned',
    ({ data }) => {
      const key = `${data.taskId} ${data.attempt}`;
      const agents = events.assigned.get(key) ?? new Set();
      events.assigned.set(key, agents.add(data.agentId));
    },
    options,
  );
  await watcher.subscribe(
    'task.completed',
    ({ data }) => void events.completed.set(data.taskId, (events.completed.get(data.taskId) ?? 0) + 1),
    options,
  );
  await watcher.subscribe(
    'task.failed',
    ({ data }) => {
      if (data.final !== true) events.failed++;
      else events.final.set(data.taskId, [...(events.final.get(data.taskId) ?? []), String(data.reason)]);
    },
    options,
  );
  await watcher.subscribe('agent.failed', ({ data }) => void givenUp.add(data.agentId), options);
  await watcher.subscribe('orchestration.scale_down', () => void scaled.down++, options);
  await watcher.subscribe(
    'orchestration.scale_up',
    async ({ data }) => {
      scaled.up++;
      const kind = KINDS.find(({ agentType }) => agentType === data.agentType);
      if (kind === undefined) throw new Error(`agents of what type? ${JSON.stringify(data)}`);
      scaled.came += data.desired - data.current;
      await openAgents(Array.from({ length: data.desired - data.current }, () => kind));
    },
    options,
  );
}

/** Has all tasks distributed by whichever buses there are; what one that was killed did not answer for, another is told. */
async function distribute(tasks: Task[]): Promise<{ again: number; toldTwice: number }> {
  const batches: Task[][] = [];
  for (let at = 0; at < tasks.length; at += BATCH) batches.push(tasks.slice(at, at + BATCH));
  const told = { again: 0, toldTwice: 0 };
  const at = new Set<Program>();
  let open = batches.length;
  const lane = async (bus: Program) => {
    for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
      try {
        told.again += await bus.ask({ distribute: batch, width: BATCH / 2 });
        open--;
      } catch (error) {
        if (buses.has(bus)) throw error;
        told.toldTwice += batch.length;
        batches.push(batch);
        return;
      }
    }
    at.delete(bus);
  };
  const lanes: Array<Promise<void>> = [];
  let failed: unknown;
  await until(
    () => {
      for (const bus of buses) {
        if (at.has(bus) || batches.length === 0) continue;
        at.add(bus);
        lanes.push(lane(bus).catch((error) => void (failed ??= error)));
      }
      if (failed !== undefined) throw failed;
      return open === 0;
    },
    { timeoutMs: 60_000 + COUNT * 20, show: () => ({ open, settled: settled() }) },
  );
  await Promise.all(lanes);
  return told;
}

const gone = ({ status }: { status: string }) => status === 'failed' || status === 'terminated';

const settled = () => events.completed.size + events.final.size;
/** Fails, and says how things stand, when no task ended for a while. */
async function untilSettled(count: number): Promise<void> {
  for (let before = -1; settled() < count; ) {
    before = settled();
    try {
      await until(() => settled() > before || settled() >= count, { timeoutMs: STALL_MS });
    } catch {
      throw new Error(`nothing ends any more: ${settled()} of ${count} have; ${inspect(await standing(), { depth: 6, breakLength: 160 })}`);
    }
  }
}

/** How things stand, by what each bus sees. */
async function standing(): Promise<object> {
  const tally = (values: string[]) => {
    const counts: Record<string, number> = {};
    for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
    return counts;
  };
  const views = await Promise.all([...buses].map((one) => one.ask({ look: true })));
  const stderr = [...buses, ...workers].map((program) => program.stderr().slice(-500)).filter((text) => text !== '');
  const [bus] = [...buses];
  const tasks = Object.values(await bus.ask({ tasks: ids })).map((task: any) => task?.status ?? 'unknown');
  return {
    tasks: tally(tasks),
    views: views.map(({ stats, agents }) => ({ stats, agents: tally(agents.map(({ status, circuit }: any) => `${status} ${circuit}`)) })),
    agents: views[0].agents.slice(20, 22),
    scaled,
    givenUp: givenUp.size,
    stderr,
  };
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ossa-test-agents-'));
  server = await TestServer.start();
  await watch();
  await Promise.all([openBus(), openBus(), openBus()]);
  for (let n = 0; n < PROCESSES; n++) await openAgents(kindsOf(n * AGENTS_A_PROCESS));
}, 120_000);

afterAll(async () => {
  await watcher?.disconnect();
  await endAll();
  await server?.stop();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

let views: Record<string, any>;
let found: Map<string, Run[]>;

test('all tasks end while agents and who leads are killed', async () => {
  const began = Date.now();
  const distributing = distribute(all.map(taskOf)).then((told) => ({ ...told, ms: Date.now() - began }));
  distributing.catch(() => undefined);

  await untilSettled(COUNT * 0.15);
  await killWorker(workers[0]);
  await untilSettled(COUNT * 0.3);
  const leading = await leader();
  buses.delete(leading);
  await kill(leading);
  const killedAt = { settled: settled(), at: Date.now() };
  await openBus();
  await untilSettled(killedAt.settled + COUNT * 0.1);
  const ledAgain = Date.now() - killedAt.at;
  await untilSettled(COUNT * 0.6);
  await Promise.all([killWorker(workers[1]), killWorker(workers[2])]);
  const told = await distributing;
  await untilSettled(COUNT);
  const took = (Date.now() - began) / 1_000;

  const [bus] = [...buses];
  views = await bus.ask({ tasks: ids });
  found = runs();
  console.log(
    'tasks %d: %s s, %d a second; distributed in %s s, %d calls repeated, %d tasks given twice; a tenth ended %d ms after the leader was ' +
      'killed; scale_up %d (%d agents came), scale_down %d; agents killed %d, said to have failed %d',
    ...[COUNT, took.toFixed(1), Math.round(COUNT / took), (told.ms / 1_000).toFixed(1), told.again, told.toldTwice, ledAgain],
    ...[scaled.up, scaled.came, scaled.down, killed.size, givenUp.size],
  );
  // Those that were killed were missed.
  expect([...killed].filter((agent) => !givenUp.has(agent))).toEqual([]);
  expect(scaled.up).toBeGreaterThan(0);
});

test('each is completed, or a dead letter with its reason, and no two', async () => {
  const expected = (n: number) => (isDoomed(n) || fails(n) !== undefined ? 'failed' : 'completed');
  expect(all.filter((n) => views[nameOf(n)]?.status !== expected(n)).map((n) => views[nameOf(n)] ?? nameOf(n))).toEqual([]);

  const [bus] = [...buses];
  const failing = all.filter((n) => expected(n) === 'failed');
  type Letter = { reason: string; attempts: number; data: any };
  const letters = (await until(async () => {
    const list: Letter[] = await bus.ask({ letters: 'task.failed', group: 'ossa-orchestration' });
    return list.length >= failing.length && list;
  })) as Letter[];
  const reasonOf = (n: number) => (isDoomed(n) || fails(n) === 'permanently' ? 'permanent' : 'max-attempts');
  const errorOf = (n: number) => {
    if (!isDoomed(n)) return `${nameOf(n)} fails`;
    return `'${dependencies(n).map(nameOf)[0]}', on which it depends, failed`;
  };
  const byTask = new Map(letters.map((letter) => [letter.data.taskId, letter]));
  expect(letters.map(({ data }) => data.taskId).sort()).toEqual(failing.map(nameOf).sort());
  expect(
    failing.filter((n) => {
      const letter = byTask.get(nameOf(n));
      const error = String(letter?.data.error);
      // Of several that it waits for the first to fail is named; an attempt of an agent that was gone is one, too.
      const wasGone = () => found.get(nameOf(n))?.some(({ agent }) => killed.has(agent) || givenUp.has(agent)) === true;
      const isRight =
        isDoomed(n) && dependencies(n).length > 1
          ? /^'t\d+', on which it depends, failed$/.test(error)
          : error.includes(errorOf(n)) || (fails(n) === 'always' && error.startsWith('its agent was silent') && wasGone());
      return letter?.reason !== reasonOf(n) || !isRight;
    }),
  ).toEqual([]);
  expect([...events.final].filter(([, reasons]) => reasons.length > 1)).toEqual([]);
  expect([...events.final.keys()].sort()).toEqual(failing.map(nameOf).sort());
  // What was completed was said to be by one agent, unless that was given up too early and said so, too.
  const twice = [...events.completed].filter(([, count]) => count > 1).map(([task]) => task);
  console.log(
    'dead letters %d, of them never begun %d; completed more than once by agents: %d',
    letters.length,
    failing.filter(isDoomed).length,
    twice.length,
  );
  expect(twice.filter((task) => !found.get(task)?.some(({ agent }) => givenUp.has(agent)))).toEqual([]);
});

test('none was given to two agents, and it was done again only where its agent failed it or was gone', () => {
  expect([...events.assigned].filter(([, agents]) => agents.size > 1)).toEqual([]);
  const again = { failed: 0, killed: 0, givenUp: 0 };
  const unexplained: unknown[] = [];
  for (const [task, list] of found) {
    const attempts = list.map(({ attempt }) => attempt);
    if (new Set(attempts).size < attempts.length) unexplained.push(list);
    list.sort((a, b) => a.attempt - b.attempt);
    for (const run of list.slice(0, -1)) {
      if (run.ended?.well === false) again.failed++;
      else if (killed.has(run.agent)) again.killed++;
      else if (givenUp.has(run.agent)) again.givenUp++;
      else unexplained.push(list);
    }
    const n = Number(task.slice(1));
    if (fails(n) === 'always' && !list.some(({ agent }) => killed.has(agent) || givenUp.has(agent)) && list.length !== ATTEMPTS)
      unexplained.push(list);
  }
  console.log(
    'handlers began %d times; again after: %j',
    [...found.values()].reduce((sum, { length }) => sum + length, 0),
    again,
  );
  expect(unexplained.map((one) => inspect(one))).toEqual([]);
  expect(again.killed).toBeGreaterThan(0);
});

test('none began before what it depends on was done, and none whose dependency failed', () => {
  let looked = 0;
  const wrong = all.filter((n) => {
    const list = found.get(nameOf(n)) ?? [];
    if (isDoomed(n)) return list.length > 0;
    return dependencies(n).some((of) => {
      looked++;
      const done = found.get(nameOf(of))?.find(({ ended, agent }) => ended?.well && agent === views[nameOf(of)].agentId);
      return done?.ended === undefined || list.some(({ began }) => began < (done.ended as { at: bigint }).at);
    });
  });
  console.log('dependencies looked at: %d', looked);
  expect(looked).toBeGreaterThan(COUNT * 0.15);
  expect(wrong).toEqual([]);
});

test('the figures are those that were counted', async () => {
  const look = async () => {
    const seen = await Promise.all([...buses].map((bus) => bus.ask({ look: true })));
    const isAtRest = ({ stats, agents }: any) =>
      stats.queueDepth === 0 &&
      agents.every(({ runningTasks }: any) => runningTasks.length === 0) &&
      stats.totalAgents === agents.filter((agent: any) => !gone(agent)).length;
    return seen.every(isAtRest) && seen;
  };
  const seen = (await until(look, { everyMs: 100, show: () => [...buses].map((bus) => bus.stderr().slice(-300)) })) as any[];

  // By whom each was done: of several who did it the one that was told to.
  const counted = new Map<string, number>();
  for (const n of all) {
    const { status, agentId } = views[nameOf(n)];
    if (status !== 'completed') continue;
    const well = (found.get(nameOf(n)) ?? []).filter(({ ended }) => ended?.well).map(({ agent }) => agent);
    expect(well).toContain(agentId);
    counted.set(agentId, (counted.get(agentId) ?? 0) + 1);
  }
  const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0);
  const differing = seen.map(({ agents }) =>
    agents.filter((agent: any) => agent.performance.tasksCompleted !== (counted.get(agent.id) ?? 0)),
  );
  console.log(
    'completed, counted %d, by the agents’ figures %s; agents %s; other figures than counted: %s',
    sum(counted.values()),
    seen.map(({ agents }) => sum(agents.map(({ performance }: any) => performance.tasksCompleted))).join(', '),
    seen.map(({ stats, pools }) => `${stats.totalAgents} in ${pools.length} pools`).join(', '),
    JSON.stringify(
      differing.map((list) => list.map((agent: any) => [agent.id, agent.status, agent.performance.tasksCompleted, counted.get(agent.id)])),
    ),
  );
  expect(differing.flat().filter((agent) => !gone(agent))).toEqual([]);
  for (const { agents } of seen) {
    // No agent that was killed is counted in.
    expect(agents.filter((agent: any) => killed.has(agent.id) && !gone(agent))).toEqual([]);
  }
});

test('the utilisation is the share of places whose handlers are at work', async () => {
  const SLOW_MS = 4_000;
  const [bus] = [...buses];
  const { agents } = await bus.ask({ look: true });
  const alive = agents.filter(({ status }: any) => status === 'idle' || status === 'busy');
  const places = alive.reduce((sum: number, { maxTasks }: any) => sum + maxTasks, 0);
  const count = Math.round(places * 0.4);
  const slow: Task[] = Array.from({ length: count }, (_, n) => ({ ...taskOf(0), id: `slow${n}`, data: { ms: SLOW_MS } })).map((task, n) => {
    const kind = KINDS[n % KINDS.length];
    return { ...task, type: 'slow', requiredCapabilities: kind.requires };
  });
  await bus.ask({ distribute: slow, width: count });
  const sample = async () => {
    const busy = (await Promise.all(living().map((worker) => worker.ask({ busy: true })))).reduce((sum, one) => sum + one, 0);
    const views = await Promise.all([...buses].map((one) => one.ask({ look: true })));
    return { busy, said: views.map(({ stats }) => stats.averageUtilization as number) };
  };
  let seen: Awaited<ReturnType<typeof sample>> | undefined;
  const { busy, said } = await until(
    async () => {
      const one = await sample();
      seen = one;
      return one.busy === count && one.said.every((percent) => Math.abs(percent - (one.busy / places) * 100) < 5) ? one : undefined;
    },
    { timeoutMs: SLOW_MS, everyMs: 50, show: () => ({ seen, count, places }) },
  ).then((found) => found as NonNullable<typeof found>);
  console.log('places %d, handlers at work %d: %s %; said: %s %', places, busy, ((busy / places) * 100).toFixed(1), said.join(', '));
  await until(async () => (await bus.ask({ look: true })).stats.averageUtilization === 0, { everyMs: 50 });
});

/** createAgent() with the engine: agents that do the tasks of a bus. */
import { type Agent, type AgentContext, type AgentOptions, createAgent, type EventBus, type OSSAError } from '@bluefly/ossa';
import { endAll, start } from './support/children';
import { agentIs, task, taskIs, useOrchestras, viewOf } from './support/orchestras';
import { TestServer } from './support/server';
import { type Gate, gate, until, within } from './support/wait';
import { refusal, storesWithCluster } from './support/world';

const agents = new Set<Agent>();

afterEach(async () => {
  await Promise.all([...agents].map((agent) => agent.stop()));
  agents.clear();
});

/** An agent of this test. */
async function made(
  bus: EventBus<any>,
  agentId: string,
  handler: AgentOptions['handler'],
  over: Partial<AgentOptions> = {},
): Promise<Agent> {
  const agent = await createAgent(bus, { agentId, agentType: 'worker', capabilities: ['work'], reportIntervalMs: 100, handler, ...over });
  agents.add(agent);
  return agent;
}

/** Resolves when the work is to be dropped; with why. */
const dropped = ({ signal }: AgentContext) =>
  new Promise<OSSAError>((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener('abort', () => resolve(signal.reason));
  });

/** A task's events of an agent, in order. */
function told(agent: Agent): string[] {
  const seen: string[] = [];
  for (const event of ['task:started', 'task:completed', 'task:failed'] as const) {
    agent.on(event, ({ taskId, attempt }) => void seen.push(`${event} ${taskId} ${attempt}`));
  }
  return seen;
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const orchestras = useOrchestras(kind);

  test('an agent of ten lines does tasks', async () => {
    const bus = await orchestras.bus();
    await using agent = await createAgent(bus, {
      agentId: 'adder-1',
      agentType: 'adder',
      capabilities: ['add'],
      handler: ({ data }) => data.a + data.b,
    });
    await bus.distributeTask({ id: 'sum', type: 'add', priority: 0, requiredCapabilities: ['add'], data: { a: 2, b: 3 } });
    expect(await taskIs(bus, 'sum', 'completed')).toMatchObject({
      result: 5,
      agentId: 'adder-1',
      attempts: 1,
      startedAt: expect.any(Date),
    });
    await until(() => agent.stats.completed === 1);
    expect(agent).toMatchObject({
      id: 'adder-1',
      type: 'adder',
      status: 'running',
      running: [],
      stats: { completed: 1, failed: 0, cancelled: 0 },
    });
  });

  test('a handler is given the task, and its agent tells what becomes of it', async () => {
    const bus = await orchestras.bus();
    const [held, got] = [gate(), [] as any[]];
    const handler = async (given: any, { attempt, signal }: AgentContext) => {
      got.push({ given, attempt, aborted: signal.aborted });
      await held.opened;
      if (attempt === 1) throw new Error('not yet');
      return { text: 'ü', n: attempt };
    };
    const agent = await made(bus, 'a', handler);
    const seen = told(agent);
    const over = { priority: 3, data: { n: 1 }, estimatedDuration: 20, timeoutMs: 60_000 };
    expect(await bus.distributeTask(task('t', over))).toBe('a');
    await taskIs(bus, 't', 'running', 'a');
    expect(agent.running).toEqual(['t']);
    await agentIs(bus, 'a', 'busy');
    held.open();
    expect(await taskIs(bus, 't', 'completed')).toMatchObject({ result: { text: 'ü', n: 2 }, attempts: 2 });
    await until(() => seen.length === 4, { show: () => seen });
    expect(seen).toEqual(['task:started t 1', 'task:failed t 1', 'task:started t 2', 'task:completed t 2']);
    const given = { id: 't', type: 'job', requiredCapabilities: ['work'], dependencies: [], ...over };
    expect(got).toMatchObject([
      { given: { ...given, attempt: 1 }, attempt: 1, aborted: false },
      { given: { ...given, attempt: 2 }, attempt: 2, aborted: false },
    ]);
    expect(agent.stats).toEqual({ completed: 1, failed: 1, cancelled: 0 });
  });

  test('what a handler throws for good is not tried again', async () => {
    const bus = await orchestras.bus();
    let calls = 0;
    await made(bus, 'a', () => {
      calls++;
      throw Object.assign(new Error('no such file'), { permanent: true });
    });
    await bus.distributeTask(task('t', { maxAttempts: 5 }));
    expect(await taskIs(bus, 't', 'failed')).toMatchObject({ attempts: 1, error: expect.stringContaining('no such file') });
    await until(async () => (await bus.deadLetters.count({ eventType: 'task.failed', group: 'ossa-orchestration' })) === 1);
    expect(calls).toBe(1);
  });

  test('a cancelled task aborts its signal, and what its handler returns is not used', async () => {
    const bus = await orchestras.bus();
    const reasons: OSSAError[] = [];
    const agent = await made(bus, 'a', async ({ id }, context) => {
      if (id === 't') reasons.push(await dropped(context));
      return id;
    });
    await bus.distributeTask(task('t'));
    await taskIs(bus, 't', 'running');
    expect(await bus.cancelTask('t', 'not wanted')).toBe(true);
    await until(() => reasons.length === 1);
    expect(reasons[0]).toMatchObject({ name: 'OSSAError', message: expect.stringContaining('not wanted') });
    await bus.distributeTask(task('mark'));
    await taskIs(bus, 'mark', 'completed');
    expect(await bus.getTask('t')).toMatchObject({ status: 'cancelled', error: 'not wanted' });
    expect(agent.stats).toEqual({ completed: 1, failed: 0, cancelled: 1 });
  });

  test('a task that takes too long fails, and is tried again', async () => {
    const bus = await orchestras.bus();
    const reasons: OSSAError[] = [];
    const handler = async (_: unknown, context: AgentContext) => void reasons.push(await dropped(context));
    await made(bus, 'a', handler, { taskTimeoutMs: 150 });
    await bus.distributeTask(task('t', { maxAttempts: 2 }));
    expect(await taskIs(bus, 't', 'failed')).toMatchObject({ attempts: 2, error: expect.stringContaining('timed out after 150 ms') });
    await bus.distributeTask(task('u', { maxAttempts: 1, timeoutMs: 50 }));
    expect(await taskIs(bus, 'u', 'failed')).toMatchObject({ attempts: 1, error: expect.stringContaining('timed out after 50 ms') });
    expect(reasons.map(({ code }) => code)).toEqual(['ERR_HANDLER_TIMEOUT', 'ERR_HANDLER_TIMEOUT', 'ERR_HANDLER_TIMEOUT']);
  });

  test('an agent that drains ends what it began, gives the rest to others, and is gone', async () => {
    const bus = await orchestras.bus();
    const [held, ran] = [gate(), new Map<string, string[]>()];
    const does = (agent: string) => async (given: { id: string }) => {
      ran.set(given.id, [...(ran.get(given.id) ?? []), agent]);
      if (agent === 'a') await held.opened;
      return agent;
    };
    const a = await made(bus, 'a', does('a'), { maxTasks: 20 });
    let left: string | undefined;
    a.on('drained', ({ reason }) => {
      left = reason;
    });
    const early = Array.from({ length: 5 }, (_, n) => `early-${n}`);
    for (const id of early) await bus.distributeTask(task(id, { maxAttempts: 1 }));
    await until(() => a.running.length === 5);
    // Some of these are on their way to it when it begins to drain.
    const late = Array.from({ length: 10 }, (_, n) => `late-${n}`);
    const given = await Promise.all(late.map((id) => bus.distributeTask(task(id, { maxAttempts: 1 }))));
    expect(new Set(given)).toEqual(new Set(['a']));
    const begun = new Set(a.running);
    const drained = a.drain({ reason: 'deployed anew' });
    expect(a.status).toBe('draining');
    await agentIs(bus, 'a', 'draining');
    await made(bus, 'b', does('b'), { maxTasks: 20 });
    for (const id of late.filter((name) => !begun.has(name))) await taskIs(bus, id, 'completed', 'b');
    expect(left).toBeUndefined();
    held.open();
    await within(10_000, 'drain()', drained);
    expect([left, a.status]).toEqual(['deployed anew', 'stopped']);
    for (const id of [...early, ...late]) expect(await taskIs(bus, id, 'completed')).toMatchObject({ attempts: 1 });
    await agentIs(bus, 'a', 'terminated');
    for (const id of [...early, ...late]) expect(ran.get(id)).toEqual([begun.has(id) ? 'a' : 'b']);
  });

  test('a task that does not end while its agent drains is done by another', async () => {
    const bus = await orchestras.bus();
    const a = await made(bus, 'a', async (_, context) => void (await dropped(context)));
    await bus.distributeTask(task('t'));
    await taskIs(bus, 't', 'running');
    await made(bus, 'b', () => 'by b');
    await within(10_000, 'drain()', a.drain({ timeoutMs: 50 }));
    expect(await taskIs(bus, 't', 'completed')).toMatchObject({ agentId: 'b', result: 'by b', attempts: 2 });
    await agentIs(bus, 'a', 'terminated');
  });

  test('an agent drains when its signal is aborted', async () => {
    const bus = await orchestras.bus();
    const controller = new AbortController();
    const agent = await made(bus, 'a', () => 1, { signal: controller.signal });
    controller.abort();
    await agentIs(bus, 'a', 'terminated');
    await until(() => agent.status === 'stopped');
  });

  test('one that is let go by scaling drains', async () => {
    const bus = await orchestras.bus({ minAgentsPerPool: 1, autoScaling: { cooldownPeriod: 500 } });
    const down = await orchestras.said(bus, 'orchestration.scale_down');
    const both = [await made(bus, 'a', () => 1), await made(bus, 'b', () => 1)];
    const left: string[] = [];
    for (const agent of both) agent.on('drained', ({ reason }) => void left.push(`${agent.id} ${reason}`));
    await until(() => left.length > 0);
    const gone = down[0].data.agentIds[0];
    expect(left).toEqual([`${gone} scale-down`]);
    await agentIs(bus, gone, 'terminated');
    expect(both.map(({ status }) => status).sort()).toEqual(['running', 'stopped']);
    const [stays] = both.filter(({ id }) => id !== gone);
    expect(await bus.distributeTask(task('t'))).toBe(stays.id);
  });

  test('two agents of one bus are two', async () => {
    const bus = await orchestras.bus();
    const gates: Gate[] = [gate(), gate()];
    const both: Agent[] = [];
    for (const [n, id] of ['a', 'b'].entries()) {
      both.push(await made(bus, id, async () => void (await gates[n].opened), { capabilities: ['work', id], maxTasks: 2 }));
    }
    const error = await refusal('ERR_INVALID_ARGUMENT', () => made(bus, 'a', () => 1));
    expect(error.details).toMatchObject({ argument: 'agentId' });
    for (const id of ['a', 'b']) for (const n of [1, 2]) await bus.distributeTask(task(`${id}${n}`, { requiredCapabilities: [id] }));
    await until(() => both.every(({ running }) => running.length === 2));
    expect(both.map(({ running }) => [...running].sort())).toEqual([
      ['a1', 'a2'],
      ['b1', 'b2'],
    ]);
    await both[0].drain({ timeoutMs: 0 });
    expect(both[1]).toMatchObject({ status: 'running', running: expect.arrayContaining(['b1', 'b2']) });
    gates[1].open();
    for (const id of ['b1', 'b2']) await taskIs(bus, id, 'completed', 'b');
  });

  test.each(['a RedisEventBus', 'an OSSAEventBus without orchestration'])('agents on %s work for those that distribute', async (what) => {
    const bus = await orchestras.bus();
    const apart = what.includes('Redis') ? await orchestras.plain() : await orchestras.bus({}, { orchestration: { enabled: false } });
    const agent = await made(apart, 'a', ({ data }) => data * 2);
    await until(() => viewOf(bus, 'a'));
    expect(await bus.distributeTask(task('t', { data: 21 }))).toBe('a');
    expect(await taskIs(bus, 't', 'completed')).toMatchObject({ result: 42 });
    await until(() => agent.stats.completed === 1);
  });

  test('when its bus is closed, others do what it had', async () => {
    const bus = await orchestras.bus();
    const apart = await orchestras.plain();
    const a = await made(apart, 'a', async (_, context) => void (await dropped(context)));
    expect(await bus.distributeTask(task('t'))).toBe('a');
    await taskIs(bus, 't', 'running');
    await made(bus, 'b', () => 'by b');
    await apart.disconnect();
    expect(a.status).toBe('stopped');
    expect(await taskIs(bus, 't', 'completed')).toMatchObject({ agentId: 'b', result: 'by b' });
    await agentIs(bus, 'a', 'terminated');
  });
});

describe('on a server of its own', () => {
  const orchestras = useOrchestras('redis');
  let server: TestServer;

  beforeEach(async () => {
    server = await TestServer.start();
  });
  afterEach(async () => {
    await endAll();
    await orchestras.end();
    await server.stop();
  });

  test('agents and tasks are there again after the server was emptied', async () => {
    const redis = { url: server.url };
    const bus = await orchestras.bus({}, { eventBus: { redis } });
    const apart = await orchestras.plain({ redis });
    const held = gate();
    const handler = async ({ id, data }: { id: string; data: any }) => {
      await held.opened;
      return { id, data };
    };
    const both = [await made(apart, 'a', handler), await made(bus, 'b', handler)];
    const ids = Array.from({ length: 5 }, (_, n) => `t${n}`);
    for (const id of ids) await bus.distributeTask(task(id, { data: `of ${id}` }));
    await until(() => both.every(({ running }) => running.length === 1));
    await server.call('FLUSHALL');
    await until(() => ['a', 'b'].every((id) => viewOf(bus, id)?.status === 'busy'), { show: () => bus.getAgents() });
    // One that is new.
    await until(async () => (await bus.distributeTask(task('new', { data: 'of new' })).catch(() => false)) !== false);
    held.open();
    for (const id of [...ids, 'new']) expect(await taskIs(bus, id, 'completed')).toMatchObject({ result: { id, data: `of ${id}` } });
  }, 60_000);

  test('agents come back where another process leads that knows nothing', async () => {
    const redis = { url: server.url };
    const first = await orchestras.bus({}, { eventBus: { redis } });
    const apart = await orchestras.plain({ redis });
    const agent = await made(apart, 'a', () => 'done');
    await first.distributeTask(task('t'));
    await taskIs(first, 't', 'completed');
    await first.shutdown();
    await server.call('FLUSHALL');
    const next = await orchestras.bus({}, { eventBus: { redis } });
    await agentIs(next, 'a', 'idle');
    expect(await next.distributeTask(task('t'))).toBe('a');
    await taskIs(next, 't', 'completed');
    expect(agent.status).toBe('running');
  }, 60_000);

  test('what a process had that was killed is done by others', async () => {
    const config = { agentTimeoutMs: 1000 };
    const bus = await orchestras.bus(config, { eventBus: { redis: { url: server.url } } });
    const options = (agentId: string) => ({ agentId, agentType: 'worker', capabilities: ['work'], maxTasks: 3, reportIntervalMs: 100 });
    const redis = { url: server.url, keyPrefix: orchestras.world.prefix };
    const doomed = start('agents.cjs', { redis, agents: ['a', 'b'].map(options), work: 'hold' });
    await until(() => ['a', 'b'].every((id) => viewOf(bus, id)), { show: () => doomed.stderr() });
    const ids = Array.from({ length: 10 }, (_, n) => `t${n}`);
    for (const id of ids) await bus.distributeTask(task(id));
    await until(() => doomed.lines.filter(({ begun }) => begun).length === 6, { show: () => doomed.lines });
    doomed.kill('SIGKILL');
    await doomed.ended;
    start('agents.cjs', { redis, agents: [options('c')], work: 'succeed' });
    const done = new Set(doomed.lines.map(({ begun }) => begun));
    for (const id of ids) {
      expect(await taskIs(bus, id, 'completed')).toMatchObject({ agentId: 'c', result: 'c', attempts: done.has(id) ? 2 : 1 });
    }
    for (const id of ['a', 'b']) await agentIs(bus, id, 'failed');
  }, 60_000);
});

'use strict';
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { connected, createAgent, createOSSAEventBus, fake, OSSAError, RedisEventBus, sleep, turns, until } = require('./bus');

const away = { code: 'ERR_CONNECTION', message: 'Redis is away', retryable: true };
const open = [];
let logged;
beforeEach(() => {
  logged = jest.spyOn(console, 'error').mockImplementation(() => {});
});
afterEach(async () => {
  for (const bus of open.splice(0)) await bus.disconnect();
  logged.mockRestore();
  expect(process.listenerCount('SIGTERM')).toBe(0);
});

async function bussed() {
  const both = await connected();
  open.push(both.bus);
  return both;
}
const options = (over = {}) => ({ agentId: 'a', agentType: 'worker', capabilities: ['c'], handler: () => 'done', ...over });
/** An agent, its bus and the fake below, after its first moments. */
async function made(over) {
  const { bus, native } = await bussed();
  const agent = await createAgent(bus, options(over));
  await turns();
  return { agent, bus, native };
}
const assignment = (taskId, over = {}) => ({
  taskId,
  attempt: 1,
  taskType: 'resize',
  priority: 5,
  estimatedDuration: 10,
  dependencies: [],
  requiredCapabilities: ['c'],
  data: { n: 1 },
  ...over,
});
const assign = (taskId, over) => ({ agent: 'a', assign: assignment(taskId, over) });
const cancel = (taskId, attempt = 1) => ({ agent: 'a', cancel: { taskId, attempt, reason: 'not needed' } });
/** A handler whose tasks end when they are told to. */
function manual() {
  const tasks = new Map();
  const began = [];
  const handler = (task, context) => {
    began.push(task.id);
    return new Promise((resolve, reject) => tasks.set(task.id, { resolve, reject, task, ...context }));
  };
  return { handler, tasks, began };
}
/** task.* events so far: [what, task, attempt, more] */
const said = (native) =>
  native.records
    .filter(([type]) => type.startsWith('task.'))
    .map(([type, , data]) => {
      const { taskId, attempt, agentId, timestamp, duration: _, ...more } = JSON.parse(data);
      expect([agentId, new Date(timestamp).toISOString()]).toEqual(['a', timestamp]);
      return [type.slice(5), taskId, attempt, more];
    });
const begun = (taskId, attempt = 1) => ['started', taskId, attempt, {}];
const completed = (taskId, result = 'done', attempt = 1) => ['completed', taskId, attempt, { result }];
const failed = (taskId, error, more = {}) => ['failed', taskId, 1, { error, ...more }];

describe('createAgent', () => {
  test('makes the agent known, with its inbox, and resolves when that is stored', async () => {
    const { agent, native } = await made({ maxTasks: 2, taskTimeoutMs: 500, capabilities: ['x', 'y', 'x'] });
    expect(native.calls.slice(1)).toEqual([['agents.listen', {}]]);
    expect(native.of('agent.spawned')).toEqual([
      {
        agentId: 'a',
        agentType: 'worker',
        capabilities: ['x', 'y'],
        configuration: { maxTasks: 2, timeout: 500, inbox: 'inbox-1' },
      },
    ]);
    expect(native.of('agent.started')).toEqual([{ agentId: 'a', agentType: 'worker', timestamp: expect.stringMatching(/Z$/) }]);
    expect(agent).toMatchObject({
      id: 'a',
      type: 'worker',
      status: 'running',
      running: [],
      stats: { completed: 0, failed: 0, cancelled: 0 },
    });
  });

  test('agents of one bus share its inbox; ids are theirs alone, until they stop', async () => {
    const { agent, bus, native } = await made();
    const other = await createAgent(bus, options({ agentId: 'b' }));
    expect(native.calls.filter(([method]) => method === 'agents.listen')).toHaveLength(1);
    const taken = { code: 'ERR_INVALID_ARGUMENT', details: { argument: 'agentId' } };
    await expect(createAgent(bus, options())).rejects.toMatchObject(taken);
    await agent.stop();
    await createAgent(bus, options());
    expect(other.status).toBe('running');
  });

  test('works on an OSSAEventBus, and on the bus inside it', async () => {
    const bus = await createOSSAEventBus(null, { orchestration: { enabled: false } });
    await createAgent(bus, options());
    await createAgent(bus.getEventBus(), options({ agentId: 'b' }));
    expect(
      fake.buses
        .at(-1)
        .of('agent.spawned')
        .map(({ agentId }) => agentId),
    ).toEqual(['a', 'b']);
    await bus.shutdown();
  });

  test.each([
    ['agentId', [undefined, '', 'a b', 5, 'x'.repeat(129)]],
    ['agentType', [undefined, null, 'ä']],
    ['capabilities', [undefined, 'c', {}, Array.from({ length: 101 }, (_, i) => `c${i}`)]],
    ['capabilities[0]', [[5], [''], new Array(1)]],
    ['capabilities[1]', [['c', 'a b']]],
    ['maxTasks', [0, 1.5, '1', 10_001, NaN, null]],
    ['handler', [undefined, {}, 'handler']],
    ['taskTimeoutMs', [0, -1, '5', Infinity]],
    ['reportIntervalMs', [99, 3_600_001, true]],
    ['drainTimeoutMs', [-1, 86_400_001, NaN]],
    ['drainOnSigterm', [1, null, 'no']],
    ['signal', [{}, new AbortController()]],
    ['maxTask', [1]],
    ['toString', [1]],
  ])('refuses a wrong %s, by its name', async (argument, values) => {
    const { bus, native } = await bussed();
    for (const value of values) {
      const wrong = createAgent(bus, { ...options(), [argument.replace(/\[.*/, '')]: value });
      await expect(wrong).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
    }
    expect(native.records).toEqual([]);
  });

  test.each([[undefined], [null], [5], [[]]])('%p are no options', async (value) => {
    const { bus } = await bussed();
    await expect(createAgent(bus, value)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument: 'options' } });
  });

  test('wants a connected bus of this package', async () => {
    for (const bus of [undefined, {}, { publish() {} }, RedisEventBus]) {
      await expect(createAgent(bus, options())).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument: 'bus' } });
    }
    const bus = new RedisEventBus();
    await expect(createAgent(bus, options())).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED' });
    await bus.disconnect();
    await expect(createAgent(bus, options())).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('leaves nothing behind when it cannot be made, and may be tried again', async () => {
    const { bus, native } = await bussed();
    native.refuse = (type) => (type === 'agent.started' ? away : undefined);
    await expect(createAgent(bus, options())).rejects.toMatchObject(away);
    native.answers['agents.listen'] = undefined;
    native.refuse = () => undefined;
    await createAgent(bus, options());
    const other = await bussed();
    other.native.answers['agents.listen'] = () => Promise.reject(away);
    await expect(createAgent(other.bus, options())).rejects.toMatchObject(away);
    other.native.answers['agents.listen'] = { inbox: 'i' };
    await createAgent(other.bus, options());
  });

  test('a bus that is closed meanwhile is ERR_CLOSED', async () => {
    for (const step of ['agents.listen', 'agent.spawned']) {
      const { bus, native } = await connected();
      native.auto = step !== 'agent.spawned';
      let answer;
      if (step === 'agents.listen') native.answers[step] = () => new Promise((resolve) => (answer = resolve));
      const making = createAgent(bus, options());
      await until(() => (step === 'agents.listen' ? answer !== undefined : native.of(step).length > 0));
      const closing = bus.disconnect();
      answer?.({ inbox: 'i' });
      await expect(making).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await closing;
    }
  });

  test('a bus that is being closed takes none, though its handlers may still publish', async () => {
    const { bus, native } = await connected();
    let answer;
    native.answers.disconnect = () => new Promise((resolve) => (answer = resolve));
    await bus.subscribe('x', () => new Promise(() => {}));
    native.deliver(1, { type: 'x' });
    const closing = bus.disconnect();
    await expect(createAgent(bus, options())).rejects.toMatchObject({ code: 'ERR_CLOSED', message: expect.stringMatching(/^Agent 'a'/) });
    expect(native.of('agent.spawned')).toEqual([]);
    answer({});
    await closing;
  });

  test('with a signal that is aborted it is not made; aborting it later drains it', async () => {
    const { bus, native } = await bussed();
    await expect(createAgent(bus, options({ signal: AbortSignal.abort('why') }))).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      cause: 'why',
    });
    expect(native.records).toEqual([]);
    const controller = new AbortController();
    const agent = await createAgent(bus, options({ signal: controller.signal }));
    controller.abort();
    expect(agent.status).toBe('draining');
    await until(() => agent.status === 'stopped');
    expect(native.of('agent.terminated')).toMatchObject([{ agentId: 'a', reason: 'its signal was aborted' }]);
  });

  test('a signal aborted while it is being made drains it', async () => {
    const { bus, native } = await bussed();
    const controller = new AbortController();
    native.refuse = (type) => void (type === 'agent.started' && controller.abort());
    const agent = await createAgent(bus, options({ signal: controller.signal }));
    await until(() => agent.status === 'stopped');
  });
});

describe('tasks', () => {
  test('are given to the handler, and what becomes of them is said', async () => {
    const got = [];
    const { agent, native } = await made({ handler: (task, context) => got.push([task, context]) && { size: 3 } });
    const events = [];
    for (const name of ['task:started', 'task:completed', 'task:failed']) agent.on(name, (event) => events.push([name, event]));
    native.post(assign('t1', { dependencies: ['t0'], timeoutMs: 5000, correlationId: 'order-7' }));
    await until(() => agent.stats.completed === 1);
    expect(got).toEqual([
      [
        {
          id: 't1',
          type: 'resize',
          priority: 5,
          data: { n: 1 },
          attempt: 1,
          dependencies: ['t0'],
          requiredCapabilities: ['c'],
          estimatedDuration: 10,
          timeoutMs: 5000,
          correlationId: 'order-7',
        },
        { attempt: 1, signal: expect.any(AbortSignal) },
      ],
    ]);
    expect(said(native)).toEqual([begun('t1'), completed('t1', { size: 3 })]);
    expect(native.of('task.completed')[0].duration).toEqual(expect.any(Number));
    expect(events).toEqual([
      ['task:started', { taskId: 't1', attempt: 1 }],
      ['task:completed', { taskId: 't1', attempt: 1, result: { size: 3 }, duration: expect.any(Number) }],
    ]);
    const given = native.records.filter(([type]) => type.startsWith('task.')).map(([, text]) => JSON.parse(text));
    expect(given.map(({ correlationId }) => correlationId)).toEqual(['order-7', 'order-7']);
    expect(new Set(given.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(2);
  });

  test('what is missing, or null, is not there', async () => {
    const got = [];
    const { agent, native } = await made({ handler: (task) => void got.push(task) });
    const nothing = { estimatedDuration: null, timeoutMs: null, correlationId: null, data: undefined };
    native.post(assign('t1', { ...nothing, dependencies: undefined, requiredCapabilities: undefined }));
    await until(() => agent.stats.completed === 1);
    expect(got).toEqual([{ id: 't1', type: 'resize', priority: 5, data: null, attempt: 1, dependencies: [], requiredCapabilities: [] }]);
    expect(said(native)[1]).toEqual(completed('t1', null));
  });

  test('begin after who made the agent can listen', async () => {
    const { bus, native } = await bussed();
    native.refuse = (type) => void (type === 'agent.started' && native.post(assign('t1')));
    const agent = await createAgent(bus, options());
    const began = [];
    agent.on('task:started', ({ taskId }) => began.push(taskId));
    await until(() => agent.stats.completed === 1);
    expect(began).toEqual(['t1']);
  });

  test('what the handler throws fails them; permanent: true says that no other attempt helps', async () => {
    const { agent, native } = await made({
      maxTasks: 3,
      handler: ({ id }) => {
        if (id === 't1') throw new Error('broken');
        if (id === 't2') return Promise.reject(Object.assign(new Error('never'), { permanent: true }));
        throw null;
      },
    });
    const events = [];
    agent.on('task:failed', (event) => events.push(event));
    native.post(assign('t1'), assign('t2'), assign('t3'));
    await until(() => agent.stats.failed === 3);
    const failures = said(native).filter(([what]) => what === 'failed');
    expect(failures.sort(([, a], [, b]) => (a < b ? -1 : 1))).toEqual([
      failed('t1', 'broken'),
      failed('t2', 'never', { permanent: true }),
      failed('t3', 'null'),
    ]);
    expect(events[0]).toEqual({ taskId: 't1', attempt: 1, error: 'broken' });
  });

  test('beyond maxTasks they wait their turn', async () => {
    const { handler, tasks, began } = manual();
    const { agent, native } = await made({ maxTasks: 2, handler });
    native.post(assign('t1'), assign('t2'), assign('t3'), assign('t4'));
    expect([began, agent.running]).toEqual([
      ['t1', 't2'],
      ['t1', 't2'],
    ]);
    tasks.get('t2').resolve();
    await until(() => began.length === 3);
    expect(agent.running).toEqual(['t1', 't3']);
    for (const id of ['t1', 't3']) tasks.get(id).resolve();
    await until(() => tasks.has('t4'));
    tasks.get('t4').resolve();
    await until(() => agent.stats.completed === 4);
  });

  test('more than can wait are given back at once', async () => {
    const { handler } = manual();
    const { native } = await made({ handler });
    native.post(...Array.from({ length: 1002 }, (_, i) => assign(`t${i}`)));
    await turns();
    expect(said(native).slice(1)).toEqual([failed('t1001', '1000 tasks wait in the agent', { handedBack: true })]);
  });

  test('are done once, however often they come; a later attempt is another one', async () => {
    const { handler, tasks, began } = manual();
    const { agent, native } = await made({ handler });
    native.post(assign('t1'), assign('t1'));
    native.post(assign('t1'));
    tasks.get('t1').resolve('one');
    await until(() => agent.stats.completed === 1);
    native.post(assign('t1'));
    await turns();
    expect(began).toEqual(['t1']);
    native.post(assign('t1', { attempt: 2 }));
    tasks.get('t1').resolve('two');
    await until(() => agent.stats.completed === 2);
    expect(said(native)).toEqual([begun('t1'), completed('t1', 'one'), begun('t1', 2), completed('t1', 'two', 2)]);
  });

  test('a later attempt replaces an earlier one that is still being done; an earlier one comes too late', async () => {
    const { handler, tasks } = manual();
    const { agent, native } = await made({ handler });
    native.post(assign('t1', { attempt: 2 }));
    const before = tasks.get('t1');
    native.post(assign('t1', { attempt: 3 }));
    expect(before.signal.aborted).toBe(true);
    before.resolve('old');
    native.post(assign('t1', { attempt: 1 }));
    expect(tasks.get('t1').attempt).toBe(3);
    tasks.get('t1').resolve('new');
    await until(() => agent.stats.completed === 1);
    expect(said(native)).toEqual([begun('t1', 2), begun('t1', 3), completed('t1', 'new', 3)]);
  });

  test('a result that cannot be sent fails them for good', async () => {
    const circle = {};
    circle.self = circle;
    const results = { t1: { n: 5n }, t2: circle, t3: () => 1, t4: 'x'.repeat(2_000_000) };
    const { agent, native } = await made({ maxTasks: 4, handler: ({ id }) => results[id] });
    native.post(...Object.keys(results).map((id) => assign(id)));
    await until(() => agent.stats.failed === 3 && agent.stats.completed === 1);
    const failures = native.of('task.failed');
    expect(failures.map(({ taskId, permanent }) => [taskId, permanent])).toEqual([
      ['t1', true],
      ['t2', true],
      ['t4', true],
    ]);
    expect(failures.map(({ error }) => error)).toEqual([
      expect.stringMatching(/cannot be sent: the result\.n is a BigInt/),
      expect.stringMatching(/cannot be sent: the result.*circle/),
      expect.stringMatching(/cannot be sent: the result: .*limits\.maxPayloadBytes/),
    ]);
  });

  test.each([
    ['the agent allows', { taskTimeoutMs: 20 }, { timeoutMs: 60_000 }],
    ['the task allows', { taskTimeoutMs: 60_000 }, { timeoutMs: 20 }],
    ['the task allows, where the agent does not mind', {}, { timeoutMs: 20 }],
  ])('that take longer than %s fail, and their place is free', async (_, ofAgent, ofTask) => {
    const { handler, tasks, began } = manual();
    const { agent, native } = await made({ handler, ...ofAgent });
    native.post(assign('t1', ofTask), assign('t2'));
    await until(() => began.length === 2);
    const { signal, resolve } = tasks.get('t1');
    expect(signal.reason).toBeInstanceOf(OSSAError);
    expect(signal.reason).toMatchObject({ code: 'ERR_HANDLER_TIMEOUT', details: { taskId: 't1', attempt: 1 } });
    resolve('too late');
    tasks.get('t2').resolve('done');
    await until(() => agent.stats.completed === 1);
    expect(said(native)).toEqual(expect.arrayContaining([failed('t1', 'timed out after 20 ms'), completed('t2')]));
    expect(native.of('task.completed')).toHaveLength(1);
  });

  test('cancelled ones are aborted, and nothing more is said of them', async () => {
    const { handler, tasks, began } = manual();
    const { agent, native } = await made({ handler });
    native.post(assign('t1'), assign('t2'), assign('t3'));
    native.post(cancel('t2'), cancel('t1', 2), cancel('t1'));
    expect(tasks.get('t1').signal.reason).toMatchObject({ code: 'ERR_ABORTED', message: "Task 't1' was cancelled: not needed" });
    tasks.get('t1').reject(new Error('aborted'));
    tasks.get('t3').resolve('done');
    await until(() => agent.stats.completed === 1);
    native.post(assign('t1'), assign('t2'));
    await turns();
    expect(began).toEqual(['t1', 't3']);
    expect(agent.stats).toEqual({ completed: 1, failed: 0, cancelled: 2 });
    expect(said(native)).toEqual([begun('t1'), begun('t3'), completed('t3')]);
  });

  test('a cancellation may come before its task', async () => {
    const { handler, began } = manual();
    const { native } = await made({ handler });
    native.post(cancel('t1'), assign('t1'), assign('t1', { attempt: 2 }));
    await turns();
    expect(began).toEqual(['t1']);
    expect(said(native)).toEqual([begun('t1', 2)]);
  });

  test('those that are long past are forgotten', async () => {
    const { handler, began } = manual();
    const { native } = await made({ handler });
    native.post(...Array.from({ length: 10_001 }, (_, i) => cancel(`t${i}`)));
    native.post(assign('t1'), assign('t0'));
    expect(began).toEqual(['t0']);
  });

  test('for others, and what makes no sense, is let be', async () => {
    const { handler, began } = manual();
    const { bus, native } = await made({ handler });
    const errors = [];
    bus.on('error', (error) => errors.push(error));
    native.post(
      { agent: 'b', assign: assignment('t1') },
      { agent: 'a' },
      { agent: 'a', assign: 5 },
      { agent: 'a', cancel: null },
      assign('t2'),
    );
    native.onPosted('not JSON');
    expect(began).toEqual(['t2']);
    expect(errors.map(({ code }) => code)).toEqual(['ERR_INTERNAL', 'ERR_INTERNAL', 'ERR_INTERNAL']);
    expect(errors[0].message).toMatch(/^What agent 'a' was told/);
  });

  test('a listener that throws breaks nothing', async () => {
    const { agent, native } = await made();
    agent.on('task:started', () => {
      throw new Error('listener');
    });
    native.post(assign('t1'));
    await until(() => agent.stats.completed === 1);
    expect(logged).toHaveBeenCalledWith(expect.stringMatching(/listener/));
  });
});

describe('while Redis is away', () => {
  test('what became of a task is said again until it is stored', async () => {
    const { agent, native } = await made({
      handler: ({ id }) => (id === 't1' ? 'done' : Promise.reject(new Error('broken'))),
      maxTasks: 2,
    });
    let refused = 0;
    native.refuse = (type) => (type !== 'task.started' && refused++ < 4 ? away : undefined);
    const errors = [];
    agent.on('error', (error) => errors.push(error.code));
    native.post(assign('t1'), assign('t2'));
    await until(() => agent.stats.completed + agent.stats.failed === 2);
    expect(errors).toEqual(['ERR_CONNECTION', 'ERR_CONNECTION']);
    const keys = native.records.filter(([type]) => type === 'task.completed').map(([, text]) => JSON.parse(text).idempotencyKey);
    expect(keys).toHaveLength(3);
    expect(new Set(keys).size).toBe(1);
    expect(agent.stats).toEqual({ completed: 1, failed: 1, cancelled: 0 });
  });

  test('errors without a listener are logged, and end nothing', async () => {
    const { agent, native } = await made();
    native.refuse = (type) => (native.of(type).length < 2 ? away : undefined);
    native.post(assign('t1'));
    await until(() => agent.stats.completed === 1);
    expect(logged).toHaveBeenCalledWith(expect.stringMatching(/Agent a: Redis is away/));
  });

  test('it is in hand until then, and not said any more once it is cancelled', async () => {
    const { agent, native } = await made({ reportIntervalMs: 100 });
    native.refuse = (type) => (type === 'task.completed' ? away : undefined);
    native.post(assign('t1'));
    const reported = () => native.of('performance.metrics').at(-1)?.running;
    await until(() => reported()?.length === 1);
    expect([reported(), agent.running]).toEqual([[{ taskId: 't1', attempt: 1 }], []]);
    const attempts = native.of('task.completed').length;
    await until(() => native.of('task.completed').length > attempts);
    // Refused: it waits for its next attempt.
    await turns();
    const before = native.of('task.completed').length;
    native.post(cancel('t1'));
    native.refuse = () => undefined;
    await until(() => reported().length === 0);
    await agent.drain();
    expect(native.of('task.completed')).toHaveLength(before);
    expect(agent.stats).toEqual({ completed: 0, failed: 0, cancelled: 1 });
  });

  test('that a task began is not said any more once it has ended', async () => {
    const { agent, native } = await made();
    native.refuse = (type) => (type === 'task.started' ? away : undefined);
    native.post(assign('t1'));
    await until(() => agent.stats.completed === 1);
    const before = native.of('task.started').length;
    await agent.drain();
    expect([before, native.of('task.started').length]).toEqual([1, 1]);
  });

  test('reports do not pile up', async () => {
    const { native } = await made({ reportIntervalMs: 100 });
    const reports = () => native.of('performance.metrics').length;
    await until(() => reports() > 0);
    native.auto = false;
    const stuck = reports() + 1;
    await until(() => reports() === stuck);
    await sleep(350);
    expect(reports()).toBe(stuck);
  });

  test('a report says what lost ones would have said; one error is told for all of them', async () => {
    const { agent, native } = await made({ reportIntervalMs: 100, handler: () => Promise.reject(new Error('broken')) });
    native.refuse = (type) => (type === 'performance.metrics' ? away : undefined);
    const errors = [];
    agent.on('error', (error) => errors.push(error.code));
    native.post(assign('t1'));
    await until(() => agent.stats.failed === 1);
    const rates = () => native.of('performance.metrics').map(({ metrics }) => metrics.errorRate);
    await until(() => rates().length >= 3);
    native.refuse = () => undefined;
    await until(() => rates().at(-1) === 0);
    expect(rates().slice(1, -1)).toEqual(rates().slice(1, -1).fill(100));
    expect(errors).toEqual(['ERR_CONNECTION']);
  });
});

describe('reports', () => {
  test('measure the process, and the tasks since the last one', async () => {
    const { agent, native } = await made({
      reportIntervalMs: 100,
      maxTasks: 2,
      handler: async ({ id }) => {
        await sleep(20);
        for (const end = Date.now() + 5; Date.now() < end; );
        if (id === 't2') throw new Error('broken');
      },
    });
    const reports = () => native.of('performance.metrics');
    await until(() => reports().length === 1);
    expect(reports()[0]).toMatchObject({
      source: 'a',
      metrics: { responseTime: 0, throughput: 0, errorRate: 0 },
      inbox: 'inbox-1',
      running: [],
      timestamp: expect.stringMatching(/Z$/),
    });
    native.post(assign('t1'), assign('t2'));
    await until(() => agent.stats.completed + agent.stats.failed === 2);
    const before = reports().length;
    await until(() => reports().length === before + 2);
    const metrics = reports().map((report) => report.metrics);
    const [{ responseTime, errorRate }] = metrics.filter((each) => each.responseTime > 0);
    expect([responseTime >= 15 && responseTime < 10_000, errorRate > 0]).toEqual([true, true]);
    expect(metrics.at(-1)).toMatchObject({ responseTime: 0, throughput: 1, errorRate: 0 });
    for (const { cpu, memory } of metrics) {
      expect([cpu >= 0 && cpu <= 100, memory > 0 && memory < 100]).toEqual([true, true]);
    }
  });

  test('name what is in hand, begun or not', async () => {
    const { handler } = manual();
    const { native } = await made({ reportIntervalMs: 100, handler });
    native.post(assign('t1'), assign('t2', { attempt: 4 }));
    await until(() => native.of('performance.metrics').length > 0);
    expect(native.of('performance.metrics').at(-1).running).toEqual([
      { taskId: 't1', attempt: 1 },
      { taskId: 't2', attempt: 4 },
    ]);
  });
});

describe('respawn', () => {
  test('says again who it is, but not more often than once a second, and what it has', async () => {
    const { handler, tasks, began } = manual();
    const { agent, native } = await made({ handler, reportIntervalMs: 60_000 });
    native.post(assign('t1'));
    tasks.get('t1').resolve();
    await until(() => agent.stats.completed === 1);
    native.post(assign('t2'));
    const respawn = () => native.post({ agent: 'a', respawn: {} });
    const start = performance.now();
    await until(() => respawn() ?? native.of('agent.started').length === 2);
    expect(performance.now() - start).toBeGreaterThan(900);
    expect(native.of('agent.spawned')).toEqual(Array(2).fill(native.of('agent.spawned')[0]));
    await until(() => native.of('performance.metrics').some(({ running }) => running.length === 1));
    // Attempts may be counted anew by who knows nothing any more.
    native.post(assign('t1'));
    tasks.get('t2').resolve();
    await until(() => began.length === 3);
    native.refuse = (type) => (type === 'agent.spawned' ? away : undefined);
    await until(() => respawn() ?? logged.mock.calls.some(([line]) => /Redis is away/.test(line)));
  });
});

describe('drain', () => {
  test('gives back what was not begun, waits for the rest, and says goodbye', async () => {
    const { handler, tasks } = manual();
    const { agent, native } = await made({ handler });
    const drained = [];
    agent.on('drained', (event) => drained.push(event));
    native.post(assign('t1'), assign('t2'));
    const draining = agent.drain({ reason: 'deploy' });
    expect([agent.drain(), agent.status]).toEqual([draining, 'draining']);
    native.post(assign('t3'));
    await turns();
    expect(native.of('agent.stopped')).toMatchObject([{ agentId: 'a', reason: 'deploy', draining: true, timestamp: expect.any(String) }]);
    expect([native.of('agent.terminated'), drained]).toEqual([[], []]);
    tasks.get('t1').resolve('done');
    await draining;
    const back = { handedBack: true };
    expect(said(native)).toEqual([
      begun('t1'),
      failed('t2', 'the agent is draining', back),
      failed('t3', 'the agent is draining', back),
      completed('t1'),
    ]);
    expect(native.records.at(-1)[0]).toBe('agent.terminated');
    expect(native.of('agent.terminated')).toMatchObject([{ agentId: 'a', reason: 'deploy', timestamp: expect.any(String) }]);
    expect([agent.status, drained, agent.stats]).toEqual(['stopped', [{ reason: 'deploy' }], { completed: 1, failed: 0, cancelled: 0 }]);
    await agent.drain();
    await agent.stop();
    native.post(assign('t4'), { agent: 'a', drain: { reason: 'again' } }, { agent: 'a', respawn: {} });
    await turns();
    expect(native.records.at(-1)[0]).toBe('agent.terminated');
  });

  test('tasks that do not end in time are aborted, and have failed', async () => {
    const { handler, tasks } = manual();
    const { agent, native } = await made({ handler });
    native.post(assign('t1'));
    await agent.drain({ timeoutMs: 10 });
    expect(tasks.get('t1').signal.reason).toMatchObject({ code: 'ERR_ABORTED' });
    tasks.get('t1').resolve('too late');
    await turns();
    expect(said(native)).toEqual([begun('t1'), failed('t1', 'the agent stopped before the task was done')]);
    expect(agent.stats).toEqual({ completed: 0, failed: 1, cancelled: 0 });
  });

  test('stop() waits for none, also while it drains already', async () => {
    const { handler } = manual();
    const { agent } = await made({ handler, drainTimeoutMs: 60_000 });
    fake.buses.at(-1).post(assign('t1'));
    const draining = agent.drain();
    await agent.stop();
    await draining;
    expect(agent.stats.failed).toBe(1);
  });

  test('a timeout that is longer does not put it off', async () => {
    const { handler } = manual();
    const { agent, native } = await made({ handler, drainTimeoutMs: 20 });
    native.post(assign('t1'));
    const draining = agent.drain();
    void agent.drain({ timeoutMs: 80_000_000 });
    await draining;
    expect(agent.stats.failed).toBe(1);
  });

  test('called in a handler it does not wait for that one', async () => {
    const order = [];
    const { agent, native } = await made({
      maxTasks: 2,
      handler: async ({ id }) => {
        if (id === 't2') await sleep(30);
        else await agent.drain();
        order.push(id);
      },
    });
    native.post(assign('t2'), assign('t1'));
    await until(() => agent.status === 'stopped');
    expect(order).toEqual(['t2', 't1']);
    expect(agent.stats.completed).toBe(2);
  });

  test('waits for tasks that are cancelled no longer', async () => {
    const { handler } = manual();
    const { agent, native } = await made({ handler, drainTimeoutMs: 60_000 });
    native.post(assign('t1'));
    const draining = agent.drain();
    native.post(cancel('t1'));
    await draining;
    expect(said(native)).toEqual([begun('t1')]);
  });

  test('is what a drain message does, whatever its reason, and await using', async () => {
    for (const reason of ['one too many', 'x'.repeat(5000), '']) {
      const { agent, native } = await made();
      native.post({ agent: 'a', drain: { reason } });
      await until(() => agent.status === 'stopped');
      expect(native.of('agent.terminated')[0].reason).toBe(reason || 'one too many');
    }
    const { agent } = await made();
    await agent[Symbol.asyncDispose]();
    expect(agent.status).toBe('stopped');
  });

  test('waits until what became of its tasks is stored', async () => {
    const { agent, native } = await made();
    let refused = 0;
    native.refuse = (type) => (type === 'task.completed' && refused++ < 2 ? away : undefined);
    native.post(assign('t1'));
    await until(() => refused > 0);
    await agent.drain();
    expect(agent.stats.completed).toBe(1);
    expect(native.records.at(-1)[0]).toBe('agent.terminated');
  });

  test.each([
    ['reason', [5, '', '\ud800', 'x'.repeat(1025)]],
    ['timeoutMs', [-1, '5', NaN]],
    ['drainTimeoutMs', [5]],
  ])('refuses a wrong %s', async (argument, values) => {
    const { agent } = await made();
    for (const value of values) {
      const refused = { code: 'ERR_INVALID_ARGUMENT', details: { argument } };
      await expect(agent.drain({ [argument]: value })).rejects.toMatchObject(refused);
    }
    await expect(agent.drain(5)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(agent.status).toBe('running');
  });
});

describe('when the bus is closed', () => {
  test('the agent stops at once: its last words go out, what it does is aborted', async () => {
    const { handler, tasks } = manual();
    const { agent, bus, native } = await made({ handler });
    const drained = [];
    agent.on('drained', (event) => drained.push(event));
    native.post(assign('t1'), assign('t2'));
    await bus.disconnect();
    expect(agent.status).toBe('stopped');
    expect(tasks.get('t1').signal.aborted).toBe(true);
    expect(said(native)).toEqual([
      begun('t1'),
      failed('t2', 'the agent is draining', { handedBack: true }),
      failed('t1', 'the agent stopped before the task was done'),
    ]);
    expect(native.of('agent.terminated')).toMatchObject([{ reason: 'its bus was closed' }]);
    expect(drained).toEqual([{ reason: 'its bus was closed' }]);
    tasks.get('t1').resolve();
    await agent.drain();
    await agent.stop();
    expect(logged).not.toHaveBeenCalled();
  });

  test('also while it drains', async () => {
    const { handler } = manual();
    const { agent, bus, native } = await made({ handler });
    native.post(assign('t1'));
    const draining = agent.drain();
    await turns();
    await bus.disconnect();
    await draining;
    expect(native.of('agent.terminated')).toHaveLength(1);
  });

  test('what waits to be said again is said a last time', async () => {
    const { agent, bus, native } = await made();
    native.refuse = (type) => (type === 'task.completed' ? away : undefined);
    native.post(assign('t1'));
    await until(() => native.of('task.completed').length === 1);
    await turns();
    await bus.disconnect();
    expect(native.of('task.completed')).toHaveLength(2);
    expect(agent.stats.completed).toBe(0);
  });
});

describe('SIGTERM', () => {
  test('one listener for all agents that drain at it, while there are any', async () => {
    const { agent, bus } = await made();
    const other = await createAgent(bus, options({ agentId: 'b' }));
    await createAgent(bus, options({ agentId: 'c', drainOnSigterm: false }));
    expect(process.listenerCount('SIGTERM')).toBe(1);
    await agent.stop();
    expect(process.listenerCount('SIGTERM')).toBe(1);
    await other.stop();
    expect(process.listenerCount('SIGTERM')).toBe(0);
    const { bus: closing } = await made();
    await closing.disconnect();
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  const program = (body) => `
    const { connected, createAgent, fake, turns, until, sleep } = require(${JSON.stringify(path.join(__dirname, 'bus.js'))});
    (async () => {
      const { bus, native } = await connected();
      const made = (agentId, more) => createAgent(bus, { agentId, agentType: 'w', capabilities: [], handler: () => sleep(50), ...more });
      const task = (agent, taskId) => ({ agent, assign: { taskId, attempt: 1, taskType: 't', priority: 1, dependencies: [], requiredCapabilities: [] } });
      const tell = () => console.log(native.records.map(([type, , data]) => type + ' ' + (JSON.parse(data).agentId ?? '')).join());
      ${body}
    })();`;
  const run = (body) => {
    try {
      const stdout = execFileSync(process.execPath, ['-e', program(body)], {
        encoding: 'utf8',
        timeout: 20_000,
        env: { ...process.env, NODE_OPTIONS: '' },
      });
      return { stdout, signal: null };
    } catch ({ stdout, signal, stderr }) {
      return { stdout, signal, stderr };
    }
  };

  test('drains all, and then ends the process as the signal does; a second one changes nothing', () => {
    const { stdout, signal } = run(`
      await made('a'); await made('b'); await made('c', { drainOnSigterm: false });
      await turns();
      native.post(task('a', 't1'));
      const publish = native.publish.bind(native);
      native.publish = (...args) => { publish(...args); if (native.of('agent.terminated').length === 2) tell(); };
      process.kill(process.pid, 'SIGTERM');
      await sleep(20);
      process.kill(process.pid, 'SIGTERM');`);
    expect(signal).toBe('SIGTERM');
    const events = stdout.trim().split('\n').at(-1).split(',');
    expect(events).toEqual(
      expect.arrayContaining(['agent.stopped a', 'agent.stopped b', 'task.completed a', 'agent.terminated a', 'agent.terminated b']),
    );
    expect(events.indexOf('agent.terminated a')).toBeGreaterThan(events.indexOf('task.completed a'));
    expect(events).not.toContain('agent.stopped c');
  });

  test('with another listener the process is left to that', () => {
    const { stdout, signal } = run(`
      const agent = await made('a');
      let told = 0;
      process.on('SIGTERM', () => told++);
      process.kill(process.pid, 'SIGTERM');
      await until(() => agent.status === 'stopped');
      await turns();
      console.log(told, process.listenerCount('SIGTERM'));
      await bus.disconnect();`);
    expect([stdout, signal]).toEqual(['1 1\n', null]);
  });

  test('an agent made meanwhile drains, too', () => {
    const { stdout, signal } = run(`
      await made('a');
      await turns();
      native.post(task('a', 't1'));
      process.kill(process.pid, 'SIGTERM');
      await sleep(10);
      const publish = native.publish.bind(native);
      native.publish = (...args) => { publish(...args); if (native.of('agent.terminated').length === 2) tell(); };
      await made('b');`);
    expect(signal).toBe('SIGTERM');
    expect(stdout).toMatch(/agent\.terminated b/);
  });

  test('an agent keeps Node alive until it has stopped, or its bus is closed', () => {
    const later = "setTimeout(() => { console.log('kept'); process.exit(); }, 50).unref();";
    expect(run(`await made('a'); ${later}`).stdout).toBe('kept\n');
    expect(run(`const a = await made('a'); await a.stop(); ${later}`)).toEqual({ stdout: '', signal: null });
    expect(run(`await made('a'); await bus.disconnect(); ${later}`)).toEqual({ stdout: '', signal: null });
    expect(
      run(`const a = await made('a', { handler: () => new Promise(() => {}) }); await turns(); native.post(task('a', 't1'));
        await bus.disconnect(); ${later}`),
    ).toEqual({ stdout: '', signal: null });
  });
});

'use strict';
const { createOSSAEventBus, fake, OSSAError, OSSAEventBus } = require('./bus');

const open = [];
afterEach(async () => {
  for (const bus of open.splice(0)) await bus.shutdown();
});
async function made(config) {
  const bus = await createOSSAEventBus(null, config);
  open.push(bus);
  return { bus, native: fake.buses.at(-1) };
}
/** The bus, and the only answer that requests get. */
async function answering(answer) {
  const both = await made();
  both.native.refuse = () => (answer.code === undefined ? [JSON.stringify(answer)] : answer);
  return both;
}
const task = (over = {}) => ({ id: 't1', type: 'resize', priority: 5, requiredCapabilities: ['images'], ...over });
const agent = (over = {}) => ({ id: 'a', status: 'idle', circuit: 'closed', lastActivity: 7, ...over });

test('the engine is told whether and how', async () => {
  const { native } = await made({ orchestration: { config: { agentTimeoutMs: 5 } } });
  expect(native.config.orchestration).toEqual({ enabled: true, config: { agentTimeoutMs: 5 } });
});

describe('distributeTask', () => {
  test.each([
    ['an agent', 'agent-1'],
    ['nobody yet', null],
  ])('asks whoever distributes, and resolves with %s', async (_, ok) => {
    const { bus, native } = await answering({ ok });
    expect(await bus.distributeTask(task({ dependencies: ['t0'], data: { at: new Date(0), none: undefined }, timeoutMs: undefined }))).toBe(
      ok,
    );
    const [[type, options, data]] = native.records;
    expect([type, options]).toEqual(['ossa.orchestration.distribute', '?30000']);
    expect(JSON.parse(data)).toEqual(task({ dependencies: ['t0'], data: { at: '1970-01-01T00:00:00.000Z' } }));
  });

  test('data that is undefined, or left out, is null', async () => {
    const { bus, native } = await answering({ ok: null });
    await bus.distributeTask(task({ data: undefined }));
    await bus.distributeTask(task());
    expect(native.of('ossa.orchestration.distribute').map(({ data }) => data)).toEqual([null, null]);
  });

  test('what the engine refuses is thrown as it says', async () => {
    const err = { code: 'ERR_INVALID_ARGUMENT', message: 'task.id: no', retryable: false, details: { argument: 'task.id' } };
    const { bus } = await answering({ err });
    const error = await bus.distributeTask(task()).catch((e) => e);
    expect(error).toBeInstanceOf(OSSAError);
    expect(error).toMatchObject(err);
  });

  const unreadable = Object.defineProperty({}, 'id', {
    enumerable: true,
    get() {
      throw new Error('no');
    },
  });
  test.each([[undefined], [null], ['t1'], [5], [[]], [new Date()], [new Map()], [() => 1]])('%p is no task', async (value) => {
    const { bus, native } = await made();
    await expect(bus.distributeTask(value)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument: 'task' } });
    expect(native.records).toEqual([]);
  });

  test.each([
    ['NaN', task({ priority: NaN }), 'ERR_INVALID_ARGUMENT', /^task\.priority: .*NaN/],
    ['a function', task({ dependencies: ['a', () => 1] }), 'ERR_INVALID_ARGUMENT', /^task\.dependencies\[1\]: .*function/],
    ['a lone surrogate', task({ id: '\ud800' }), 'ERR_INVALID_ARGUMENT', /^task\.id: /],
    ['a getter that throws', unreadable, 'ERR_INVALID_ARGUMENT', /^task: cannot be read: no/],
    ['a BigInt as data', task({ data: { n: 5n } }), 'ERR_NOT_SERIALIZABLE', /^task\.data\.n is a BigInt/],
  ])('%s in a task is refused where it is', async (_, value, code, message) => {
    const { bus, native } = await made();
    await expect(bus.distributeTask(value)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(native.records).toEqual([]);
  });

  test('no answer: nobody distributes, and the call may be repeated', async () => {
    const { bus } = await answering({ code: 'ERR_REQUEST_TIMEOUT', message: 'no answer', retryable: false, details: { timeoutMs: 30000 } });
    for (const call of [() => bus.distributeTask(task()), () => bus.cancelTask('t1')]) {
      await expect(call()).rejects.toMatchObject({
        code: 'ERR_REQUEST_TIMEOUT',
        retryable: true,
        message: expect.stringMatching(/No process of this bus that distributes tasks.*may be repeated/),
        details: { timeoutMs: 30000 },
        cause: { message: 'no answer' },
      });
    }
  });

  test('other errors are passed on; an answer that is none is ERR_INTERNAL', async () => {
    const lost = await answering({ code: 'ERR_CONNECTION', message: 'lost', retryable: true });
    await expect(lost.bus.distributeTask(task())).rejects.toMatchObject({ code: 'ERR_CONNECTION', message: 'lost' });
    for (const answer of [{}, [], 5, null]) {
      const { bus, native } = await made();
      native.refuse = () => [JSON.stringify(answer)];
      await expect(bus.distributeTask(task())).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    }
  });
});

describe('cancelTask and getTask', () => {
  test('cancelTask asks whoever distributes', async () => {
    const { bus, native } = await answering({ ok: true });
    expect([await bus.cancelTask('t1'), await bus.cancelTask('t2', 'not needed')]).toEqual([true, true]);
    expect(native.of('ossa.orchestration.cancel')).toEqual([{ taskId: 't1' }, { taskId: 't2', reason: 'not needed' }]);
  });

  test('getTask asks the engine; its times are Dates', async () => {
    const { bus, native } = await made();
    const view = { ...task(), status: 'completed', attempts: 1, dependencies: [], maxAttempts: 3, result: { startedAt: 5 } };
    native.answers['orchestration.task'] = ({ id }) =>
      id === 't1' ? { ...view, submittedAt: 1, assignedAt: 2, startedAt: 3, endedAt: 4 } : id === 't2' ? { ...view, submittedAt: 1 } : null;
    const [at1, at2, at3, at4] = [1, 2, 3, 4].map((ms) => new Date(ms));
    expect(await bus.getTask('t1')).toEqual({ ...view, submittedAt: at1, assignedAt: at2, startedAt: at3, endedAt: at4 });
    expect(await bus.getTask('t2')).toEqual({ ...view, submittedAt: at1 });
    expect(await bus.getTask('t3')).toBeNull();
  });

  test.each([
    ['cancelTask', [5], 'id'],
    ['cancelTask', ['t', 5], 'reason'],
    ['cancelTask', ['\ud800'], 'id'],
    ['getTask', [undefined], 'id'],
  ])('%s(%p) is refused', async (method, args, argument) => {
    const { bus } = await made();
    await expect(bus[method](...args)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
  });
});

describe('what this process knows', () => {
  test('agents, pools and figures come without asking Redis', async () => {
    const { bus, native } = await made();
    native.answers['orchestration.agents'] = [agent()];
    native.answers['orchestration.pools'] = [{ id: 'p' }];
    native.answers['orchestration.stats'] = { totalAgents: 1 };
    expect(bus.getAgents()).toEqual([agent({ lastActivity: new Date(7) })]);
    expect([bus.getPools(), bus.getOrchestrationStats()]).toEqual([[{ id: 'p' }], { totalAgents: 1 }]);
    native.answers['orchestration.pools'] = undefined;
    expect(() => bus.getPools()).toThrow(OSSAError);
  });

  test('the optimizer has the same methods', async () => {
    const { bus } = await answering({ ok: 'a' });
    const optimizer = bus.getOrchestrationOptimizer();
    expect(bus.getOrchestrationOptimizer()).toBe(optimizer);
    expect([await optimizer.distributeTask(task()), optimizer.getAgents()]).toEqual(['a', []]);
    const off = new OSSAEventBus(null, { orchestration: { enabled: false } });
    expect(off.getOrchestrationOptimizer()).toBeUndefined();
  });

  test("'agent:circuit:changed' reaches the listeners", async () => {
    const { bus, native } = await made();
    const got = [];
    bus.on('agent:circuit:changed', (change) => got.push(change));
    native.onLifecycle(JSON.stringify([['agent:circuit:changed', { agentId: 'a', from: 'closed', to: 'open' }]]));
    expect(got).toEqual([{ agentId: 'a', from: 'closed', to: 'open' }]);
  });
});

describe('getStatus() and healthCheck()', () => {
  const healthy = { status: 'healthy', redis: { connected: true }, lastHealthCheck: 5 };

  test.each([
    ['agents that are well', [agent(), agent({ status: 'draining' })], 'healthy'],
    ['no agents', [], 'healthy'],
    ['a failed agent', [agent(), agent({ status: 'failed' })], 'degraded'],
    ['an open circuit', [agent({ circuit: 'open' })], 'degraded'],
    ['a circuit that is tried', [agent({ circuit: 'half-open' })], 'degraded'],
  ])('%s', async (_, agents, status) => {
    const { bus, native } = await made();
    native.answers.status = healthy;
    native.answers['orchestration.agents'] = agents;
    expect(await bus.healthCheck()).toMatchObject({ status, components: { orchestration: { status, details: { totalAgents: 0 } } } });
    expect((await bus.getStatus()).orchestration).toEqual({ totalAgents: 0, queueDepth: 0 });
  });

  test('figures that cannot be had are left out of the one, and do not make the bus worse than degraded in the other', async () => {
    const { bus, native } = await made();
    native.answers.status = healthy;
    native.answers['orchestration.stats'] = native.answers['orchestration.agents'] = undefined;
    expect(await bus.getStatus()).not.toHaveProperty('orchestration');
    expect(await bus.healthCheck()).toMatchObject({
      status: 'degraded',
      components: { orchestration: { status: 'unhealthy', details: { code: 'ERR_DISABLED' } } },
    });
  });

  test('switched off, it is no part of either', async () => {
    const { bus, native } = await made({ orchestration: { enabled: false } });
    native.answers.status = healthy;
    expect(await bus.getStatus()).not.toHaveProperty('orchestration');
    expect((await bus.healthCheck()).components).not.toHaveProperty('orchestration');
  });
});

'use strict';
const { execFileSync } = require('node:child_process');
const { cpSync, mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { connected, createOSSAEventBus, fake, turns, EventBus, OSSAError, OSSAEventBus, RedisEventBus, ServiceRegistry } = require('./bus');

/** In place of NativeBus.call: answers with this text. */
const answerOnce = (text) =>
  function (id) {
    this.onAnswer(id, text);
  };

describe('connect and disconnect', () => {
  test('concurrent connects share one attempt; later ones are done already', async () => {
    const bus = new RedisEventBus();
    await Promise.all([bus.connect(), bus.connect()]);
    await bus.connect();
    expect(fake.buses.at(-1).calls).toEqual([['connect', {}]]);
    await Promise.all([bus.disconnect(), bus.disconnect({ drainTimeoutMs: 5 })]);
    await bus.disconnect();
    expect(fake.buses.at(-1).calls.slice(1)).toEqual([['disconnect', {}]]);
  });

  test('after a failed connect it may be tried again', async () => {
    const refuse = jest
      .spyOn(fake.NativeBus.prototype, 'call')
      .mockImplementationOnce(
        answerOnce(JSON.stringify({ err: { code: 'ERR_CONNECTION', message: 'no Redis at localhost:6379', retryable: true } })),
      );
    const bus = new RedisEventBus();
    await expect(bus.connect()).rejects.toMatchObject({ code: 'ERR_CONNECTION', retryable: true });
    await expect(bus.publish('a', 1)).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED' });
    refuse.mockRestore();
    await bus.connect();
    await bus.disconnect();
  });

  test('a closed bus stays closed, and says so', async () => {
    const bus = new RedisEventBus();
    await bus.disconnect();
    await expect(bus.connect()).rejects.toMatchObject({ code: 'ERR_CLOSED', message: expect.stringMatching(/make a new one/) });
  });

  test('disconnect during connect ends both', async () => {
    const bus = new RedisEventBus();
    const connecting = bus.connect();
    await bus.disconnect();
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('a rejected or senseless answer of the addon is ERR_INTERNAL', async () => {
    const { bus, native } = await connected();
    native.call = answerOnce('not JSON');
    await expect(bus.getStatus()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    native.call = () => {
      throw new Error('thrown');
    };
    await expect(bus.getStatus()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    await expect(bus.disconnect()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    await expect(bus.publish('a', 1)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('await using closes it', async () => {
    const { bus, native } = await connected();
    await bus[Symbol.asyncDispose]();
    expect(native.calls.at(-1)[0]).toBe('disconnect');
  });
});

const METHODS = [
  ['subscribe', ['a', () => 1]],
  ['unsubscribe', ['a']],
  ['request', ['a', 1]],
  ['createStream', ['a', {}]],
  ['getStream', ['a']],
  ['deleteGroup', ['a', 'g']],
  ['explain', ['a', 'i']],
  ['getMetrics', []],
  ['getStatus', []],
  ['publish', ['a', 1]],
  ['publishBatch', [[{ eventType: 'a', data: 1 }]]],
];
/** Of messages between projects. */
const PROJECT_METHODS = [
  ['registerProject', [{}]],
  ['unregisterProject', ['p']],
  ['registerContract', [{}]],
  ['registerRoute', [{}]],
  ['sendCrossProjectMessage', ['s', 't', 'a', 1]],
  ['setupCrossProjectHandler', ['p', 'a', () => 1]],
  ['getAvailableContracts', ['p']],
  ['validateProjectSetup', ['p']],
  ['getCrossProjectStats', []],
  ['getAuditLog', []],
  ['verifyAuditLog', []],
  ['getGroups', []],
  ['httpHandler', []],
  ['serve', []],
];
/** Of agents. */
const AGENT_METHODS = [
  ['distributeTask', [{}]],
  ['cancelTask', ['t']],
  ['getTask', ['t']],
  ['getOrchestrationStats', []],
  ['getAgents', []],
  ['getPools', []],
];
/** Of monitoring. */
const MONITORING_METHODS = [
  ['getDashboardData', []],
  ['getAnalytics', []],
  ['getActiveAlerts', []],
  ['exportMetrics', []],
];

/** The code of a call's rejection or throw; a rejection where the contract says Promise. */
const codeOf = async (bus, method, args) => {
  try {
    await bus[method](...args);
    return 'none';
  } catch (error) {
    expect(error).toBeInstanceOf(OSSAError);
    return error.code;
  }
};

test.each([...METHODS, ...PROJECT_METHODS, ...AGENT_METHODS, ...MONITORING_METHODS])(
  '%s before initialize and after shutdown',
  async (method, args) => {
    const bus = new OSSAEventBus();
    expect(await codeOf(bus, method, args)).toMatch(method === 'publishBatch' ? /NOT_INIT/ : /^ERR_NOT_INITIALIZED$/);
    await bus.initialize();
    await bus.shutdown();
    expect(await codeOf(bus, method, args)).toBe('ERR_CLOSED');
  },
);

test.each(AGENT_METHODS)('%s names the key by which it is switched off', async (method, args) => {
  const bus = await createOSSAEventBus(null, { orchestration: { enabled: false } });
  const disabled = { code: 'ERR_DISABLED', message: expect.stringMatching(/orchestration\.enabled/) };
  await expect((async () => bus[method](...args))()).rejects.toMatchObject(disabled);
  await bus.shutdown();
});

test.each(MONITORING_METHODS)('%s names the key by which it is switched off', async (method, args) => {
  const bus = await createOSSAEventBus(null, { monitoring: { metrics: { enabled: false }, alerting: { enabled: false } } });
  expect(bus.getMonitoring()).toBeUndefined();
  const disabled = { code: 'ERR_DISABLED', message: expect.stringMatching(/monitoring\.metrics\.enabled/) };
  await expect((async () => bus[method](...args))()).rejects.toMatchObject(disabled);
  await bus.shutdown();
});

test.each([
  ['connect', 'disconnect'],
  ['disconnect', 'connect'],
])('closing while a connect fails ends: %s is answered first', async (...order) => {
  const calls = {};
  const spy = jest.spyOn(fake.NativeBus.prototype, 'call').mockImplementation(function (id, method) {
    // Closed, it tells nothing more.
    calls[method] = (answer) => this.closed || this.onAnswer(id, JSON.stringify(answer));
  });
  const answers = { connect: { err: { code: 'ERR_CONNECTION', message: 'nobody is there', retryable: true } }, disconnect: { ok: {} } };
  const bus = new RedisEventBus();
  const connecting = expect(bus.connect()).rejects.toBeInstanceOf(OSSAError);
  const closing = bus.disconnect();
  for (const method of order) {
    calls[method](answers[method]);
    await turns();
  }
  await Promise.all([connecting, closing]);
  expect(fake.buses.at(-1).closed).toBe(true);
  spy.mockRestore();
});

test('createStream and deleteGroup ask the engine', async () => {
  const { bus, native } = await connected();
  await expect(bus.createStream('a', { maxLength: 1 })).rejects.toMatchObject({ code: 'ERR_DISABLED' });
  native.answers.deleteGroup = true;
  expect(await bus.deleteGroup('a.*', 'g')).toBe(true);
  expect(native.calls.slice(1)).toEqual([
    ['createStream', { name: 'a', config: { maxLength: 1 } }],
    ['deleteGroup', { eventType: 'a.*', group: 'g' }],
  ]);
  await bus.disconnect();
});

test('times become Dates of this realm: status, streams, dead letters', async () => {
  const { bus, native } = await connected();
  native.answers.status = { status: 'healthy', redis: { connected: true }, subscriptions: 0, streams: 0, metrics: {}, lastHealthCheck: 5 };
  native.answers.getStream = ({ name }) =>
    name === 'a' ? { name, config: {}, stats: { messageCount: 1, firstMessage: 5, lastMessage: null, groups: [] } } : null;
  native.answers['deadLetters.list'] = {
    items: [
      {
        id: '1-0',
        eventType: 'a',
        group: 'g',
        reason: 'handler',
        error: 'e',
        attempts: 4,
        failedAt: 7,
        meta: '{"v":1,"id":"i","timestamp":3,"source":"s","version":"1.0.0","priority":"low","dttl":1}',
        data: '{"n":1}',
      },
      { id: '2-0', eventType: 'a', group: 'g', reason: 'malformed', error: 'e', attempts: 1, failedAt: 7, meta: '', data: '{broken' },
    ],
    cursor: 'next',
  };
  expect((await bus.getStatus()).lastHealthCheck).toEqual(new Date(5));
  expect((await bus.getStream('a')).stats).toMatchObject({ firstMessage: new Date(5), lastMessage: null });
  expect(await bus.getStream('b')).toBeNull();
  const { items, cursor } = await bus.deadLetters.list({ eventType: 'a', from: new Date(1), to: new Date(9), limit: 2 });
  expect(native.calls.at(-1)).toEqual(['deadLetters.list', { eventType: 'a', from: 1, to: 9, limit: 2 }]);
  expect(cursor).toBe('next');
  expect(items[0]).toEqual({
    id: '1-0',
    eventType: 'a',
    group: 'g',
    reason: 'handler',
    error: 'e',
    attempts: 4,
    failedAt: new Date(7),
    event: {
      metadata: { id: 'i', type: 'a', source: 's', timestamp: new Date(3), version: '1.0.0', priority: 'low', ttl: 1, attempt: 4 },
      data: { n: 1 },
    },
  });
  expect(items[1].event).toMatchObject({ metadata: { id: '2-0', type: 'a', timestamp: new Date(7) }, data: '{broken' });
  native.answers['deadLetters.count'] = 2;
  native.answers['deadLetters.redrive'] = ({ ids }) => ids.length;
  native.answers['deadLetters.purge'] = 3;
  expect([
    await bus.deadLetters.count(),
    await bus.deadLetters.redrive({ ids: ['1-0'] }),
    await bus.deadLetters.purge({ group: 'g' }),
  ]).toEqual([2, 1, 3]);
  await expect(bus.deadLetters.list({ from: 5 })).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  await expect(bus.deadLetters.count('a')).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  await bus.disconnect();
});

describe('OSSAEventBus', () => {
  test('shares one engine bus with the RedisEventBus inside', async () => {
    const before = fake.buses.length;
    const bus = await createOSSAEventBus(new ServiceRegistry(), { eventBus: { redis: { host: 'h' } } });
    expect(fake.buses.length - before).toBe(1);
    expect(fake.buses.at(-1).config).toMatchObject({ eventBus: { redis: { host: 'h' } }, crossProject: { enabled: true } });
    expect(bus).toBeInstanceOf(EventBus);
    expect(bus.getEventBus()).toBeInstanceOf(RedisEventBus);
    expect([await bus.publish('a', 1), await bus.getEventBus().publish('a', 2)]).toEqual(['id-0', 'id-1']);
    await bus.shutdown();
    await expect(bus.getEventBus().publish('a', 1)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('healthCheck never rejects, and says what the bus says', async () => {
    const bus = new OSSAEventBus();
    expect(await bus.healthCheck()).toMatchObject({
      status: 'unhealthy',
      timestamp: expect.any(Date),
      components: { eventBus: { status: 'unhealthy', details: { code: 'ERR_NOT_INITIALIZED' } } },
    });
    await bus.initialize();
    fake.buses.at(-1).answers.status = { status: 'degraded', redis: { connected: true }, lastHealthCheck: 5 };
    expect(await bus.healthCheck()).toMatchObject({
      status: 'degraded',
      components: { eventBus: { status: 'degraded', details: { redis: { connected: true } } } },
    });
    expect((await bus.getStatus()).eventBus).toEqual({ status: 'degraded', redis: { connected: true }, lastHealthCheck: new Date(5) });
    await bus.shutdown();
    await bus.shutdown();
    expect(await bus.healthCheck()).toMatchObject({ status: 'unhealthy' });
  });

  test('without a registry there is nothing of it', async () => {
    const bus = new OSSAEventBus(null);
    expect(bus.getServiceRegistryIntegration()).toBeUndefined();
  });

  test('a configuration in the place of the registry is refused', () => {
    expect(() => new OSSAEventBus({ eventBus: {} })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/second argument/) }),
    );
  });

  test('createOSSAEventBus leaves nothing open when it cannot connect', async () => {
    jest
      .spyOn(fake.NativeBus.prototype, 'call')
      .mockImplementationOnce(answerOnce(JSON.stringify({ err: { code: 'ERR_AUTH', message: 'no', retryable: false } })));
    await expect(createOSSAEventBus()).rejects.toMatchObject({ code: 'ERR_AUTH' });
    jest.restoreAllMocks();
    expect(fake.buses.at(-1).closed).toBe(true);
  });
});

describe('configuration', () => {
  const last = () => fake.resolved.at(-1);

  test('crosses with markers for what JSON cannot say, and with the environment', () => {
    process.env.REDIS_HOST = 'from-env';
    const circle = {};
    circle.self = circle;
    new RedisEventBus({
      performance: { batchSize: NaN, batchTimeout: undefined },
      monitoring: circle,
      redis: { port: 5n, host: Symbol('x'), tls: new Date(0) },
    });
    delete process.env.REDIS_HOST;
    expect(last()).toMatchObject({
      kind: 'eventBus',
      argument: {
        performance: { batchSize: { $invalid: 'NaN' } },
        monitoring: { self: { $invalid: expect.stringMatching(/circular/) } },
        redis: { port: { $invalid: 'bigint' }, host: { $invalid: 'symbol' }, tls: { $invalid: 'Date' } },
      },
      env: { REDIS_HOST: 'from-env' },
    });
    expect(last().argument.performance).not.toHaveProperty('batchTimeout');
    expect(last().env).not.toHaveProperty('PATH');
  });

  test.each([
    [() => new RedisEventBus({ nope: 1 })],
    [() => new RedisEventBus(null)],
    [() => new RedisEventBus('redis://x')],
    [() => new RedisEventBus([])],
    [() => new OSSAEventBus(null, { nope: 1 })],
    [() => new ServiceRegistry({ nope: 1 })],
  ])('what is wrong throws from the constructor: %p', (make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_CONFIG', details: { path: expect.any(String) } }));
  });

  test('a logger is marked, and must have its four functions', () => {
    const logger = { debug() {}, info() {}, warn() {}, error() {} };
    new RedisEventBus({ logger });
    expect(last().argument.logger).toEqual({ $logger: true });
    new OSSAEventBus(null, { eventBus: { logger } });
    expect(last().argument.eventBus.logger).toEqual({ $logger: true });
    const half = { debug() {}, info() {} };
    expect(() => new RedisEventBus({ logger: half })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_CONFIG', details: { path: 'logger' } }),
    );
    expect(() => new OSSAEventBus(null, { eventBus: { logger: half } })).toThrow(
      expect.objectContaining({ details: { path: 'eventBus.logger' } }),
    );
    expect(() => new RedisEventBus({ logger: null })).toThrow(expect.objectContaining({ details: { path: 'logger' } }));
  });

  test('the exported defaults are frozen to the bottom', () => {
    const { DEFAULT_EVENT_BUS_CONFIG: defaults, EVENT_TYPES } = require('./bus');
    expect(Object.isFrozen(defaults) && Object.isFrozen(defaults.defaults.retry) && Object.isFrozen(EVENT_TYPES.AGENT)).toBe(true);
    expect(defaults).toMatchObject({
      redis: { host: 'localhost', port: 6379, keyPrefix: 'ossa:eventbus' },
      performance: { batchSize: 100 },
      defaults: { ttl: 3600 },
    });
  });
});

describe('keeping Node alive', () => {
  const run = (body) =>
    execFileSync(
      process.execPath,
      [
        '-e',
        `const { connected, fake, turns } = require(${JSON.stringify(path.join(__dirname, 'bus.js'))}); (async () => { const { bus, native } = await connected(); ${body} })();`,
      ],
      {
        encoding: 'utf8',
        timeout: 5000,
        env: { ...process.env, NODE_OPTIONS: '' },
      },
    );

  test('an idle bus, or one that was closed, lets Node end', () => {
    expect(run("await bus.publish('a', 1); process.on('exit', () => console.log('ended'));")).toBe('ended\n');
    expect(run("await bus.subscribe('a', () => 1); await bus.disconnect(); console.log('ended');")).toBe('ended\n');
    expect(run("const s = await bus.subscribe('a', () => 1); await s.close(); console.log('ended');")).toBe('ended\n');
  });

  test('an open subscription, a publish under way and a call under way keep it', () => {
    // Timers that are unref'd fire only if something else keeps Node.
    const later = "setTimeout(() => { console.log('kept'); process.exit(); }, 50).unref();";
    expect(run(`await bus.subscribe('a', () => 1); ${later}`)).toBe('kept\n');
    expect(run(`native.auto = false; bus.publish('a', 1); ${later}`)).toBe('kept\n');
    expect(run(`native.answers.status = () => new Promise(() => {}); bus.getStatus(); ${later}`)).toBe('kept\n');
    expect(run(`await turns(); ${later}`)).toBe('');
  });
});

test('importing the package needs no addon, and a missing one names its package', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ossa-'));
  try {
    cpSync(path.join(__dirname, '../../dist'), path.join(folder, 'dist'), { recursive: true });
    const script = `const { RedisEventBus } = require('./dist'); console.log('imported');
      try { new RedisEventBus(); } catch (e) { console.log(e.name, e.message); }`;
    const { OSSA_ADDON: _, ...env } = process.env;
    const out = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', cwd: folder, env });
    expect(out).toMatch(new RegExp(`^imported\nOSSAError .*@bluefly/ossa-${process.platform}-${process.arch}.* is not installed`));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('lifecycle events', () => {
  let errors;
  let logged;
  let bus;
  let native;
  beforeEach(async () => {
    errors = jest.spyOn(console, 'error').mockImplementation(() => {});
    logged = [];
    const write = (level) => (message) => logged.push([level, message]);
    ({ bus, native } = await connected({
      logger: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
    }));
  });
  afterEach(async () => {
    await bus.disconnect();
    errors.mockRestore();
  });
  const tell = (...events) => native.onLifecycle(JSON.stringify(events));

  test('reach the listeners with one object', () => {
    const got = [];
    bus.on('event:failed', (...args) => got.push(args));
    tell(['event:failed', { eventType: 'a', eventId: 'i', group: 'g', attempt: 1, error: 'boom', nextRetryAt: 5 }]);
    expect(got).toEqual([[{ eventType: 'a', eventId: 'i', group: 'g', attempt: 1, error: 'boom', nextRetryAt: new Date(5) }]]);
  });

  test('the engine makes the costly ones only while somebody listens', async () => {
    expect(native.masks).toEqual([]);
    const listener = () => {};
    bus.on('event:published', listener);
    bus.on('event:published', () => {});
    bus.once('event:consumed', () => {});
    bus.prependOnceListener('event:retried', () => {});
    bus.addListener('subscription:created', () => {});
    expect(native.masks).toEqual([1, 3, 11]);
    tell(['event:consumed', {}]);
    expect(native.masks.at(-1)).toBe(9);
    bus.off('event:published', listener);
    expect(native.masks.at(-1)).toBe(9);
    bus.removeAllListeners('event:published');
    expect(native.masks.at(-1)).toBe(8);
    bus.removeAllListeners();
    expect(native.masks.at(-1)).toBe(0);
    bus.on('event:failed', listener);
    expect(native.masks.at(-1)).toBe(4);
  });

  test('listeners added before connect count', async () => {
    const early = new RedisEventBus();
    early.on('event:consumed', () => {});
    await early.connect();
    expect(fake.buses.at(-1).masks).toEqual([2]);
    await early.disconnect();
  });

  test('an OSSAEventBus and the bus inside both emit them', async () => {
    const outer = await createOSSAEventBus();
    const inner = fake.buses.at(-1);
    const got = [];
    outer.on('event:published', () => got.push('outer'));
    outer.getEventBus().on('event:published', () => got.push('inner'));
    inner.onLifecycle(JSON.stringify([['event:published', {}]]));
    expect(got.sort()).toEqual(['inner', 'outer']);
    outer.removeAllListeners();
    expect(inner.masks.at(-1)).toBe(1);
    await outer.shutdown();
  });

  test('a listener that throws or rejects is logged, and the others are called', async () => {
    const got = [];
    bus.on('data:loss', () => {
      throw new Error('listener broke');
    });
    bus.on('data:loss', async () => {
      throw null;
    });
    bus.on('data:loss', () => got.push(1));
    tell(['data:loss', {}], ['data:loss', {}]);
    await turns();
    expect(got).toEqual([1, 1]);
    expect(logged.map(([level]) => level)).toEqual(['error', 'error', 'error', 'error']);
    expect(logged[0][1]).toMatch(/listener broke/);
  });

  test("'error' is an OSSAError; without a listener it is logged", () => {
    tell(['error', { code: 'ERR_REDIS', message: 'lost', retryable: true }]);
    expect(logged).toEqual([['error', 'Error: lost']]);
    const got = [];
    bus.on('error', (error) => got.push(error));
    tell(['error', { code: 'ERR_REDIS', message: 'lost', retryable: true }]);
    expect(got[0]).toBeInstanceOf(OSSAError);
    expect(got[0]).toMatchObject({ code: 'ERR_REDIS', retryable: true });
    expect(logged).toHaveLength(1);
  });

  test('the log of the engine goes to the logger, with fields behind the message; what is no level is info', async () => {
    const fields = { group: 'g', error: 'no "route"', empty: '' };
    tell(['log', { level: 'warn', message: 'w', fields }], ['log', { level: 'strange', message: 's' }], ['log', { level: 'silent' }]);
    expect(logged).toEqual([['warn', 'w group=g error="no \\"route\\"" empty=""']]);
  });

  test('without a logger the log goes to the console, from warnings on', async () => {
    const plain = await connected();
    const spies = ['debug', 'info', 'warn'].map((level) => jest.spyOn(console, level).mockImplementation(() => {}));
    const lines = ['debug', 'info', 'warn', 'error'].map((level) => ['log', { level, message: level }]);
    plain.native.onLifecycle(JSON.stringify([...lines, ['log', { level: 'debug', message: 'asked', asked: true }]]));
    expect(spies.map((spy) => spy.mock.calls.flat())).toEqual([['@bluefly/ossa: asked'], [], ['@bluefly/ossa: warn']]);
    expect(errors.mock.calls).toEqual([['@bluefly/ossa: error']]);
    for (const spy of spies) spy.mockRestore();
    await plain.bus.disconnect();
  });

  test("what a listener of 'log' does is not told to it again", async () => {
    const heard = [];
    bus.on('log', ({ level, message, timestamp }) => {
      heard.push([level, message, timestamp]);
      tell(['log', { level: 'warn', message: 'by the listener' }]);
    });
    tell(['log', { level: 'warn', message: 'w', timestamp: 1_700_000_000_000 }]);
    expect(heard).toEqual([['warn', 'w', new Date(1_700_000_000_000)]]);
    expect(logged).toEqual([
      ['warn', 'by the listener'],
      ['warn', 'w'],
    ]);
  });

  test('nothing is thrown into the addon, whatever it says', () => {
    const got = [];
    bus.on('error', (error) => got.push(error.code));
    expect(() => {
      native.onLifecycle('not JSON');
      native.onPublished(Uint32Array.of(1), ['x'], 'not JSON');
      native.onSettled(new Uint32Array(), 'not JSON');
      native.onDeliveries(
        null,
        Uint32Array.from({ length: 13 }, () => 1),
        [],
      );
    }).not.toThrow();
  });
});

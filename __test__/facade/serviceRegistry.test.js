'use strict';
const { execFileSync } = require('node:child_process');
const { EventEmitter } = require('node:events');
const path = require('node:path');
const { fake, turns, until, OSSAError, ServiceRegistry } = require('./bus');

/** A registry and, once it was used, the fake below it. */
const made = [];
function make(config) {
  const before = fake.registries.length;
  const registry = new ServiceRegistry(config);
  made.push(registry);
  return {
    registry,
    get native() {
      return fake.registries[before];
    },
  };
}

/** One that was used. */
function used() {
  const { registry } = make();
  void registry.getAllServices();
  const native = fake.registries.at(-1);
  native.calls.length = 0;
  return { registry, native };
}

let errors;
beforeEach(() => {
  errors = jest.spyOn(console, 'error').mockImplementation(() => {});
});
afterEach(async () => {
  await Promise.all(made.splice(0).map((registry) => registry.close().catch(() => undefined)));
  errors.mockRestore();
});

const service = (over = {}) => ({ name: 's', endpoint: 'http://s', version: '1.0.0', capabilities: [], ...over });
const crossed = (over = {}) => ({
  ...service(),
  health: { status: 'healthy', lastCheck: 5, responseTime: 2 },
  registeredAt: 7,
  updatedAt: 9,
  ...over,
});
const revived = (over = {}) => ({
  ...service(),
  health: { status: 'healthy', lastCheck: new Date(5), responseTime: 2 },
  registeredAt: new Date(7),
  updatedAt: new Date(9),
  ...over,
});
const unreachable = { code: 'ERR_CONNECTION', message: 'no Redis', retryable: true };
const never = () => new Promise(() => {});

const METHODS = [
  ['register', [service()]],
  ['discover', []],
  ['health', ['s']],
  ['unregister', ['s']],
  ['updateService', ['s', {}]],
  ['startHealthMonitoring', []],
  ['getAllServices', []],
  ['getStats', []],
];

describe('connecting', () => {
  test('making one does nothing but resolve its configuration', () => {
    const { registry, native } = make({ serviceTtlSeconds: 5 });
    expect(native).toBeUndefined();
    expect(fake.resolved.at(-1)).toMatchObject({ kind: 'serviceRegistry', argument: { serviceTtlSeconds: 5 } });
    expect(registry).toBeInstanceOf(EventEmitter);
    registry.stopHealthMonitoring();
    expect(() => new ServiceRegistry({ nope: 1 })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_CONFIG' }));
  });

  test('the first call makes the registry of the engine; all share it', async () => {
    const it = make({ serviceTtlSeconds: 5 });
    await Promise.all([it.registry.discover(), it.registry.getAllServices()]);
    await it.registry.discover();
    expect(it.native.config).toEqual({ serviceTtlSeconds: 5 });
    expect(it.native.calls.map(([method]) => method)).toEqual(['discover', 'all', 'discover']);
    expect(it.native).toBe(fake.registries.at(-1));
  });

  test.each(['on', 'addListener', 'once', 'prependListener', 'prependOnceListener'])(
    'the first listener for services that %s adds connects, further ones and others do not',
    async (add) => {
      const it = make();
      it.registry.on('registry:error', () => {});
      it.registry.on('of my own', () => {});
      expect(it.native).toBeUndefined();
      it.registry[add]('service:expired', () => {});
      it.registry.on('service:registered', () => {});
      await turns();
      it.registry.removeAllListeners();
      it.registry.on('service:updated', () => {});
      await turns();
      expect(it.native.calls).toEqual([['open', {}]]);
    },
  );

  test("a failure in the background is told by 'registry:error'", async () => {
    const { registry, native } = used();
    native.answers.open = () => Promise.reject({ ...unreachable, retryable: false });
    const got = [];
    registry.on('registry:error', (error) => got.push(error));
    registry.on('service:expired', () => {});
    await turns();
    expect(got).toEqual([expect.any(OSSAError)]);
    expect(got[0]).toMatchObject({ code: 'ERR_CONNECTION', message: 'no Redis' });
    expect(errors).not.toHaveBeenCalled();
  });

  test('without a listener it is logged; it is tried again while somebody listens', async () => {
    const { registry, native } = used();
    let attempts = 0;
    native.answers.open = () => (++attempts < 2 ? Promise.reject(unreachable) : {});
    registry.on('service:expired', () => {});
    await turns();
    expect(errors.mock.calls).toEqual([['@bluefly/ossa: Service registry: no Redis']]);
    await until(() => attempts === 2);
    await turns();
    expect(errors).toHaveBeenCalledTimes(1);
  });

  test('nothing is tried again for nobody, nor once it is closed', async () => {
    const timers = jest.spyOn(require('../../dist/clock').systemClock, 'after');
    const pending = () => timers.mock.calls.filter(([ms]) => ms === 1000).length;
    const { registry, native } = used();
    native.answers.open = () => Promise.reject(unreachable);
    registry.on('service:expired', () => {});
    registry.removeAllListeners();
    await turns();
    expect(pending()).toBe(0);
    registry.on('service:expired', () => {});
    await turns();
    expect(pending()).toBe(1);
    await registry.close();
    expect(native.calls.filter(([method]) => method === 'open')).toHaveLength(2);
    timers.mockRestore();
  });

  test('a failed call may be repeated', async () => {
    const { registry, native } = used();
    native.answers.discover = () => Promise.reject(unreachable);
    const error = await registry.discover().catch((thrown) => thrown);
    expect(error).toBeInstanceOf(OSSAError);
    expect(error).toMatchObject({ code: 'ERR_CONNECTION', retryable: true });
    native.answers.discover = [];
    expect(await registry.discover()).toEqual([]);
  });
});

describe('calls', () => {
  test('cross with times as ms, and are answered with Dates', async () => {
    const { registry, native } = used();
    native.answers = { ...native.answers, register: crossed(), update: crossed(), discover: [crossed()], all: [crossed(), crossed()] };
    native.answers.health = { status: 'degraded', lastCheck: 3 };
    native.answers.unregister = true;
    native.answers.stats = { totalServices: 1, healthyServices: 1, unhealthyServices: 0, degradedServices: 0, unknownServices: 0 };
    const given = service({ health: { status: 'healthy', lastCheck: new Date(1) }, metadata: { tags: ['t'], environment: undefined } });
    const before = structuredClone(given);
    expect(await registry.register(given)).toEqual(revived());
    expect(given).toEqual(before);
    expect(await registry.updateService('s', { version: '2.0.0', health: { status: 'unknown', lastCheck: new Date(2) } })).toEqual(
      revived(),
    );
    expect(await registry.discover({ tags: ['t'], version: '^1' })).toEqual([revived()]);
    expect(await registry.discover(null)).toEqual([revived()]);
    expect(await registry.getAllServices()).toEqual([revived(), revived()]);
    expect(await registry.health('s')).toEqual({ status: 'degraded', lastCheck: new Date(3) });
    expect(await registry.unregister('s')).toBe(true);
    expect(await registry.getStats()).toEqual(native.answers.stats);
    expect(native.calls).toEqual([
      ['register', service({ health: { status: 'healthy', lastCheck: 1 }, metadata: { tags: ['t'] } })],
      ['update', { name: 's', updates: { version: '2.0.0', health: { status: 'unknown', lastCheck: 2 } } }],
      ['discover', { tags: ['t'], version: '^1' }],
      ['discover', {}],
      ['all', {}],
      ['health', { name: 's' }],
      ['unregister', { name: 's' }],
      ['stats', {}],
    ]);
  });

  test('what is not there is null', async () => {
    const { registry, native } = used();
    Object.assign(native.answers, { health: null, update: null, unregister: false });
    expect(await registry.health('s')).toBeNull();
    expect(await registry.updateService('s', {})).toBeNull();
    expect(await registry.unregister('s')).toBe(false);
  });

  test('a service that was discovered can be registered again', async () => {
    const { registry, native } = used();
    Object.assign(native.answers, { discover: [crossed()], register: crossed() });
    const [found] = await registry.discover();
    await registry.register(found);
    expect(native.calls.at(-1)).toEqual(['register', crossed()]);
  });

  test('what the engine refuses is an OSSAError with its path', async () => {
    const { registry, native } = used();
    const details = { path: 'service.endpoint' };
    native.answers.register = () => Promise.reject({ code: 'ERR_SERVICE_INVALID', message: 'm', retryable: false, details });
    const error = await registry.register(service()).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(OSSAError);
    expect(error).toMatchObject({ code: 'ERR_SERVICE_INVALID', details });
  });

  test('an answer that is none is ERR_INTERNAL', async () => {
    const { registry, native } = used();
    native.call = (id) => native.onAnswer(id, 'not JSON');
    await expect(registry.discover()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    native.call = () => {
      throw new Error('thrown');
    };
    await expect(registry.discover()).rejects.toMatchObject({ code: 'ERR_INTERNAL' });
    delete native.call;
  });

  test('answers go to their calls, in whatever order they come', async () => {
    const { registry, native } = used();
    const open = [];
    native.answers.health = ({ name }) => new Promise((resolve) => open.push(() => resolve({ status: name, lastCheck: 1 })));
    const asked = Promise.all(['a', 'b', 'c'].map((name) => registry.health(name)));
    for (const answer of open.reverse()) answer();
    expect((await asked).map(({ status }) => status)).toEqual(['a', 'b', 'c']);
  });
});

describe('what does not cross', () => {
  const circle = {};
  circle.self = circle;
  const throwing = (key) =>
    Object.defineProperty({}, key, {
      enumerable: true,
      get() {
        throw new Error('inner');
      },
    });
  const closedOff = new Proxy(
    {},
    {
      ownKeys() {
        throw new Error('inner');
      },
    },
  );
  const capability = (over) => service({ capabilities: [{ name: 'c', version: '1.0.0', ...over }] });

  test.each([
    ['service', () => undefined],
    ['service', () => null],
    ['service', () => 's'],
    ['service', () => []],
    ['service', () => new Date()],
    ['service', () => closedOff],
    ['service.name', () => ({ ...service(), name: 5n })],
    ['service.name', () => service({ name: '\ud800' })],
    ['service.endpoint', () => Object.assign(throwing('endpoint'), { name: 's' })],
    ['service.capabilities', () => service({ capabilities: new Map() })],
    ['service.capabilities[0].inputs.x', () => capability({ inputs: { x: () => 1 } })],
    ['service.capabilities[0].inputs.x', () => capability({ inputs: throwing('x') })],
    ['service.capabilities[0].inputs.self', () => capability({ inputs: circle })],
    ['service.capabilities[0].outputs["a b"][1]', () => capability({ outputs: { 'a b': [1, undefined] } })],
    ['service.capabilities[0].description', () => capability({ description: Symbol('x') })],
    ['service.health', () => service({ health: new Date() })],
    ['service.health.status', () => service({ health: throwing('status') })],
    ['service.health.lastCheck', () => service({ health: { status: 'healthy', lastCheck: new Date(NaN) } })],
    ['service.health.lastCheck', () => service({ health: { status: 'healthy', lastCheck: 5 } })],
    ['service.health.lastCheck', () => service({ health: { status: 'healthy', lastCheck: '1970-01-01' } })],
    ['service.health.responseTime', () => service({ health: { status: 'healthy', lastCheck: new Date(), responseTime: Infinity } })],
    ['service.health.details.at', () => service({ health: { status: 'healthy', lastCheck: new Date(), details: { at: new Date() } } })],
    ['service.metadata', () => service({ metadata: { '\udfff': 1 } })],
    ['service.metadata.tags[0]', () => service({ metadata: { tags: ['\ud800x'] } })],
    ['service.registeredAt', () => service({ registeredAt: new Date(NaN) })],
    ['service.updatedAt', () => service({ updatedAt: 5 })],
  ])('a service that is wrong at %s', async (where, make) => {
    const { registry, native } = used();
    const error = await registry.register(make()).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(OSSAError);
    expect(error).toMatchObject({ code: 'ERR_SERVICE_INVALID', details: { path: where } });
    expect(native.calls).toEqual([]);
  });

  test.each([
    ['updates', () => undefined],
    ['updates', () => 'x'],
    ['updates.version', () => ({ version: NaN })],
    ['updates.health.lastCheck', () => ({ health: { lastCheck: new Date(NaN) } })],
    ['updates.capabilities[1]', () => ({ capabilities: [{}, () => 1] })],
    ['updates.metadata.tags', () => ({ metadata: throwing('tags') })],
  ])('updates that are wrong at %s', async (where, make) => {
    const { registry, native } = used();
    await expect(registry.updateService('s', make())).rejects.toMatchObject({ code: 'ERR_SERVICE_INVALID', details: { path: where } });
    expect(native.calls).toEqual([]);
  });

  test.each([
    ['filter', () => 'x'],
    ['filter', () => []],
    ['filter.tags[0]', () => ({ tags: [1n] })],
    ['filter.namePattern', () => ({ namePattern: '\ud800' })],
    ['filter.version', () => throwing('version')],
  ])('a filter that is wrong at %s', async (argument, make) => {
    const { registry, native } = used();
    await expect(registry.discover(make())).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
    expect(native.calls).toEqual([]);
  });

  test.each([undefined, null, 5, {}, '\ud800'])('%p as a name', async (name) => {
    const { registry, native } = used();
    for (const call of [() => registry.health(name), () => registry.unregister(name), () => registry.updateService(name, {})]) {
      await expect(call()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument: 'serviceName' } });
    }
    expect(native.calls).toEqual([]);
  });

  test('keys that mean something to JavaScript are but keys', async () => {
    const { registry, native } = used();
    native.answers.register = crossed();
    await registry.register(JSON.parse('{"name":"s","__proto__":{"polluted":1},"metadata":{"__proto__":1}}'));
    expect(JSON.stringify(native.calls.at(-1)[1])).toBe('{"name":"s","__proto__":{"polluted":1},"metadata":{"__proto__":1}}');
    expect({}.polluted).toBeUndefined();
  });

  test('a getter is read once', async () => {
    const { registry, native } = used();
    native.answers.register = crossed();
    let reads = 0;
    const inputs = {
      get x() {
        return ++reads === 1 ? 'first' : () => 'later';
      },
    };
    await registry.register(capability({ inputs }));
    expect(native.calls[0][1].capabilities[0].inputs).toEqual({ x: 'first' });
  });
});

describe('events', () => {
  const NAMES = ['service:registered', 'service:updated', 'service:unregistered', 'service:expired'];

  test.each(NAMES)('%s gives the service, with Dates', async (name) => {
    const { registry, native } = used();
    const got = [];
    registry.on(name, (...args) => got.push(args));
    native.tell([name, crossed()], [name, crossed({ name: 't' })]);
    expect(got).toEqual([[revived()], [revived({ name: 't' })]]);
  });

  test('service:health:changed gives the change, with Dates within', () => {
    const { registry, native } = used();
    const got = [];
    registry.once('service:health:changed', (change) => got.push(change));
    const change = { name: 's', oldStatus: 'healthy', newStatus: 'unhealthy' };
    const health = { status: 'unhealthy', lastCheck: 5, error: 'e' };
    native.tell(['service:health:changed', { ...change, health, service: crossed({ health }) }]);
    native.tell(['service:health:changed', { ...change, health, service: crossed({ health }) }]);
    const later = { ...health, lastCheck: new Date(5) };
    expect(got).toEqual([{ ...change, health: later, service: revived({ health: later }) }]);
  });

  test("registry:error is an OSSAError; without a listener it is logged, never an uncaught 'error'", () => {
    const { registry, native } = used();
    native.tell(['registry:error', { ...unreachable, details: { x: 1 } }]);
    expect(errors.mock.calls).toEqual([['@bluefly/ossa: Service registry: no Redis']]);
    const got = [];
    registry.on('registry:error', (error) => got.push(error));
    native.tell(['registry:error', { ...unreachable, details: { x: 1 } }]);
    expect(got[0]).toBeInstanceOf(OSSAError);
    expect(got[0]).toMatchObject({ code: 'ERR_CONNECTION', retryable: true, details: { x: 1 } });
    expect(errors).toHaveBeenCalledTimes(1);
  });

  test('the log of the engine shows its warnings and errors', () => {
    const warnings = jest.spyOn(console, 'warn').mockImplementation(() => {});
    const { native } = used();
    native.tell(
      ['log', { level: 'info', message: 'i' }],
      ['log', { level: 'warn', message: 'w' }],
      ['log', { level: 'error', message: 'e' }],
    );
    expect(warnings.mock.calls).toEqual([['@bluefly/ossa: w']]);
    expect(errors.mock.calls).toEqual([['@bluefly/ossa: e']]);
    warnings.mockRestore();
  });

  test('a listener that throws or rejects breaks nothing', async () => {
    const { registry, native } = used();
    const got = [];
    registry.on('service:expired', () => {
      throw new Error('broke');
    });
    registry.on('service:expired', async () => {
      throw null;
    });
    registry.on('service:expired', () => got.push(1));
    registry.on('registry:error', () => {
      throw new Error('broke, too');
    });
    native.tell(['service:expired', crossed()], ['registry:error', unreachable], ['service:expired', crossed()]);
    await turns();
    expect(got).toEqual([1, 1]);
    expect(errors).toHaveBeenCalledTimes(5);
  });

  test('nothing is thrown into the addon, whatever it says', () => {
    const { registry, native } = used();
    const got = [];
    registry.on('registry:error', (error) => got.push(error.code));
    registry.on('service:expired', () => {});
    expect(() => {
      native.onLifecycle('not JSON');
      native.tell(['service:expired', null]);
      native.tell(['service:health:changed', {}]);
      native.onAnswer(77, '{}');
    }).not.toThrow();
    expect(got).toEqual(['ERR_INTERNAL', 'ERR_INTERNAL']);
  });
});

describe('health monitoring', () => {
  const asked = (native) => native.calls.filter(([method]) => method === 'monitor').map(([, { on }]) => on);

  test('starts once the engine says so, and stops at once', async () => {
    const { registry, native } = used();
    let started;
    native.answers.monitor = () => new Promise((resolve) => (started = () => resolve({})));
    let done = false;
    const starting = registry.startHealthMonitoring().then(() => (done = true));
    await turns();
    expect(done).toBe(false);
    started();
    await starting;
    expect(registry.stopHealthMonitoring()).toBeUndefined();
    await turns();
    started();
    expect(asked(native)).toEqual([true, false]);
  });

  test('what is asked last holds, however long what is before takes', async () => {
    const { registry, native } = used();
    const open = [];
    native.answers.monitor = () => new Promise((resolve) => open.push(() => resolve({})));
    const starting = registry.startHealthMonitoring();
    registry.stopHealthMonitoring();
    const again = registry.startHealthMonitoring();
    registry.stopHealthMonitoring();
    for (const expected of [[true], [true, false], [true, false, true], [true, false, true, false]]) {
      await turns();
      expect(asked(native)).toEqual(expected);
      open.shift()();
    }
    await Promise.all([starting, again]);
  });

  test('what was not started is not stopped', async () => {
    const { registry, native } = used();
    registry.stopHealthMonitoring();
    registry.stopHealthMonitoring();
    await turns();
    expect(native.calls).toEqual([]);
  });

  test("a start that fails rejects; a stop that fails is told by 'registry:error'", async () => {
    const { registry, native } = used();
    native.answers.monitor = () => Promise.reject(unreachable);
    await expect(registry.startHealthMonitoring()).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
    const got = [];
    registry.on('registry:error', (error) => got.push(error.code));
    registry.stopHealthMonitoring();
    await turns();
    expect(got).toEqual(['ERR_CONNECTION']);
  });
});

describe('close', () => {
  test('of one that was never used does nothing', async () => {
    const it = make();
    await it.registry.close();
    expect(it.native).toBeUndefined();
  });

  test('is asked of the engine once, and lets go of it then', async () => {
    const { registry, native } = used();
    await Promise.all([registry.close(), registry.close()]);
    await registry.close();
    await registry[Symbol.asyncDispose]();
    expect(native.calls).toEqual([['close', {}]]);
    expect(native.closed).toBe(true);
  });

  test.each(METHODS)('%s is ERR_CLOSED after it, and while it is under way', async (method, args) => {
    const { registry, native } = used();
    let end;
    native.answers.close = () => new Promise((resolve) => (end = () => resolve({})));
    const closing = registry.close();
    const refused = { code: 'ERR_CLOSED', message: expect.stringMatching(/close\(\).*make a new one/) };
    await expect(registry[method](...args)).rejects.toMatchObject(refused);
    await turns();
    end();
    await closing;
    await expect(registry[method](...args)).rejects.toMatchObject(refused);
    registry.stopHealthMonitoring();
    registry.on('service:expired', () => {});
    await turns();
    expect(native.calls).toEqual([['close', {}]]);
    expect(errors).not.toHaveBeenCalled();
  });

  test('calls on their way are answered, or rejected where the engine does not', async () => {
    const { registry, native } = used();
    let answer;
    native.answers.health = () => new Promise((resolve) => (answer = () => resolve({ status: 'healthy', lastCheck: 1 })));
    native.answers.stats = never;
    native.answers.close = () => {
      answer();
      return {};
    };
    const told = registry.health('s');
    const untold = registry.getStats().catch((error) => error.code);
    await registry.close();
    expect(await told).toMatchObject({ status: 'healthy' });
    expect(await untold).toBe('ERR_CLOSED');
  });

  test('a start of monitoring that waits is ERR_CLOSED', async () => {
    const { registry, native } = used();
    native.answers.monitor = never;
    const starting = registry.startHealthMonitoring().catch((error) => error.code);
    registry.stopHealthMonitoring();
    const waiting = registry.startHealthMonitoring().catch((error) => error.code);
    await turns();
    await registry.close();
    expect(await Promise.all([starting, waiting])).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
    await turns();
    expect(errors).not.toHaveBeenCalled();
  });

  test('while it connects in the background: no error of that reaches anybody', async () => {
    const { registry, native } = used();
    native.answers.open = never;
    registry.on('service:expired', () => {});
    await registry.close();
    await turns();
    expect(errors).not.toHaveBeenCalled();
    expect(native.closed).toBe(true);
  });

  test('that the engine cannot do rejects, and has ended everything nevertheless', async () => {
    const { registry, native } = used();
    native.answers.close = () => Promise.reject({ code: 'ERR_TIMEOUT', message: 'm', retryable: false });
    await expect(registry.close()).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(native.closed).toBe(true);
    await expect(registry.discover()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  test('from within a listener', async () => {
    const { registry, native } = used();
    let closing;
    registry.on('service:expired', () => (closing = registry.close()));
    native.tell(['service:expired', crossed()]);
    await closing;
    expect(native.closed).toBe(true);
  });
});

describe('keeping Node alive', () => {
  const run = (body, ...flags) =>
    execFileSync(
      process.execPath,
      [
        ...flags,
        '-e',
        `const { fake, turns, until, ServiceRegistry } = require(${JSON.stringify(path.join(__dirname, 'bus.js'))});
         (async () => { let registry = new ServiceRegistry(); const native = () => fake.registries[0]; ${body} })();`,
      ],
      { encoding: 'utf8', timeout: 10_000, env: { ...process.env, NODE_OPTIONS: '' } },
    );
  /** Timers that are unref'd fire only if something else keeps Node. */
  const later = "setTimeout(() => { console.log('kept'); process.exit(); }, 50).unref();";

  test.each([
    ['one that was made', ''],
    ['one that answered', 'await registry.discover();'],
    ["a listener for 'registry:error' or others", "registry.on('registry:error', () => {}); registry.on('mine', () => {});"],
    ['listeners that went', "registry.once('service:expired', () => {}); registry.removeAllListeners(); await turns();"],
    [
      'once() that was called',
      "registry.once('service:expired', () => {}); await turns(); native().tell(['service:expired', { health: {} }]);",
    ],
    ['monitoring that was stopped', 'await registry.startHealthMonitoring(); registry.stopHealthMonitoring(); await turns();'],
    ['monitoring that was stopped while it started', 'registry.startHealthMonitoring(); registry.stopHealthMonitoring(); await turns();'],
    [
      'one that was closed',
      "registry.on('service:expired', () => {}); await registry.startHealthMonitoring(); await registry.close(); registry.on('service:updated', () => {});",
    ],
    [
      'one that was closed while it connected again',
      "registry.on('service:expired', () => {}); native().answers.open = () => Promise.reject({ code: 'ERR_CONNECTION', message: 'm', retryable: true }); await turns(); await registry.close();",
    ],
  ])('%s does not', (_, body) => {
    expect(run(`console.error = () => {}; ${body} ${later}`)).toBe('');
  });

  test.each([
    ['a call on its way', 'await registry.discover(); native().answers.stats = () => new Promise(() => {}); registry.getStats();'],
    ['a listener for services', "registry.on('service:expired', () => {}); await turns();"],
    ['monitoring', 'await registry.startHealthMonitoring();'],
    ['a close on its way', 'await registry.discover(); native().answers.close = () => new Promise(() => {}); registry.close();'],
  ])('%s does', (_, body) => {
    expect(run(`${body} ${later}`)).toBe('kept\n');
  });

  test('one that nobody holds any more is collected, with what it left', () => {
    const body = `
      registry.on('registry:error', () => {});
      await registry.discover();
      const gone = new WeakRef(registry);
      registry = undefined;
      await until(() => { gc(); return gone.deref() === undefined; });
      native().tell(['registry:error', { code: 'ERR_REDIS', message: 'm', retryable: false }]);
      console.log('collected');`;
    expect(run(body, '--expose-gc')).toBe('collected\n');
  });

  test('one that somebody listens to, or that monitors, is not collected', () => {
    const body = (use) => `
      ${use}
      registry = undefined;
      for (let i = 0; i < 20; i++) { await turns(); gc(); }
      native().tell(['service:expired', { health: {} }]);
      process.exit();`;
    expect(run(body("registry.on('service:expired', () => console.log('heard')); await turns();"), '--expose-gc')).toBe('heard\n');
  });
});

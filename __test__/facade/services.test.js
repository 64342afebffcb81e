'use strict';
const { createOSSAEventBus, fake, OSSAEventBus, ServiceRegistry } = require('./bus');

const open = [];
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await (each.shutdown ?? each.close).call(each);
});
const registry = () => {
  const made = new ServiceRegistry();
  open.push(made);
  return made;
};
async function withRegistry(given = registry(), config) {
  const bus = await createOSSAEventBus(given, config);
  open.push(bus);
  const native = fake.buses.at(-1);
  native.calls.length = 0;
  return { bus, native };
}

const stats = { totalServices: 1, healthyServices: 1, unhealthyServices: 0, degradedServices: 0, unknownServices: 0 };
const route = { service: 's', group: 'g', patterns: ['a.*'], circuit: 'closed', paused: false, delivered: 1, failed: 0 };
const told = (over = {}) => ({
  connected: true,
  monitoring: true,
  registeredAs: 'me',
  services: stats,
  routes: [route],
  contracts: { registered: 0, refused: 0 },
  ...over,
});
const healthyBus = { status: 'healthy', redis: { connected: true }, lastHealthCheck: 5 };

describe('the registry that a bus was given', () => {
  test('is named by its handle, beside what the bus is to do with it, and not connected for that', async () => {
    const given = registry();
    const { native } = await withRegistry(given, { serviceRegistry: { autoRegister: false } });
    const below = fake.registries.at(-1);
    expect(native.config.serviceRegistry).toEqual({ enabled: true, autoRegister: false, healthMonitoring: true, handle: below.handle });
    expect(below.calls).toEqual([]);
    await given.discover();
    expect(fake.registries.at(-1)).toBe(below);
  });

  test('is used by several buses, and outlives them', async () => {
    const given = registry();
    const [one, other] = [await withRegistry(given), await withRegistry(given)];
    expect(one.native.config.serviceRegistry.handle).toBe(other.native.config.serviceRegistry.handle);
    await one.bus.shutdown();
    await other.bus.shutdown();
    expect(fake.registries.at(-1).calls).toEqual([]);
    expect(await given.discover()).toEqual([]);
  });

  test.each([
    ['none is given', () => [null, {}]],
    ['it is not to be used', () => [registry(), { serviceRegistry: { enabled: false } }]],
  ])('is not there where %s', async (_, make) => {
    const { bus, native } = await withRegistry(...make());
    native.answers.status = healthyBus;
    expect(native.config).not.toHaveProperty('serviceRegistry');
    expect(bus.getServiceRegistryIntegration()).toBeUndefined();
    expect(await bus.getStatus()).not.toHaveProperty('serviceRegistry');
    expect((await bus.healthCheck()).components).not.toHaveProperty('serviceRegistry');
  });

  test('is made when the bus is opened, not before', async () => {
    const before = fake.registries.length;
    const bus = new OSSAEventBus(registry());
    open.push(bus);
    expect(fake.registries).toHaveLength(before);
    await bus.initialize();
    expect(fake.registries).toHaveLength(before + 1);
  });

  test('may be closed when the bus is made, but not when it is opened', async () => {
    const given = registry();
    await given.close();
    const bus = new OSSAEventBus(given);
    await expect(bus.initialize()).rejects.toMatchObject({ code: 'ERR_CLOSED', message: expect.stringMatching(/ServiceRegistry/) });
    await bus.shutdown();
    await expect(createOSSAEventBus(given)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    const without = await createOSSAEventBus(given, { serviceRegistry: { enabled: false } });
    await without.shutdown();
  });

  test.each([
    [5],
    ['registry'],
    [{}],
    [{ eventBus: {} }],
    [[]],
    [{ discover() {} }],
    [ServiceRegistry],
    [ServiceRegistry.prototype],
    [() => 1],
  ])('%p in its place is refused', async (value) => {
    const refused = { code: 'ERR_INVALID_ARGUMENT', details: { argument: 'serviceRegistry' } };
    expect(() => new OSSAEventBus(value)).toThrow(expect.objectContaining(refused));
    await expect(createOSSAEventBus(value)).rejects.toMatchObject(refused);
  });

  test('of another copy of the package is taken if the native part is the same, and refused with what to do if not', async () => {
    const copy = (addon) => {
      let made;
      jest.isolateModules(() => {
        jest.doMock(require.resolve('./fakeAddon'), () => addon);
        made = new (require('../../dist').ServiceRegistry)();
      });
      open.push(made);
      return made;
    };
    expect(copy(fake)).not.toBeInstanceOf(ServiceRegistry);
    const { native } = await withRegistry(copy(fake));
    expect(native.config.serviceRegistry.handle).toBe(fake.registries.at(-1).handle);
    expect(() => new OSSAEventBus(copy({ ...fake }))).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARGUMENT',
        details: { argument: 'serviceRegistry' },
        message: expect.stringMatching(/another copy of @bluefly\/ossa.*npm ls/),
      }),
    );
  });
});

describe('getServiceRegistryIntegration()', () => {
  test('asks the engine', async () => {
    const { bus, native } = await withRegistry();
    const integration = bus.getServiceRegistryIntegration();
    expect(bus.getServiceRegistryIntegration()).toBe(integration);
    native.answers['services.status'] = told();
    native.answers['services.discoverContracts'] = { registered: 1, refused: [{ service: 's', contract: 'c', reason: 'r' }] };
    expect(await integration.getStatus()).toEqual(told());
    expect(await integration.discoverContracts()).toEqual(native.answers['services.discoverContracts']);
    await integration.discoverContracts('s');
    expect(native.calls).toEqual([
      ['services.status', {}],
      ['services.discoverContracts', {}],
      ['services.discoverContracts', { name: 's' }],
    ]);
  });

  test.each([5, {}, '\ud800'])('%p is no name of a service', async (name) => {
    const { bus, native } = await withRegistry();
    const refused = { code: 'ERR_INVALID_ARGUMENT', details: { argument: 'service' } };
    await expect(bus.getServiceRegistryIntegration().discoverContracts(name)).rejects.toMatchObject(refused);
    expect(native.calls).toEqual([]);
  });

  test('is there before initialize(), which has to come first', async () => {
    const bus = new OSSAEventBus(registry());
    open.push(bus);
    const integration = bus.getServiceRegistryIntegration();
    const calls = [() => integration.getStatus(), () => integration.discoverContracts()];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED' });
    await bus.shutdown();
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

describe('getStatus() and healthCheck()', () => {
  test('tell of services', async () => {
    const { bus, native } = await withRegistry();
    native.answers.status = healthyBus;
    native.answers['services.status'] = told();
    expect((await bus.getStatus()).serviceRegistry).toEqual(told());
    expect(await bus.healthCheck()).toMatchObject({
      status: 'healthy',
      components: { eventBus: { status: 'healthy' }, serviceRegistry: { status: 'healthy', details: told() } },
    });
  });

  test('also where the Redis of the bus is away', async () => {
    const { bus, native } = await withRegistry();
    native.answers.status = { ...healthyBus, status: 'unhealthy', redis: { connected: false } };
    native.answers['services.status'] = told();
    expect((await bus.getStatus()).serviceRegistry).toEqual(told());
    expect(await bus.healthCheck()).toMatchObject({ status: 'unhealthy', components: { serviceRegistry: { status: 'healthy' } } });
  });

  test('a status that cannot be had is left out of the one, and unhealthy in the other', async () => {
    const { bus, native } = await withRegistry();
    native.answers.status = healthyBus;
    expect(await bus.getStatus()).not.toHaveProperty('serviceRegistry');
    expect((await bus.healthCheck()).components.serviceRegistry).toEqual({
      status: 'unhealthy',
      details: { code: 'ERR_DISABLED', error: 'services.status is not there' },
    });
  });

  const status = async (over, eventBus = 'healthy') => {
    const { bus, native } = await withRegistry();
    native.answers.status = { ...healthyBus, status: eventBus };
    native.answers['services.status'] = told(over);
    const health = await bus.healthCheck();
    return [health.components.serviceRegistry.status, health.status];
  };

  test.each([
    ['no services', { services: { ...stats, totalServices: 0, healthyServices: 0 }, routes: [] }, 'healthy'],
    ['an unknown service', { services: { ...stats, unknownServices: 1 } }, 'healthy'],
    ['an unhealthy service', { services: { ...stats, unhealthyServices: 1 } }, 'degraded'],
    ['a degraded service', { services: { ...stats, degradedServices: 1 } }, 'degraded'],
    ['an open circuit', { routes: [route, { ...route, circuit: 'open' }] }, 'degraded'],
    ['a circuit that is tried', { routes: [{ ...route, circuit: 'half-open' }] }, 'degraded'],
    ['another problem', { problem: 'p' }, 'degraded'],
    ['a registry out of reach', { connected: false }, 'unhealthy'],
  ])('%s', async (_, over, expected) => {
    // Without its registry the bus still works.
    const overall = expected === 'unhealthy' ? 'degraded' : expected;
    expect(await status(over)).toEqual([expected, overall]);
    expect(await status(over, 'degraded')).toEqual([expected, 'degraded']);
    expect(await status(over, 'unhealthy')).toEqual([expected, 'unhealthy']);
  });

  test('healthCheck() before initialize() and after shutdown(): both are unhealthy', async () => {
    const bus = new OSSAEventBus(registry());
    const unhealthy = (code) => ({ status: 'unhealthy', details: { code } });
    const all = (code) => ({ status: 'unhealthy', components: { eventBus: unhealthy(code), serviceRegistry: unhealthy(code) } });
    expect(await bus.healthCheck()).toMatchObject(all('ERR_NOT_INITIALIZED'));
    await bus.initialize();
    await bus.shutdown();
    expect(await bus.healthCheck()).toMatchObject(all('ERR_CLOSED'));
  });
});

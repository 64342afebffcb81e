/** The register of services. */
import { EventEmitter } from 'node:events';
import {
  DEFAULT_SERVICE_REGISTRY_CONFIG,
  type ServiceDiscoveryFilter,
  ServiceHealthStatus,
  type ServiceRegistration,
  ServiceRegistry,
} from '@bluefly/ossa/services/ServiceRegistry';
import Redis from 'ioredis';
import { heard, useRegistries } from './support/registries';
import { freePort, TestServer } from './support/server';
import { until, within } from './support/wait';
import { freshPrefix, redisUrl, refusal, storesWithCluster } from './support/world';

const service = (over: Partial<ServiceRegistration> = {}): ServiceRegistration => ({
  name: 'images',
  endpoint: 'https://images.example:8443/api',
  version: '1.2.3',
  capabilities: [{ name: 'resize', version: '1.0.0', inputs: { width: { type: 'number' } }, outputs: {}, description: 'd' }],
  ...over,
});

const calls: Array<[string, (registry: ServiceRegistry) => unknown]> = [
  ['register', (registry) => registry.register(service())],
  ['discover', (registry) => registry.discover()],
  ['health', (registry) => registry.health('s')],
  ['unregister', (registry) => registry.unregister('s')],
  ['updateService', (registry) => registry.updateService('s', {})],
  ['startHealthMonitoring', (registry) => registry.startHealthMonitoring()],
  ['getAllServices', (registry) => registry.getAllServices()],
  ['getStats', (registry) => registry.getStats()],
];

/** What a registry tells another one of the same store is there within this. */
const TOLD_MS = 1000;

describe.each(storesWithCluster)('on %s', (kind) => {
  const registries = useRegistries(kind);
  const make = (...args: Parameters<ReturnType<typeof registries>['make']>) => registries().make(...args);

  describe('register', () => {
    test('answers the service as it is registered, and every registry of the store finds it', async () => {
      const [one, other] = [make(), make()];
      const before = Date.now();
      const health = { status: 'degraded' as const, lastCheck: new Date(5), responseTime: 7, details: { queue: [1, null] }, error: 'e' };
      const metadata = {
        description: 'd',
        tags: ['t'],
        author: 'a',
        documentation: 'http://d',
        environment: 'prod',
        healthPath: '/up',
        eventsPath: '/in',
      };
      const registered = await one.register(service({ health, metadata }));
      expect(registered).toEqual({ ...service({ health, metadata }), registeredAt: expect.any(Date), updatedAt: expect.any(Date) });
      expect(registered.health.lastCheck).toBeInstanceOf(Date);
      expect(Math.abs(registered.registeredAt.getTime() - before)).toBeLessThan(60_000);
      expect(await other.getAllServices()).toEqual([registered]);
      expect(await other.discover()).toEqual([registered]);
      expect(await other.health('images')).toEqual(health);
    });

    test('without health it is unknown', async () => {
      const { health } = await make().register(service());
      expect(health).toEqual({ status: 'unknown', lastCheck: expect.any(Date) });
    });

    test('a service that was discovered can be registered again; one of the same name is replaced', async () => {
      const registry = make();
      await registry.register(service());
      const [found] = await registry.discover();
      await registry.register({ ...found, version: '2.0.0' });
      expect((await registry.getAllServices()).map(({ version }) => version)).toEqual(['2.0.0']);
    });

    test('many at once are all there', async () => {
      const registry = make();
      const names = Array.from({ length: 50 }, (_, n) => `s-${n}`);
      await Promise.all(names.map((name) => registry.register(service({ name }))));
      expect((await registry.getAllServices()).map(({ name }) => name).sort()).toEqual([...names].sort());
    });

    test.each<[string, unknown]>([
      ['the shortest and oddest names', { name: 'a', capabilities: [{ name: 'A-Z_0.9:/x', version: '0.0.1-rc.1+build' }] }],
      ['a long name', { name: 'n'.repeat(128) }],
      ['no capabilities', { capabilities: [] }],
      ['100 capabilities', { capabilities: Array.from({ length: 100 }, (_, n) => ({ name: `c${n}`, version: '1.0.0' })) }],
      ['an endpoint of another scheme', { endpoint: 'grpc+tls://[::1]:50051' }],
      ['a long endpoint', { endpoint: `http://h/${'x'.repeat(2048 - 9)}` }],
      ['empty metadata', { metadata: {} }],
      ['long metadata', { metadata: { description: 'd'.repeat(4096), tags: ['t'.repeat(256)], environment: 'e'.repeat(128) } }],
    ])('%s are right', async (_, over) => {
      const given = service(over as Partial<ServiceRegistration>);
      expect(await make().register(given)).toMatchObject(given);
    });

    const health = (over: object) => ({ health: { status: 'healthy', lastCheck: new Date(), ...over } });
    const capability = (over: object) => ({
      capabilities: [
        { name: 'c', version: '1.0.0' },
        { name: 'c2', version: '1.0.0', ...over },
      ],
    });
    test.each<[string, unknown]>([
      ['service.name', { name: undefined }],
      ['service.name', { name: '' }],
      ['service.name', { name: 'a b' }],
      ['service.name', { name: 'ä' }],
      ['service.name', { name: 'n'.repeat(129) }],
      ['service.name', { name: 5 }],
      ['service.endpoint', { endpoint: undefined }],
      ['service.endpoint', { endpoint: 'images:8443' }],
      ['service.endpoint', { endpoint: '/api' }],
      ['service.endpoint', { endpoint: 'http://' }],
      ['service.endpoint', { endpoint: 'http://user:hunter2@h' }],
      ['service.endpoint', { endpoint: `http://h/${'x'.repeat(2048)}` }],
      ['service.version', { version: undefined }],
      ['service.version', { version: '1.2' }],
      ['service.version', { version: 'v1.2.3' }],
      ['service.capabilities', { capabilities: undefined }],
      ['service.capabilities', { capabilities: {} }],
      ['service.capabilities', { capabilities: Array.from({ length: 101 }, (_, n) => ({ name: `c${n}`, version: '1.0.0' })) }],
      ['service.capabilities[0]', { capabilities: ['resize'] }],
      ['service.capabilities[1].name', capability({ name: 'a b' })],
      ['service.capabilities[1].version', capability({ version: '1' })],
      ['service.capabilities[1].inputs', capability({ inputs: [] })],
      ['service.capabilities[1].outputs', capability({ outputs: 'x' })],
      ['service.capabilities[1].description', capability({ description: 'x'.repeat(4097) })],
      ['service.capabilities[1].nope', capability({ nope: 1 })],
      ['service.health', { health: 'healthy' }],
      ['service.health.status', health({ status: 'fine' })],
      ['service.health.responseTime', health({ responseTime: -1 })],
      ['service.health.details', health({ details: 'x' })],
      ['service.health.error', health({ error: 5 })],
      ['service.health.nope', health({ nope: 1 })],
      ['service.metadata', { metadata: [] }],
      ['service.metadata.description', { metadata: { description: 'x'.repeat(4097) } }],
      ['service.metadata.author', { metadata: { author: 5 } }],
      ['service.metadata.tags', { metadata: { tags: 't' } }],
      ['service.metadata.tags', { metadata: { tags: Array(101).fill('t') } }],
      ['service.metadata.tags[1]', { metadata: { tags: ['t', 'x'.repeat(257)] } }],
      ['service.metadata.environment', { metadata: { environment: 'x'.repeat(129) } }],
      ['service.metadata.healthPath', { metadata: { healthPath: 'health' } }],
      ['service.metadata.eventsPath', { metadata: { eventsPath: `/${'x'.repeat(1024)}` } }],
      ['service.metadata.nope', { metadata: { nope: 1 } }],
      ['service.nope', { nope: 1 }],
      ['service', { capabilities: [{ name: 'c', version: '1.0.0', inputs: { x: 'y'.repeat(64 * 1024) } }] }],
      // What cannot cross has the same code and path.
      ['service.capabilities[1].inputs.x', capability({ inputs: { x: () => 1 } })],
      ['service.health.lastCheck', health({ lastCheck: new Date(NaN) })],
    ])('what is wrong at %s is refused and not registered: %j', async (path, over) => {
      const registry = make();
      const error = await refusal('ERR_SERVICE_INVALID', () => registry.register({ ...service(), ...(over as object) }));
      expect(error.details).toMatchObject({ path });
      expect(error.message).toContain(path);
      expect(error.message).not.toContain('hunter2');
      expect(await registry.getAllServices()).toEqual([]);
    });
  });

  describe('updateService', () => {
    test('metadata is merged key by key, everything else replaced as a whole', async () => {
      const registry = make();
      const health = { status: 'healthy' as const, lastCheck: new Date(5), details: { a: 1 } };
      const before = await registry.register(service({ health, metadata: { author: 'a', tags: ['t', 'u'], environment: 'prod' } }));
      const updates = {
        version: '2.0.0',
        endpoint: 'http://other',
        capabilities: [{ name: 'crop', version: '0.1.0' }],
        health: { status: 'maintenance' as const, lastCheck: new Date(9) },
        metadata: { tags: ['v'], description: 'd' },
      };
      const after = await registry.updateService('images', updates);
      expect(after).toEqual({
        ...before,
        ...updates,
        metadata: { author: 'a', environment: 'prod', tags: ['v'], description: 'd' },
        updatedAt: expect.any(Date),
      });
      expect(after?.updatedAt.getTime()).toBeGreaterThanOrEqual(before.updatedAt.getTime());
      expect(await make().getAllServices()).toEqual([after]);
    });

    test('of what is not there is null', async () => {
      expect(await make().updateService('images', { version: '2.0.0' })).toBeNull();
    });

    test('by several at once loses none of them', async () => {
      const all = [make(), make(), make()];
      await all[0].register(service({ metadata: { author: 'a' } }));
      await Promise.all([
        all[0].updateService('images', { metadata: { description: 'd' } }),
        all[1].updateService('images', { metadata: { environment: 'e' } }),
        all[2].updateService('images', { version: '3.0.0' }),
      ]);
      const [found] = await all[1].discover();
      expect(found).toMatchObject({ version: '3.0.0', metadata: { author: 'a', description: 'd', environment: 'e' } });
    });

    test.each<[string, unknown]>([
      ['updates.name', { name: 'other' }],
      ['updates.registeredAt', { registeredAt: new Date() }],
      ['updates.updatedAt', { updatedAt: new Date() }],
      ['updates.version', { version: 'two' }],
      ['updates.version', { version: null }],
      ['updates.metadata', { metadata: null }],
      ['updates.metadata.tags', { metadata: { tags: null } }],
      ['updates.metadata.healthPath', { metadata: { healthPath: 'x' } }],
      ['updates.capabilities[0].version', { capabilities: [{ name: 'c', version: 'x' }] }],
      ['updates.health.status', { health: { status: 'fine', lastCheck: new Date() } }],
      ['updates.nope', { nope: 1 }],
      ['updates', 5],
    ])('what is wrong at %s is refused and changes nothing: %j', async (path, updates) => {
      const registry = make();
      const before = await registry.register(service());
      const error = await refusal('ERR_SERVICE_INVALID', () => registry.updateService('images', updates as object));
      expect(error.details).toMatchObject({ path });
      expect(await registry.getAllServices()).toEqual([before]);
    });
  });

  test('unregister says whether it was there, whoever registered it', async () => {
    const [one, other] = [make(), make()];
    await one.register(service());
    expect(await other.unregister('images')).toBe(true);
    expect(await one.unregister('images')).toBe(false);
    expect(await one.getAllServices()).toEqual([]);
    expect(await one.health('images')).toBeNull();
  });

  test.each<[string, unknown]>([
    ['health', ''],
    ['health', 'a b'],
    ['unregister', 'n'.repeat(129)],
    ['unregister', undefined],
    ['updateService', 5],
  ])('%s(%p): no name is ERR_INVALID_ARGUMENT', async (method, name) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => (make() as any)[method](name, {}));
    expect(error.details).toMatchObject({ argument: 'serviceName' });
  });

  describe('discover', () => {
    const at = { lastCheck: new Date() };
    const all: ServiceRegistration[] = [
      service({
        name: 'image-resize',
        version: '1.0.0',
        health: { status: 'healthy', ...at },
        metadata: { tags: ['gpu', 'eu'], environment: 'prod' },
      }),
      service({
        name: 'image-crop',
        version: '1.4.2',
        health: { status: 'degraded', ...at },
        metadata: { tags: ['eu'], environment: 'test' },
      }),
      service({
        name: 'mail',
        version: '2.0.0-rc.1',
        capabilities: [{ name: 'send', version: '1.0.0' }],
        health: { status: 'healthy', ...at },
      }),
      service({ name: 'maps', version: '0.3.0', capabilities: [], metadata: { tags: ['gpu'], environment: 'prod' } }),
    ];

    test.each<[ServiceDiscoveryFilter, string[]]>([
      [{}, ['image-crop', 'image-resize', 'mail', 'maps']],
      [{ namePattern: 'image-*' }, ['image-crop', 'image-resize']],
      [{ namePattern: 'ma??' }, ['mail', 'maps']],
      [{ namePattern: 'ma[ip]*' }, ['mail', 'maps']],
      [{ namePattern: '{maps,image-crop}' }, ['image-crop', 'maps']],
      [{ namePattern: 'image' }, []],
      [{ capability: 'resize' }, ['image-crop', 'image-resize']],
      [{ capability: 'Resize' }, []],
      [{ healthStatus: ServiceHealthStatus.HEALTHY }, ['image-resize', 'mail']],
      [{ healthStatus: ServiceHealthStatus.UNKNOWN }, ['maps']],
      [{ healthStatus: ServiceHealthStatus.MAINTENANCE }, []],
      [{ tags: ['gpu'] }, ['image-resize', 'maps']],
      [{ tags: ['gpu', 'eu'] }, ['image-crop', 'image-resize', 'maps']],
      [{ tags: ['GPU'] }, []],
      [{ version: '^1.0.0' }, ['image-crop', 'image-resize']],
      [{ version: '>=1.4 || ~0.3' }, ['image-crop', 'maps']],
      [{ version: '1.x' }, ['image-crop', 'image-resize']],
      [{ version: '>=2.0.0-rc.0' }, ['mail']],
      [{ version: '>=1.9' }, []],
      [{ version: '*' }, ['image-crop', 'image-resize', 'maps']],
      [{ environment: 'prod' }, ['image-resize', 'maps']],
      [{ environment: 'pro' }, []],
      [{ namePattern: 'image-*', environment: 'prod' }, ['image-resize']],
      [{ capability: 'resize', tags: ['eu'], version: '>1.0', healthStatus: ServiceHealthStatus.DEGRADED }, ['image-crop']],
      [
        {
          ...{ namePattern: '*', capability: 'resize', healthStatus: ServiceHealthStatus.HEALTHY },
          ...{ tags: ['gpu'], version: '1', environment: 'prod' },
        },
        ['image-resize'],
      ],
      [{ environment: 'prod', tags: ['gpu'], capability: 'send' }, []],
    ])('%j finds %j', async (filter, expected) => {
      const registry = make();
      await Promise.all(all.map((each) => registry.register(each)));
      expect((await registry.discover(filter)).map(({ name }) => name).sort()).toEqual(expected);
    });

    test.each<[string, unknown]>([
      ['filter', 'image-*'],
      ['filter.nope', { nope: 1 }],
      ['filter.namePattern', { namePattern: 5 }],
      ['filter.capability', { capability: ['resize'] }],
      ['filter.healthStatus', { healthStatus: 'fine' }],
      ['filter.tags', { tags: 'gpu' }],
      ['filter.tags[0]', { tags: [5] }],
      ['filter.version', { version: 'one' }],
      ['filter.environment', { environment: 5 }],
    ])('what is wrong at %s is refused: %j', async (argument, filter) => {
      const error = await refusal('ERR_INVALID_ARGUMENT', () => make().discover(filter as object));
      expect(error.details).toMatchObject({ argument });
    });
  });

  test('getStats counts services by how they are', async () => {
    const registry = make();
    const none = {
      totalServices: 0,
      healthyServices: 0,
      unhealthyServices: 0,
      degradedServices: 0,
      unknownServices: 0,
      maintenanceServices: 0,
    };
    expect(await registry.getStats()).toEqual(none);
    for (const status of ['healthy', 'healthy', 'unhealthy', 'degraded', 'unknown', 'maintenance'] as const) {
      const name = `s-${(await registry.getStats()).totalServices}`;
      await registry.register(service({ name, health: { status, lastCheck: new Date() } }));
    }
    expect(await make().getStats()).toEqual({
      totalServices: 6,
      healthyServices: 2,
      unhealthyServices: 1,
      degradedServices: 1,
      unknownServices: 1,
      maintenanceServices: 1,
    });
  });

  describe('events', () => {
    test('what one registry does is told to the others, once each, and soon', async () => {
      const [acting, listening] = [make(), make()];
      const told = heard(listening, 'service:registered', 'service:updated', 'service:unregistered', 'registry:error');
      // It listens once it is connected.
      await listening.discover();
      const registered = await acting.register(service());
      await until(() => told.length === 1, { timeoutMs: TOLD_MS, show: () => told });
      const updated = await acting.updateService('images', { version: '2.0.0' });
      await until(() => told.length === 2, { timeoutMs: TOLD_MS, show: () => told });
      await acting.unregister('images');
      await until(() => told.length === 3, { timeoutMs: TOLD_MS, show: () => told });
      expect(told).toEqual([
        ['service:registered', registered],
        ['service:updated', updated],
        ['service:unregistered', updated],
      ]);
      expect(told[0][1].health.lastCheck).toBeInstanceOf(Date);
    });

    test('the one that acts hears it as well', async () => {
      const registry = make();
      const told = heard(registry, 'service:registered');
      await registry.register(service());
      await until(() => told.length === 1, { timeoutMs: TOLD_MS });
    });

    test('a service that nobody renews expires', async () => {
      const [gone, listening] = [make({ serviceTtlSeconds: 1 }), make()];
      const told = heard(listening, 'service:expired', 'service:unregistered');
      await listening.discover();
      await gone.register(service());
      await gone.close();
      await until(() => told.length === 1, { show: () => told });
      expect(told).toEqual([['service:expired', expect.objectContaining({ name: 'images', registeredAt: expect.any(Date) })]]);
      expect(await listening.getAllServices()).toEqual([]);
    });

    test('a service is renewed while its registry is open', async () => {
      const [owner, listening] = [make({ serviceTtlSeconds: 1 }), make()];
      const told = heard(listening, 'service:expired', 'service:registered');
      await owner.register(service());
      // Another one that is not renewed marks the time.
      const other = make({ serviceTtlSeconds: 3 });
      await other.register(service({ name: 'mark' }));
      await other.close();
      await until(() => told.some(([event, { name }]) => event === 'service:expired' && name === 'mark'), { show: () => told });
      expect((await listening.getAllServices()).map(({ name }) => name)).toEqual(['images']);
    });
  });

  describe('health monitoring', () => {
    const quick = { healthCheck: { intervalMs: 50, timeoutMs: 2000, failureThreshold: 2, successThreshold: 2 } };

    test('finds out how services are, and tells every registry when that changes', async () => {
      let status = 200;
      const { endpoint, asked } = await registries().service(() => ({ status }));
      const [watching, listening] = [make(quick), make()];
      const changes = heard(listening, 'service:health:changed');
      await listening.discover();
      await watching.register(service({ endpoint }));
      await watching.startHealthMonitoring();
      await until(() => changes.length === 1, { show: () => changes });
      status = 500;
      await until(() => changes.length === 2, { show: () => changes });
      expect(changes.map(([, { name, oldStatus, newStatus }]) => [name, oldStatus, newStatus])).toEqual([
        ['images', 'unknown', 'healthy'],
        ['images', 'healthy', 'unhealthy'],
      ]);
      const [, { health, service: told }] = changes[1];
      expect(health).toMatchObject({ status: 'unhealthy', lastCheck: expect.any(Date), error: expect.any(String) });
      expect(told).toMatchObject({ name: 'images', health: { status: 'unhealthy', lastCheck: expect.any(Date) } });
      expect(await listening.health('images')).toMatchObject({ status: 'unhealthy' });
      expect((await listening.getStats()).unhealthyServices).toBe(1);
      expect(new Set(asked)).toEqual(new Set(['/health']));
    });

    test('asks at healthPath, and nowhere any more once nobody monitors', async () => {
      const { endpoint, asked } = await registries().service(() => ({ status: 200 }));
      const [registry, other] = [make(quick), make(quick)];
      await registry.register(service({ endpoint, metadata: { healthPath: '/up' } }));
      await registry.startHealthMonitoring();
      await until(() => asked.length > 2);
      expect(new Set(asked)).toEqual(new Set(['/up']));
      registry.stopHealthMonitoring();
      // What is on its way may still come; then there is silence for four times the interval.
      let last = -1;
      await until(() => last === (last = asked.length), { everyMs: 200 });
      // Services are looked after by whoever monitors.
      await other.startHealthMonitoring();
      await until(() => asked.length > last);
    });

    test('may be started and stopped at will', async () => {
      const registry = make(quick);
      registry.stopHealthMonitoring();
      const starting = registry.startHealthMonitoring();
      registry.stopHealthMonitoring();
      await starting;
      await Promise.all([registry.startHealthMonitoring(), registry.startHealthMonitoring()]);
      registry.stopHealthMonitoring();
      registry.stopHealthMonitoring();
    });
  });

  describe('close', () => {
    test.each(calls)('%s after it is ERR_CLOSED', async (_, call) => {
      const registry = make();
      await registry.discover();
      await registry.close();
      expect((await refusal('ERR_CLOSED', () => call(registry))).message).toMatch(/make a new one/);
    });

    test('is idempotent, in whatever state it is', async () => {
      const [unused, connecting, open] = [make(), make(), make()];
      const asked = connecting.discover().catch((error) => error.code);
      await open.register(service());
      await open.startHealthMonitoring();
      open.on('service:expired', () => undefined);
      for (const registry of [unused, connecting, open]) {
        await within(10_000, 'close()', Promise.all([registry.close(), registry.close()]));
        await registry[Symbol.asyncDispose]();
      }
      expect(await asked).toEqual(expect.anything());
    });

    test('others of the store go on', async () => {
      const [one, other] = [make(), make()];
      await one.register(service());
      await one.close();
      await other.register(service({ name: 'other' }));
      expect((await other.discover({ namePattern: 'other' })).length).toBe(1);
    });
  });
});

describe('without a server', () => {
  const ends: Array<() => unknown> = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });
  const make = (port: number, keyPrefix = freshPrefix()) => {
    const registry = new ServiceRegistry({ redis: { host: '127.0.0.1', port, keyPrefix, connectTimeoutMs: 500 }, logLevel: 'error' });
    ends.push(() => registry.close());
    return registry;
  };

  test.each(calls)('%s is ERR_CONNECTION, and making one is not', async (_, call) => {
    const registry = make(await freePort());
    const error = await refusal('ERR_CONNECTION', () => call(registry));
    expect(error.retryable).toBe(true);
  });

  test("a listener gets 'registry:error', and what it is there for once there is a server", async () => {
    const server = await TestServer.start();
    ends.push(() => server.stop());
    await server.kill();
    const keyPrefix = freshPrefix();
    const [listening, acting] = [make(server.port, keyPrefix), make(server.port, keyPrefix)];
    const told = heard(listening, 'service:registered', 'registry:error');
    await until(() => told.length > 0);
    expect(told[0]).toEqual(['registry:error', expect.objectContaining({ name: 'OSSAError', code: 'ERR_CONNECTION' })]);
    await server.start();
    let registered = 0;
    await until(async () => {
      // A new one each time: what is there already when the listener connects is no news.
      await acting.register(service({ name: `late-${registered++}` }));
      return told.some(([event]) => event === 'service:registered');
    });
  });

  test('calls succeed again after the server came back', async () => {
    const server = await TestServer.start();
    ends.push(() => server.stop());
    const registry = make(server.port);
    await registry.register(service());
    await server.kill();
    await server.start();
    await until(() =>
      registry.register(service()).then(
        () => true,
        () => false,
      ),
    );
    expect((await registry.getAllServices()).map(({ name }) => name)).toEqual(['images']);
  });

  test('close has a deadline', async () => {
    const server = await TestServer.start();
    ends.push(() => server.stop());
    const registry = make(server.port);
    await registry.register(service());
    await registry.startHealthMonitoring();
    server.pause();
    await within(20_000, 'close()', registry.close());
    server.resume();
  });
});

test('two registries of one process with other prefixes know nothing of each other', async () => {
  const [one, other] = ['a', 'b'].map((name) => new ServiceRegistry({ redis: { url: redisUrl(), keyPrefix: `${freshPrefix()}:${name}` } }));
  await one.register(service());
  expect(await other.getAllServices()).toEqual([]);
  await Promise.all([one.close(), other.close()]);
});

test('a memory:// registry without a name is its own', async () => {
  const [one, other] = [new ServiceRegistry({ redis: { url: 'memory://' } }), new ServiceRegistry({ redis: { url: 'memory://' } })];
  await one.register(service());
  expect(await other.getAllServices()).toEqual([]);
  await Promise.all([one.close(), other.close()]);
});

test('a client is taken for its settings, and left alone', async () => {
  const client = new Redis(redisUrl(), { lazyConnect: true, db: 1 });
  const keyPrefix = freshPrefix();
  const registry = new ServiceRegistry({ redis: { keyPrefix } }, client);
  await registry.register(service());
  expect(client.status).toBe('wait');
  expect((await client.keys(`${keyPrefix}*`)).length).toBeGreaterThan(0);
  client.disconnect();
  await registry.close();
  expect(registry).toBeInstanceOf(EventEmitter);
});

test('its defaults name a Redis and the times of health checks', () => {
  expect(DEFAULT_SERVICE_REGISTRY_CONFIG).toMatchObject({
    redis: { host: 'localhost', port: 6379 },
    healthCheck: { intervalMs: expect.any(Number), timeoutMs: expect.any(Number), failureThreshold: expect.any(Number) },
    serviceTtlSeconds: expect.any(Number),
  });
});

test.each([
  ['redis.port', 0],
  ['redis.hots', 'localhost'],
  ['healthCheck.intervalMs', -1],
  ['healthCheck.timeoutMs', 'long'],
  ['healthCheck.failureThreshold', 0],
  ['healthCheck.successThreshold', 1.5],
  ['serviceTtlSeconds', 0],
  ['ttl', 5],
])('the configuration %s: %p is refused with its path', async (path, value) => {
  const config = path.split('.').reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
  const error = await refusal('ERR_INVALID_CONFIG', () => new ServiceRegistry(config as any));
  expect(error.details).toMatchObject({ path });
});

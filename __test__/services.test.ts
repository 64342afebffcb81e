/** What a bus does with a service registry: it is listed there, tells what happens to services, and hears how they are. */
import type { OSSAEventBus, ServiceRegistry } from '@bluefly/ossa';
import { freePort } from './support/server';
import { handles, routed, service, statusOf, useServices } from './support/services';
import { until, within } from './support/wait';
import { refusal, storesWithCluster } from './support/world';

const BUS = 'ossa-event-bus';

/** Data that the built-in type of an event does not have. */
const raw = (data: unknown): any => data;

/** What the bus publishes of a type from now on. */
async function told(bus: OSSAEventBus, type: string): Promise<any[]> {
  const events: any[] = [];
  await bus.subscribe(type, (event) => void events.push(event.data), { group: 'listeners', startFrom: 'beginning' });
  return events;
}

/** The events of the type that are stored. */
async function stored(bus: OSSAEventBus, type: string): Promise<number> {
  return (await bus.getStream(type))?.stats.messageCount ?? 0;
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const services = useServices(kind);

  describe('the bus is a service', () => {
    const listed = async (registry: ServiceRegistry) => (await registry.discover({ namePattern: BUS }))[0];

    test('with its endpoint, without credentials, and healthy', async () => {
      const registry = services.registry();
      const bus = await services.bus({}, registry);
      const found = await listed(registry);
      expect(found).toMatchObject({ name: BUS, version: expect.stringMatching(/^\d+\.\d+\.\d+/), health: { status: 'healthy' } });
      expect(found.endpoint).toMatch(kind === 'memory' ? /^memory:\/\// : /^redis(\+cluster)?:\/\/[^@]*:\d+/);
      expect(found.capabilities.map(({ name }) => name)).toContain('event-bus');
      expect(await bus.getServiceRegistryIntegration()!.getStatus()).toMatchObject({ connected: true, registeredAs: BUS });
    });

    test('for as long as one of its processes is there', async () => {
      const watching = services.registry();
      const [one, other] = [await services.bus(), await services.bus()];
      const seen: string[] = [];
      for (const event of ['service:unregistered', 'service:expired']) watching.on(event, ({ name }) => void seen.push(name));
      await watching.discover();
      await one.shutdown();
      expect(await listed(watching)).toMatchObject({ name: BUS });
      expect(seen).toEqual([]);
      await other.shutdown();
      expect(await listed(watching)).toBeUndefined();
    });

    test('is renewed by whoever of two buses over one registry is left', async () => {
      const registry = services.registry({ serviceTtlSeconds: 1 });
      const [one] = [await services.bus({}, registry), await services.bus({}, registry)];
      const watching = services.registry();
      const seen: string[] = [];
      for (const event of ['service:registered', 'service:unregistered', 'service:expired']) {
        watching.on(event, ({ name }) => void seen.push(`${event} ${name}`));
      }
      await watching.discover();
      await one.shutdown();
      // What nobody renews marks the time: twice as long as the bus would be listed without a renewal.
      const mark = services.registry({ serviceTtlSeconds: 2 });
      await mark.register(service('mark', 'tcp://host:1'));
      await mark.close();
      await until(() => seen.includes('service:expired mark'));
      expect(seen).toEqual(['service:registered mark', 'service:expired mark']);
    });

    test('comes back when somebody takes it out', async () => {
      const registry = services.registry();
      await services.bus();
      expect(await registry.unregister(BUS)).toBe(true);
      await until(() => listed(registry), { timeoutMs: 3000 });
    });

    test('expires when its processes died', async () => {
      const watching = services.registry();
      const dying = services.registry({ serviceTtlSeconds: 1 });
      await services.bus({}, dying);
      await dying.close();
      await until(async () => (await listed(watching)) === undefined, { timeoutMs: 4000 });
    });

    test('is left out by autoRegister: false, whatever others of its kind do', async () => {
      const registry = services.registry();
      const bus = await services.bus({ serviceRegistry: { autoRegister: false } }, registry);
      expect(await listed(registry)).toBeUndefined();
      expect(await bus.getServiceRegistryIntegration()!.getStatus()).toMatchObject({ registeredAs: null });
      const other = await services.bus();
      expect(await listed(registry)).toBeDefined();
      await other.shutdown();
      expect(await listed(registry)).toBeUndefined();
    });
  });

  describe('services are events', () => {
    /** Buses with a registry each, as three processes are. */
    async function three(): Promise<[ServiceRegistry[], OSSAEventBus[]]> {
      const registries = [services.registry(), services.registry(), services.registry()];
      const buses: OSSAEventBus[] = [];
      for (const registry of registries) buses.push(await services.bus({}, registry));
      return [registries, buses];
    }

    /** What a registry hears of others than the bus: whoever works with it has heard it too. */
    function listen(registry: ServiceRegistry): string[] {
      const seen: string[] = [];
      for (const what of ['registered', 'updated', 'unregistered', 'expired', 'health:changed']) {
        registry.on(`service:${what}`, ({ name }) => void (name !== BUS && seen.push(`${what} ${name}`)));
      }
      return seen;
    }

    test('each change is told once, however many buses there are, and nothing of what was there before', async () => {
      const [acting, expiring] = [services.registry(), services.registry({ serviceTtlSeconds: 1 })];
      await acting.register(service('before', 'http://127.0.0.1:1'));
      const [registries, buses] = await three();
      const heard = registries.map((registry) => listen(registry));
      const changes = await told(buses[0], 'system.configuration_changed');
      const capability = { name: 'billing', version: '2.0.0' };
      await acting.register(service('s', 'tcp://host:1', capability));
      await acting.register(service('s', 'tcp://host:1', capability));
      await acting.updateService('s', { version: '1.1.0' });
      await acting.unregister('s');
      await expiring.register(service('short', 'tcp://host:2'));
      await expiring.close();
      const about = (change: string, name: string, endpoint: string, version: string, capabilities: string[]) => ({
        component: 'service-registry',
        change,
        service: { name, endpoint, version, capabilities },
        timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      });
      // The first bus that connects is a service too.
      const expected = [
        about('registered', 's', 'tcp://host:1', '1.0.0', ['billing']),
        about('updated', 's', 'tcp://host:1', '1.1.0', ['billing']),
        about('unregistered', 's', 'tcp://host:1', '1.1.0', ['billing']),
        about('registered', 'short', 'tcp://host:2', '1.0.0', []),
        about('expired', 'short', 'tcp://host:2', '1.0.0', []),
      ];
      const others = () => changes.filter((change) => change.service.name !== BUS);
      await until(() => others().length >= expected.length, { show: () => changes });
      await until(() => heard.every((seen) => seen.length === expected.length), { show: () => heard });
      expect(others()).toEqual(expected);
      expect(await stored(buses[0], 'system.configuration_changed')).toBe(changes.length);
    });

    test('changes of health tell what they were, and what is known of them', async () => {
      const acting = services.registry();
      await acting.register({ ...service('s', 'tcp://host:1'), health: { status: 'healthy', lastCheck: new Date() } });
      const [registries, buses] = await three();
      const heard = registries.map((registry) => listen(registry));
      const checks = await told(buses[1], 'system.health_check');
      await acting.updateService('s', { health: { status: 'unhealthy', lastCheck: new Date(), responseTime: 12.5, error: 'no disk' } });
      await acting.updateService('s', { health: { status: 'unhealthy', lastCheck: new Date(), error: 'still none' } });
      await acting.updateService('s', { health: { status: 'healthy', lastCheck: new Date() } });
      await until(() => checks.length >= 2, { show: () => checks });
      const about = { component: 'service-registry', service: 's', timestamp: expect.any(String) };
      await until(() => heard.every((seen) => seen.length === 2));
      expect(checks).toEqual([
        { ...about, status: 'unhealthy', previousStatus: 'healthy', responseTime: 12.5, error: 'no disk' },
        { ...about, status: 'healthy', previousStatus: 'unhealthy' },
      ]);
      expect(await stored(buses[0], 'system.health_check')).toBe(2);
    });
  });

  describe('events say how services are', () => {
    const REPORT = raw({ agentId: 'worker', timestamp: new Date(0).toISOString() });
    const metrics = (source: string, metrics: object) => raw({ source, metrics, timestamp: new Date(0).toISOString() });
    let registry: ServiceRegistry;
    let bus: OSSAEventBus;
    const becomes = (status: string, name = 'worker') =>
      until(async () => (await statusOf(registry, name)) === status, { timeoutMs: 5000, show: () => status });

    beforeEach(async () => {
      registry = services.registry();
      bus = await services.bus({}, registry);
      const health = { status: 'healthy' as const, lastCheck: new Date() };
      await registry.register({ ...service('worker', 'tcp://host:1'), health });
      await registry.register({ ...service('other', 'tcp://host:2'), health });
    });

    test.each(['agent.started', 'agent.spawned', 'agent.stopped', 'agent.terminated'])(
      'agent.failed makes the service of that name degraded, until %s of that agent',
      async (ending) => {
        await bus.publish('agent.failed', { ...REPORT, error: 'out of memory' });
        await becomes('degraded');
        expect((await registry.health('worker'))?.details).toMatchObject({
          reported: { 'agent:worker': 'agent worker failed: out of memory' },
        });
        // Of another agent: that says nothing.
        await bus.publish('agent.started', { ...REPORT, agentId: 'other' });
        await bus.publish('agent.failed', { ...REPORT, agentId: 'other', error: 'x' });
        await becomes('degraded', 'other');
        expect(await statusOf(registry, 'worker')).toBe('degraded');
        await bus.publish(ending, REPORT);
        await becomes('healthy');
        expect((await registry.health('worker'))?.details).not.toHaveProperty('reported');
        expect(await statusOf(registry, 'other')).toBe('degraded');
      },
    );

    test.each([
      ['errorRate', 5, 4.6, 4.5],
      ['responseTime', 1000, 901, 900],
      ['memory', 85, 77, 76.5],
    ])('performance.metrics with a %s above %d make it degraded, until it is at nine tenths', async (metric, most, close, well) => {
      const report = (value: number) => bus.publish('performance.metrics', metrics('worker', { cpu: 100, throughput: 0, [metric]: value }));
      // Others in between are seen to after it, by the same process.
      const seen = async () => {
        await bus.publish('performance.metrics', metrics('other', { errorRate: 100 }));
        await becomes('degraded', 'other');
        await bus.publish('performance.metrics', metrics('other', { errorRate: 0 }));
        await becomes('healthy', 'other');
      };
      await report(most);
      await seen();
      expect(await statusOf(registry, 'worker')).toBe('healthy');
      await report(most + 0.5);
      await becomes('degraded');
      await report(close);
      await seen();
      expect(await statusOf(registry, 'worker')).toBe('degraded');
      await report(well);
      await becomes('healthy');
    });

    test('an event is about its publisher where no service bears the name of its agent', async () => {
      await bus.publish('agent.failed', { ...REPORT, agentId: 'worker-7', error: 'x' }, { source: 'worker' });
      await becomes('degraded');
      await bus.publish('agent.failed', { ...REPORT, agentId: 'worker-8', error: 'x' }, { source: 'worker' });
      await until(async () => Object.keys((await registry.health('worker'))?.details?.['reported'] ?? {}).length === 2);
      // Each of its agents counts.
      await bus.publish('agent.started', { ...REPORT, agentId: 'worker-7' }, { source: 'worker' });
      await until(async () => Object.keys((await registry.health('worker'))?.details?.['reported'] ?? {}).length === 1);
      expect(await statusOf(registry, 'worker')).toBe('degraded');
      await bus.publish('agent.terminated', { ...REPORT, agentId: 'worker-8' }, { source: 'worker' });
      await becomes('healthy');
      // The name of the agent goes before.
      await bus.publish('performance.metrics', metrics('other', { memory: 99 }), { source: 'worker' });
      await becomes('degraded', 'other');
      expect(await statusOf(registry, 'worker')).toBe('healthy');
    });

    test('a service that another process registered a moment ago is known', async () => {
      const elsewhere = services.registry();
      for (let n = 0; n < 5; n++) {
        await elsewhere.register({ ...service(`new-${n}`, 'tcp://host:1'), health: { status: 'healthy', lastCheck: new Date() } });
        await bus.publish('agent.failed', { ...REPORT, agentId: `new-${n}`, error: 'x' });
        await becomes('degraded', `new-${n}`);
      }
    });

    test('what was over before it was heard of stays over', async () => {
      for (let n = 0; n < 20; n++) {
        await bus.publish('agent.failed', { ...REPORT, error: 'x' });
        await bus.publish('agent.started', REPORT);
      }
      await bus.publish('agent.failed', { ...REPORT, agentId: 'other', error: 'x' });
      await becomes('degraded', 'other');
      await becomes('healthy');
    });

    test('unknown subjects and data that say nothing change nothing, and are done with', async () => {
      const nothing: unknown[] = [
        null,
        5,
        'worker',
        [],
        {},
        { agentId: 5, source: 5 },
        { agentId: 'nobody', source: 'nobody', metrics: { memory: 99 } },
      ];
      nothing.push({ source: 'worker' }, metrics('worker', {}), metrics('worker', { memory: '99', errorRate: null, responseTime: {} }));
      nothing.push({ source: 'worker', metrics: 'bad' }, { source: 'worker', metrics: [99] }, { agentId: '', source: '' });
      for (const data of nothing) {
        await bus.publish('performance.metrics', data as any);
        if (data === null || typeof data !== 'object' || (data as any).agentId !== 'worker') await bus.publish('agent.failed', data as any);
      }
      await bus.publish('agent.unheard-of', REPORT as any);
      await bus.publish('performance.metrics', metrics('other', { memory: 99 }));
      await becomes('degraded', 'other');
      const open = async () => {
        let sum = 0;
        for (const type of ['agent.failed', 'performance.metrics', 'agent.unheard-of']) {
          const group = (await bus.getStream(type))?.stats.groups.find(({ name }) => name === 'ossa-service-registry');
          sum += (group?.pending ?? 0) + (group?.lag ?? 0);
        }
        return sum;
      };
      await until(async () => (await open()) === 0, { timeoutMs: 5000 });
      expect(await statusOf(registry, 'worker')).toBe('healthy');
      expect((await bus.deadLetters.list({ group: 'ossa-service-registry' })).items).toEqual([]);
    });

    test.each(['unhealthy', 'maintenance'] as const)('a service that is %s stays so', async (status) => {
      await registry.updateService('worker', { health: { status, lastCheck: new Date() } });
      await bus.publish('agent.failed', { ...REPORT, error: 'x' });
      await until(async () => (await registry.health('worker'))?.details?.['reported'] !== undefined);
      expect(await statusOf(registry, 'worker')).toBe(status);
      await bus.publish('agent.started', REPORT);
      await until(async () => (await registry.health('worker'))?.details?.['reported'] === undefined);
      expect(await statusOf(registry, 'worker')).toBe(status);
    });
  });

  test('monitoring.alerting.thresholds say from when on a report is bad', async () => {
    const registry = services.registry();
    const thresholds = { maxErrorRate: 50, maxLatency: 20, maxMemoryUsage: 10 };
    const bus = await services.bus({ monitoring: { alerting: { thresholds } } }, registry);
    await registry.register({ ...service('s', 'tcp://host:1'), health: { status: 'healthy', lastCheck: new Date() } });
    const report = (metrics: object) => bus.publish('performance.metrics', { source: 's', metrics, timestamp: '' } as any);
    for (const [bad, well] of [
      [{ errorRate: 51 }, { errorRate: 45 }],
      [{ responseTime: 21 }, { responseTime: 18 }],
      [{ memory: 11 }, { memory: 9 }],
    ]) {
      await report({ errorRate: 40, responseTime: 15, memory: 8, ...bad });
      await until(async () => (await statusOf(registry, 's')) === 'degraded');
      await report({ errorRate: 40, responseTime: 15, memory: 8, ...well });
      await until(async () => (await statusOf(registry, 's')) === 'healthy');
    }
  });

  describe('switched off', () => {
    test('healthMonitoring: false looks at nobody, hears no reports and tells no health', async () => {
      const registry = services.registry({ healthCheck: { intervalMs: 50 } });
      const site = await services.site();
      const bus = await services.bus({ serviceRegistry: { healthMonitoring: false } }, registry);
      const [changes, checks] = [await told(bus, 'system.configuration_changed'), await told(bus, 'system.health_check')];
      await registry.register(service('s', site));
      await bus.publish('agent.failed', { agentId: 's', error: 'x', timestamp: new Date() } as any);
      await registry.updateService('s', { health: { status: 'degraded', lastCheck: new Date() } });
      await registry.updateService('s', { version: '2.0.0' });
      await until(() => changes.some(({ change }) => change === 'updated'));
      expect(site.asked.filter(({ path }) => path === '/health')).toEqual([]);
      expect(checks).toEqual([]);
      expect((await registry.health('s'))?.details?.['reported']).toBeUndefined();
      expect(await bus.getServiceRegistryIntegration()!.getStatus()).toMatchObject({ monitoring: false });
    });

    test('enabled: false leaves the registry alone', async () => {
      const registry = services.registry();
      const site = await services.site();
      const bus = await services.bus({ serviceRegistry: { enabled: false } }, registry);
      await registry.register(service('s', site, handles('t')));
      await bus.publish('t', 1);
      expect(bus.getServiceRegistryIntegration()).toBeUndefined();
      expect(Object.keys(await bus.getStatus())).not.toContain('serviceRegistry');
      expect(Object.keys((await bus.healthCheck()).components)).not.toContain('serviceRegistry');
      expect(bus.exportMetrics()).not.toContain('ossa_service_registry');
      expect((await registry.getAllServices()).map(({ name }) => name)).toEqual(['s']);
      expect(await bus.getStream('system.configuration_changed')).toBeNull();
      expect(site.asked).toEqual([]);
    });
  });

  test('getStatus, healthCheck and exportMetrics tell how services are', async () => {
    const registry = services.registry();
    const bus = await services.bus({}, registry);
    const statuses = ['healthy', 'healthy', 'degraded', 'unhealthy', 'unknown', 'maintenance'] as const;
    for (const [n, status] of statuses.entries()) {
      await registry.register({ ...service(`s${n}`, 'tcp://host:1'), health: { status, lastCheck: new Date() } });
    }
    // The bus is one of those that are healthy.
    const counts = {
      totalServices: 7,
      healthyServices: 3,
      degradedServices: 1,
      unhealthyServices: 1,
      unknownServices: 1,
      maintenanceServices: 1,
    };
    expect((await bus.getStatus()).serviceRegistry).toEqual({
      ...{ connected: true, monitoring: true, registeredAs: BUS, registeredHere: 7, services: counts },
      ...{ routes: [], contracts: { registered: 0, refused: 0 } },
    });
    const { status, components } = await bus.healthCheck();
    expect([status, components['serviceRegistry']]).toMatchObject(['degraded', { status: 'degraded', details: { services: counts } }]);
    const exported = bus.exportMetrics();
    expect(exported).toContain('# TYPE ossa_service_registry_services_total gauge');
    for (const [name, count] of Object.entries({ healthy: 3, degraded: 1, unhealthy: 1, unknown: 1, maintenance: 1 })) {
      expect(exported).toContain(`\nossa_service_registry_services_total{status="${name}"} ${count}\n`);
    }
    await registry.updateService('s2', { health: { status: 'healthy', lastCheck: new Date() } });
    await registry.updateService('s3', { health: { status: 'healthy', lastCheck: new Date() } });
    expect(await bus.healthCheck()).toMatchObject({ status: 'healthy', components: { serviceRegistry: { status: 'healthy' } } });
    expect(bus.exportMetrics()).toContain('ossa_service_registry_services_total{status="healthy"} 5\n');
    await bus.shutdown();
    expect((await bus.healthCheck()).status).toBe('unhealthy');
  });

  test("a program's own subscriptions, and what it is told of them, are what they are without a registry", async () => {
    const run = async (bus: OSSAEventBus) => {
      const got: string[] = [];
      const heard: string[] = [];
      for (const name of ['event:consumed', 'event:failed', 'event:dead-lettered', 'event:retried']) {
        bus.on(name, ({ eventType, group }) => void (group === 'mine' && heard.push(`${name} ${eventType}`)));
      }
      for (const name of ['subscription:created', 'subscription:cancelled']) {
        bus.on(name, ({ eventType, group }) => void heard.push(`${name} ${eventType} ${group}`));
      }
      const options = { group: 'mine', startFrom: 'latest' as const, retry: { maxAttempts: 1, initialDelay: 1 } };
      const record = (event: any) => {
        got.push(`${event.metadata.type} ${event.metadata.attempt} ${JSON.stringify(event.data)}`);
        if (event.data.fails) throw new Error('as told');
      };
      await bus.subscribe('agent.*', record, options);
      const other = await bus.subscribe('user.created', record, options);
      await bus.publish('agent.started', raw({ agentId: 'a', agentType: 'b' }));
      await bus.publish('user.created', { fails: true });
      await until(() => got.length === 3 && heard.some((line) => line.startsWith('event:dead-lettered')), { show: () => [got, heard] });
      const { subscriptions } = (await bus.getStatus()).eventBus;
      await other.close();
      await until(() => heard.some((line) => line.startsWith('subscription:cancelled')));
      return { got: [...got].sort(), heard: [...heard].sort(), subscriptions };
    };
    const alone = await services.bus({}, null);
    const without = await run(alone);
    await alone.shutdown();
    expect(without.subscriptions).toBe(2);
    const registry = services.registry();
    const bus = await services.bus({}, registry);
    await registry.register(service('s', 'http://127.0.0.1:1', handles('other')));
    await routed(bus, 's');
    expect(await run(bus)).toEqual(without);
  });
});

describe('with servers that come and go', () => {
  const services = useServices('redis');

  test('a registry that was closed: ERR_CLOSED, and a bus with another one works', async () => {
    const registry = services.registry();
    const bus = services.make({}, registry);
    await registry.close();
    await refusal('ERR_CLOSED', () => bus.initialize());
    const next = await services.bus();
    await next.publish('t', 1);
  });

  test('a registry whose Redis is away: ERR_CONNECTION names it, and a new bus works once it is there', async () => {
    const port = await freePort();
    const registry = services.registry({ redis: { url: undefined, host: '127.0.0.1', port, connectTimeoutMs: 500 } });
    const error = await refusal('ERR_CONNECTION', () => services.bus({}, registry));
    expect(error.message).toMatch(/service registry/);
    expect(error.retryable).toBe(true);
    const next = await services.bus();
    await next.publish('t', 1);
    const server = await services.server();
    const late = services.registry({ redis: { url: server.url } });
    const bus = await services.bus({}, late);
    expect((await bus.getStatus()).serviceRegistry).toMatchObject({ connected: true, registeredAs: BUS });
  });

  test('a registry that goes while the bus runs: it publishes and consumes, says so, and goes on when it is back', async () => {
    const server = await services.server();
    const registry = services.registry({ redis: { url: server.url } });
    const bus = await services.bus({}, registry);
    const site = await services.site();
    await registry.register(service('s', site, handles('t')));
    await routed(bus, 's');
    await server.kill();
    const got: unknown[] = [];
    await bus.subscribe('t', (event) => void got.push(event.data));
    await bus.publish('t', 1);
    await until(() => got.length === 1);
    await until(async () => (await bus.getStatus()).serviceRegistry?.connected === false);
    expect(await bus.healthCheck()).toMatchObject({ status: 'degraded', components: { serviceRegistry: { status: 'unhealthy' } } });
    // What is known of services still counts.
    await site.got(1);
    await server.start();
    // The server came back empty: what was registered here is again.
    await until(async () => {
      const status = (await bus.getStatus()).serviceRegistry;
      return status?.connected && status.problem === undefined && (await statusOf(registry, BUS).catch(() => undefined)) === 'healthy';
    });
    await bus.publish('t', 2);
    await site.got(2);
    expect(services.logged(/the service registry/).length).toBeLessThanOrEqual(4);
  });

  test('a registry that is closed while the bus runs: the bus says so and goes on without', async () => {
    const registry = services.registry();
    const bus = await services.bus({}, registry);
    await registry.close();
    await until(async () => (await bus.getStatus()).serviceRegistry?.problem !== undefined, { timeoutMs: 5000 });
    expect(await bus.healthCheck()).toMatchObject({ status: 'degraded', components: { serviceRegistry: { status: 'unhealthy' } } });
    await bus.publish('t', 1);
    await within(5000, 'shutdown()', bus.shutdown());
  });

  test('a registry that hangs at the shutdown: that ends in time', async () => {
    const server = await services.server();
    const registry = services.registry({ redis: { url: server.url } });
    const bus = await services.bus({}, registry);
    server.pause();
    await within(10_000, 'shutdown()', bus.shutdown());
    server.resume();
  });

  test('shows its endpoint without the password of its Redis', async () => {
    const server = await services.server('open sesame');
    const registry = services.registry();
    const url = `redis://:${encodeURIComponent('open sesame')}@127.0.0.1:${server.port}`;
    await services.bus({ eventBus: { redis: { url } } }, registry);
    const [found] = await registry.discover({ namePattern: BUS });
    expect(found.endpoint).toBe(`redis://127.0.0.1:${server.port}/0`);
    expect(JSON.stringify(found)).not.toContain('sesame');
  });
});

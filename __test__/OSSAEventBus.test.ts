/** The orchestrating bus, as far as this version has it. */
import {
  createOSSAEventBus,
  type DeepPartial,
  EVENT_TYPES,
  OSSAEventBus,
  type OSSAEventBusConfig,
  RedisEventBus,
  ServiceRegistry,
} from '@bluefly/ossa';
import { until } from './support/wait';
import { freshPrefix, redisUrl, refusal, stores } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const open = new Set<OSSAEventBus>();

  afterEach(async () => {
    await Promise.all([...open].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    open.clear();
  });

  const config = (over: DeepPartial<OSSAEventBusConfig> = {}): DeepPartial<OSSAEventBusConfig> => ({
    ...over,
    eventBus: { redis: { url: kind === 'memory' ? 'memory://' : redisUrl(), keyPrefix: freshPrefix() } },
  });

  const registry = () => new ServiceRegistry({ redis: { url: kind === 'memory' ? 'memory://' : redisUrl(), keyPrefix: freshPrefix() } });

  async function create(over?: DeepPartial<OSSAEventBusConfig>): Promise<OSSAEventBus> {
    const bus = await createOSSAEventBus(null, config(over));
    open.add(bus);
    return bus;
  }

  test('the quick start', async () => {
    const serviceRegistry = registry();
    const bus = await createOSSAEventBus(serviceRegistry, config());
    const got: any[] = [];
    await bus.subscribe('user.created', async (payload) => void got.push(payload.data));
    const timestamp = new Date();
    const id = await bus.publish('user.created', { userId: 'user-123', email: 'user@example.com', timestamp });
    await until(() => got.length === 1);
    expect(got[0]).toEqual({ userId: 'user-123', email: 'user@example.com', timestamp: timestamp.toISOString() });
    expect(typeof id).toBe('string');
    await bus.shutdown();
    await serviceRegistry.close();
  });

  test('built-in events go by their names', async () => {
    const bus = await create();
    const got: string[] = [];
    await bus.subscribe('agent.*', (event) => void got.push(event.metadata.type));
    await bus.publish(EVENT_TYPES.AGENT.SPAWNED, { agentId: 'a', agentType: 'worker', capabilities: [] });
    await until(() => got.length === 1);
    expect(got).toEqual(['agent.spawned']);
  });

  test('initialize is idempotent, and so is shutdown', async () => {
    const bus = new OSSAEventBus(null, config());
    open.add(bus);
    await Promise.all([bus.initialize(), bus.initialize()]);
    await bus.initialize();
    await bus.publish('t', 1);
    await Promise.all([bus.shutdown(), bus.shutdown()]);
    await bus.shutdown();
    for (const call of [() => bus.initialize(), () => bus.publish('t', 1), () => bus.getStatus(), () => bus.exportMetrics()]) {
      await refusal('ERR_CLOSED', call);
    }
  });

  /** Of agents and their tasks. */
  const orchestration: Array<[string, (bus: OSSAEventBus) => unknown]> = [
    ['distributeTask', (bus) => bus.distributeTask({} as any)],
    ['cancelTask', (bus) => bus.cancelTask('t')],
    ['getTask', (bus) => bus.getTask('t')],
    ['getOrchestrationStats', (bus) => bus.getOrchestrationStats()],
    ['getAgents', (bus) => bus.getAgents()],
    ['getPools', (bus) => bus.getPools()],
  ];
  /** Of messages between projects, and those above. */
  const parts: Array<[string, (bus: OSSAEventBus) => unknown]> = [
    ['registerProject', (bus) => bus.registerProject({} as any)],
    ['unregisterProject', (bus) => bus.unregisterProject('p')],
    ['registerContract', (bus) => bus.registerContract({} as any)],
    ['registerRoute', (bus) => bus.registerRoute({} as any)],
    ['sendCrossProjectMessage', (bus) => bus.sendCrossProjectMessage('a', 'b', 't', 1)],
    ['setupCrossProjectHandler', (bus) => bus.setupCrossProjectHandler('p', 't', () => 1)],
    ['getAvailableContracts', (bus) => bus.getAvailableContracts('p')],
    ['validateProjectSetup', (bus) => bus.validateProjectSetup('p')],
    ['getCrossProjectStats', (bus) => bus.getCrossProjectStats()],
    ['getAuditLog', (bus) => bus.getAuditLog()],
    ['exportAuditLog', (bus) => bus.exportAuditLog().next()],
    ['verifyAuditLog', (bus) => bus.verifyAuditLog()],
    ['exportMetrics', (bus) => bus.exportMetrics()],
    ['getAnalytics', (bus) => bus.getAnalytics()],
    ['getActiveAlerts', (bus) => bus.getActiveAlerts()],
    ['getGroups', (bus) => bus.getGroups()],
    ['getDashboardData', (bus) => bus.getDashboardData()],
    ...orchestration,
    ['httpHandler', (bus) => bus.httpHandler()],
    ['serve', (bus) => bus.serve({ port: 0 })],
  ];

  test.each(orchestration)('%s: ERR_DISABLED where agents are not to be orchestrated', async (_, call) => {
    const bus = await createOSSAEventBus(null, { ...config(), orchestration: { enabled: false } });
    open.add(bus);
    expect((await refusal('ERR_DISABLED', () => call(bus))).message).toMatch(/orchestration\.enabled/);
  });

  test.each(parts)('%s: ERR_NOT_INITIALIZED before initialize, ERR_CLOSED after shutdown', async (_, call) => {
    const bus = new OSSAEventBus(null, config());
    open.add(bus);
    expect((await refusal('ERR_NOT_INITIALIZED', () => call(bus))).message).toMatch(/initialize\(\)/);
    await bus.initialize();
    await bus.shutdown();
    await refusal('ERR_CLOSED', () => call(bus));
  });

  test.each<[string, (bus: OSSAEventBus) => unknown]>([
    ['publish', (bus) => bus.publish('t', 1)],
    ['subscribe', (bus) => bus.subscribe('t', () => 1)],
    ['getStatus', (bus) => bus.getStatus()],
    ['getMetrics', (bus) => bus.getMetrics()],
    ['deadLetters.list', (bus) => bus.deadLetters.list()],
  ])('%s before initialize: ERR_NOT_INITIALIZED names initialize()', async (_, call) => {
    const error = await refusal('ERR_NOT_INITIALIZED', () => call(new OSSAEventBus(null, config())));
    expect(error.message).toMatch(/initialize\(\)/);
  });

  test('the RedisEventBus inside shares its life, its counters and its events', async () => {
    const bus = await create();
    const inner = bus.getEventBus();
    expect(inner).toBeInstanceOf(RedisEventBus);
    expect(bus.getEventBus()).toBe(inner);
    const heard: string[] = [];
    bus.on('event:published', () => void heard.push('outer'));
    inner.on('event:published', () => void heard.push('inner'));
    await inner.publish('t', 1);
    await bus.publish('t', 2);
    await until(() => heard.length === 4);
    expect(heard.filter((name) => name === 'inner').length).toBe(2);
    expect(bus.getMetrics().eventsPublished).toBe(2);
    expect(inner.getMetrics().eventsPublished).toBe(2);
    await bus.shutdown();
    await refusal('ERR_CLOSED', () => inner.publish('t', 3));
  });

  test('getStatus and healthCheck tell how it is, healthCheck also when it is not', async () => {
    const bus = new OSSAEventBus(null, config());
    open.add(bus);
    expect(await bus.healthCheck()).toMatchObject({ status: 'unhealthy', timestamp: expect.any(Date) });
    await bus.initialize();
    expect(await bus.getStatus()).toMatchObject({
      eventBus: { status: 'healthy', redis: { connected: true }, lastHealthCheck: expect.any(Date) },
      crossProject: { totalProjects: 0, messagesSent: 0 },
    });
    expect(await bus.healthCheck()).toMatchObject({ status: 'healthy', components: { eventBus: { status: 'healthy' } } });
    await bus.shutdown();
    expect(await bus.healthCheck()).toMatchObject({ status: 'unhealthy', components: { eventBus: { status: 'unhealthy' } } });
  });

  test('without a service registry there is nothing of it', async () => {
    const bus = await create();
    expect(bus.getServiceRegistryIntegration()).toBeUndefined();
  });

  test('a service registry that it was given is a part of it, and outlives it', async () => {
    const given = registry();
    const bus = await createOSSAEventBus(given, config());
    open.add(bus);
    await given.register({ name: 's', endpoint: 'http://127.0.0.1:1', version: '1.0.0', capabilities: [] });
    const connected = async () => (await bus.getStatus()).serviceRegistry?.connected;
    await until(connected);
    const integration = bus.getServiceRegistryIntegration();
    const status = await integration?.getStatus();
    expect(status).toMatchObject({ connected: true, routes: [], contracts: { registered: 0 } });
    expect(status?.services.totalServices).toBeGreaterThan(0);
    expect((await bus.healthCheck()).components['serviceRegistry']).toMatchObject({ details: { connected: true } });
    await bus.shutdown();
    await refusal('ERR_CLOSED', () => integration?.getStatus());
    expect((await given.discover({ namePattern: 's' })).length).toBe(1);
    await given.close();
  });

  test('a service registry that was closed cannot be used any more', async () => {
    const given = registry();
    await given.close();
    await refusal('ERR_CLOSED', () => createOSSAEventBus(given, config()));
    await (await createOSSAEventBus(given, config({ serviceRegistry: { enabled: false } }))).shutdown();
  });

  test('getCrossProjectCommunication is what there is for projects, on its own', async () => {
    const bus = await create();
    const communication = bus.getCrossProjectCommunication() as OSSAEventBus;
    expect(bus.getCrossProjectCommunication()).toBe(communication);
    const project = { name: 'p', namespace: 'n', allowedEventTypes: ['**'], allowedTargets: ['*'] };
    for (const projectId of ['a', 'b']) await communication.registerProject({ projectId, ...project });
    const got: unknown[] = [];
    await communication.setupCrossProjectHandler('b', 't', (message) => void got.push(message.payload.data));
    await communication.sendCrossProjectMessage('a', 'b', 't', 1);
    await until(() => got.length === 1);
    expect((await bus.getCrossProjectStats()).totalProjects).toBe(2);
    expect(await (await create({ crossProject: { enabled: false } })).getCrossProjectCommunication()).toBeUndefined();
  });

  test('it can be disposed of', async () => {
    const bus = await create();
    await bus[Symbol.asyncDispose]();
    await refusal('ERR_CLOSED', () => bus.publish('t', 1));
  });
});

test.each([5, 'registry', {}, { eventBus: {} }, [], { discover: () => [] }])(
  '%p in place of a service registry is refused',
  async (registry) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => new OSSAEventBus(registry as any));
    expect(error.details).toMatchObject({ argument: 'serviceRegistry' });
    await refusal('ERR_INVALID_ARGUMENT', () => createOSSAEventBus(registry as any));
  },
);

test.each([
  ['eventBuss', {}],
  ['crossProject.enabled', 'yes'],
  ['serviceRegistry.discoveryRefreshInterval', 0],
  ['orchestration.config.maxAgentsPerPool', 0],
  ['orchestration.config.distributionStrategy.name', 'luck'],
  ['monitoring.metrics.collectionInterval', -1],
  ['monitoring.tracing.samplingRate', 2],
])('the configuration %s: %p is refused with its path', async (path, value) => {
  const config = path.split('.').reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
  const error = await refusal('ERR_INVALID_CONFIG', () => new OSSAEventBus(null, config as any));
  expect(error.details).toMatchObject({ path });
});

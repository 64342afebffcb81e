/** What users write: must compile, and, under `@ts-expect-error`, must not. */

import type {
  Agent,
  AgentSpawnedEvent,
  AgentTask,
  AuditRecord,
  ConfigurationChangedEvent,
  CrossProjectEventContract,
  CrossProjectMessage,
  CrossProjectStats,
  EventBus,
  EventMap,
  EventPayload,
  HealthCheckEvent,
  MessageRoute,
  OSSAErrorCode,
  ProjectConfig,
  ServiceDefinition,
  ServiceHealthChange,
  ServiceRegistryIntegrationStatus,
  Subscription,
  TaskView,
} from '../../index.js';
import {
  createAgent,
  createOSSAEventBus,
  EVENT_TYPES,
  EventPriority,
  type OSSAError,
  type OSSAEventBus,
  RedisEventBus,
  ServiceHealthStatus,
  ServiceRegistry,
} from '../../index.js';

interface Shop {
  'user.created': { userId: string; email: string };
  'order.paid': { orderId: string; cents: number };
}

export async function withoutMap(): Promise<void> {
  const registry = new ServiceRegistry({ redis: { host: 'localhost', port: 6379 } });
  const bus = await createOSSAEventBus(registry);
  const id: string = await bus.publish('user.created', { userId: 'u', timestamp: new Date() });
  const subscription: Subscription = await bus.subscribe('user.created', async (payload) => {
    console.log(id, payload.data.userId, payload.metadata.timestamp.getTime());
  });
  await bus.publish<{ a: number }>('any.name', { a: 1 });
  // @ts-expect-error the data is not what was said
  await bus.publish<{ a: number }>('any.name', { a: 'x' });
  await bus.subscribe<{ a: number }>('any.name', (event) => event.data.a.toFixed());
  // @ts-expect-error a has no such method
  await bus.subscribe<{ a: number }>('any.name', (event) => event.data.a.toUpperCase());
  await bus.subscribe('any.**', ({ data, metadata }, context) => {
    const value: number = data.anything;
    context.signal.throwIfAborted();
    return context.ack().then(() => [value, metadata.headers?.['traceparent']]);
  });
  await bus.subscribe('any.name', (event: EventPayload<{ a: number }>) => event.data.a);
  for await (const event of await bus.subscribe('any.name')) {
    await event.ack();
    await event.nack({ delayMs: 1 });
  }
  await bus.subscribe('any.name', null, { group: 'g', startFrom: 'timestamp', startTimestamp: new Date() });
  const name: string = String(id);
  await bus.publish(name, { anything: 1 });
  await bus.subscribe(name, (event) => event.data.anything);
  await bus.publish('x', undefined, { priority: 'high', ttl: 0, signal: AbortSignal.timeout(1) });
  await bus.publish('x', 1, { priority: EventPriority.LOW, retry: { maxAttempts: 0 } });
  // @ts-expect-error no such priority
  await bus.publish('x', 1, { priority: 'urgent' });
  // @ts-expect-error no such option
  await bus.publish('x', 1, { timeToLive: 1 });
  // @ts-expect-error no such option
  await bus.subscribe('x', () => 1, { groups: 'g' });
  // @ts-expect-error the type is a text
  await bus.publish(1, 1);
  await subscription.close({ drainTimeoutMs: 1 });
  await bus.shutdown();
  await registry.close();
}

export async function builtIn(bus: RedisEventBus, shop: RedisEventBus<Shop>): Promise<void> {
  const spawned: AgentSpawnedEvent = { agentId: 'a', agentType: 't', capabilities: ['c'] };
  await bus.publish('agent.spawned', spawned);
  await bus.publish(EVENT_TYPES.AGENT.SPAWNED, {
    agentId: 'a',
    agentType: 't',
    capabilities: [],
    configuration: { maxTasks: 3, own: true },
  });
  await bus.publish('agent.started', { agentId: 'a', agentType: 't', timestamp: new Date() });
  await bus.publish('system.error', { anything: true });
  // @ts-expect-error capabilities is missing
  await bus.publish('agent.spawned', { agentId: 'a', agentType: 't' });
  await bus.subscribe('agent.spawned', (event) => event.data.capabilities.join());
  // @ts-expect-error no such field
  await bus.subscribe('agent.spawned', (event) => event.data.nothing);
  // @ts-expect-error a handler of something else
  await bus.subscribe('agent.spawned', (event: EventPayload<{ agentId: number }>) => event);

  await shop.publish('agent.spawned', spawned);
  // @ts-expect-error capabilities is missing
  await shop.publish('agent.spawned', { agentId: 'a', agentType: 't' });
  await shop.subscribe(EVENT_TYPES.TASK.COMPLETED, (event) => event.data.duration.toFixed());
  // @ts-expect-error no such field
  await shop.subscribe('task.completed', (event) => event.data.nothing);
}

export async function withMap(): Promise<void> {
  const bus = new RedisEventBus<Shop>({ redis: { url: 'memory://' }, monitoring: { tracing: { enabled: true, samplingRate: 1 } } });
  await bus.publish('user.created', { userId: 'u', email: 'e' });
  // @ts-expect-error email is missing
  await bus.publish('user.created', { userId: 'u' });
  // @ts-expect-error userId is a text
  await bus.publish('user.created', { userId: 1, email: 'e' });
  // @ts-expect-error not in the map
  await bus.publish('user.deleted', { userId: 'u' });
  // @ts-expect-error not in the map, whatever its type is said to be
  await bus.publish<{ userId: string }>('user.deleted', { userId: 'u' });
  await bus.subscribe('order.paid', ({ data }) => data.cents.toFixed());
  // @ts-expect-error a handler of something else
  await bus.subscribe('order.paid', (event: EventPayload<{ cents: string }>) => event);
  // @ts-expect-error not in the map
  await bus.subscribe('order.lost', () => 1);
  // @ts-expect-error not in the map
  await bus.subscribe('order.lost');
  await bus.subscribe('order.*', (event) => event.metadata.type);
  await bus.subscribe<{ cents: number }>('order.**', (event) => event.data.cents);
  await bus.subscribe('order.paid', null, { group: 'g' });
  for await (const event of await bus.subscribe('order.paid')) console.log(event.metadata.id);

  const ossa: OSSAEventBus<Shop> = await createOSSAEventBus<Shop>(null, { eventBus: { redis: { url: 'memory://' } } });
  await ossa.getEventBus().publish('order.paid', { orderId: 'o', cents: 1 });
  // @ts-expect-error orderId is missing
  await ossa.getEventBus().publish('order.paid', { cents: 1 });

  // A map as a type alias, and a bus kept as its base.
  const aliased = new RedisEventBus<{ a: number }>();
  const base: EventBus<{ a: number }> = aliased;
  await base.publish('a', 1);
  const plain: EventBus<EventMap> = new RedisEventBus();
  await plain.publish('anything', 1);
}

export async function around(bus: OSSAEventBus): Promise<void> {
  await using held = bus;
  held.on('error', (error: OSSAError) => console.log(error.code, error.retryable, error.details?.['path'], error.cause));
  const code: OSSAErrorCode = 'ERR_CLOSED';
  const status = await bus.getStatus();
  const at: Date = status.eventBus.lastHealthCheck;
  const { items, cursor } = await bus.deadLetters.list({ eventType: 'x', from: at });
  console.log(items[0]?.event.metadata.id, cursor, code, bus.getMetrics().eventsPublished);
  // @ts-expect-error a port is a number
  new RedisEventBus({ redis: { port: '6379' } });
  // @ts-expect-error no such key
  new RedisEventBus({ redis: { hots: 'x' } });
  new RedisEventBus({ redis: { host: undefined } });
  // @ts-expect-error abstract
  new (await import('../../index.js')).EventBus();
}

export async function betweenProjects(bus: OSSAEventBus): Promise<void> {
  const project: ProjectConfig = {
    projectId: 'shop',
    name: 'Shop',
    namespace: 'eu',
    allowedEventTypes: ['order.*'],
    allowedTargets: ['*'],
    credentials: { apiKey: 'k', secret: 'at least sixteen bytes', previousSecret: 'the one before it, too' },
    rateLimiting: { eventsPerSecond: 10, burstLimit: 20 },
  };
  await bus.registerProject(project);
  // @ts-expect-error who it is, is missing
  await bus.registerProject({ name: 'Shop', namespace: 'eu', allowedEventTypes: [], allowedTargets: [] });
  // @ts-expect-error no such key
  await bus.registerProject({ ...project, secret: 's' });
  // @ts-expect-error a secret has an apiKey beside it
  await bus.registerProject({ ...project, credentials: { secret: 'at least sixteen bytes' } });
  // @ts-expect-error event types are a list
  await bus.registerProject({ ...project, allowedEventTypes: '*' });
  const gone: boolean = await bus.unregisterProject('shop');

  const metadata = { description: 'd', author: 'a', createdAt: new Date(), updatedAt: new Date() };
  const contract: CrossProjectEventContract = {
    ...{ name: 'orders', version: '1.0.0', sourceProject: 'shop', targetProjects: ['*'], eventTypes: ['order.*'] },
    ...{ schema: { type: 'object' }, metadata: { ...metadata, tags: ['t'] } },
  };
  await bus.registerContract(contract);
  // @ts-expect-error a time is a Date
  await bus.registerContract({ ...contract, metadata: { ...metadata, createdAt: 5 } });
  const [known] = bus.getAvailableContracts('shop');
  const created: number | undefined = known?.metadata.createdAt.getTime();

  const route: MessageRoute = { name: 'r', match: { eventTypes: ['order.*'], tags: ['t'], where: { required: ['id'] } }, targets: ['*'] };
  await bus.registerRoute(route);
  // @ts-expect-error no such condition
  await bus.registerRoute({ name: 'r', match: { target: 'b' }, targets: ['b'] });
  // @ts-expect-error a route leads somewhere
  await bus.registerRoute({ name: 'r', match: {} });

  const id: string = await bus.sendCrossProjectMessage(
    'shop',
    ['b', 'c'],
    'order.paid',
    { cents: 1 },
    { tags: ['t'], contractVersion: '^1' },
  );
  await bus.sendCrossProjectMessage(
    'shop',
    '*',
    'agent.stopped',
    { agentId: 'a', reason: 'r', timestamp: 1 },
    { delayMs: 5, priority: 'low' },
  );
  // @ts-expect-error a built-in event without its fields
  await bus.sendCrossProjectMessage('shop', '*', 'agent.stopped', { agentId: 'a' });
  // @ts-expect-error a message is not transient
  await bus.sendCrossProjectMessage('shop', 'b', 'order.paid', 1, { transient: true });
  // @ts-expect-error no such target
  await bus.sendCrossProjectMessage('shop', 5, 'order.paid', 1);

  const handler = async ({ source, security, contracts, route: by, payload }: CrossProjectMessage<{ cents: number }>): Promise<string> =>
    [source.projectId, security.keyId, contracts?.join(), by, payload.data.cents.toFixed(), payload.metadata.id].join();
  const subscription: Subscription = await bus.setupCrossProjectHandler('b', 'order.*', handler, {
    group: 'g',
    requireSignatureValidation: true,
  });
  await bus.setupCrossProjectHandler('b', 'order.paid', (message, context) => context.extend(message.security.timestamp));
  // @ts-expect-error a handler is needed
  await bus.setupCrossProjectHandler('b', 'order.paid');
  // @ts-expect-error events are not messages
  await bus.setupCrossProjectHandler('b', 'order.paid', (event: EventPayload) => event.metadata.id);
  // @ts-expect-error for messages alone
  await bus.subscribe('order.paid', () => 1, { requireSignatureValidation: true });
  await subscription.close();

  const { isValid, errors } = await bus.validateProjectSetup('shop');
  const stats: CrossProjectStats = await bus.getCrossProjectStats();
  const last: Date | undefined = (await bus.getCrossProjectStats('shop')).projectStats?.[0]?.lastActivity;
  const { items, cursor } = await bus.getAuditLog({ projectId: 'shop', from: new Date(), outcome: 'sent', limit: 10 });
  const record: AuditRecord | undefined = items[0];
  // @ts-expect-error no such outcome
  await bus.getAuditLog({ outcome: 'lost' });
  for await (const line of bus.exportAuditLog({ outcome: 'denied' })) console.log(line.length);
  // @ts-expect-error an export has no pages
  bus.exportAuditLog({ limit: 5 });
  const { ok, checked, firstBroken } = await bus.verifyAuditLog();
  console.log(
    gone,
    created,
    id,
    isValid,
    errors,
    stats.rateLimitHits,
    last,
    cursor,
    record?.chain,
    ok,
    checked,
    firstBroken,
    bus.exportMetrics().length,
  );
}

export async function services(client: object): Promise<void> {
  await using registry = new ServiceRegistry({ redis: { username: 'u', tls: { ca: 'x' }, keyPrefix: 'k' }, serviceTtlSeconds: 60 }, client);
  new ServiceRegistry(undefined, client);
  // @ts-expect-error an interval is a number
  new ServiceRegistry({ healthCheck: { intervalMs: '1s' } });
  // @ts-expect-error no such key
  new ServiceRegistry({ redis: { hots: 'x' } });
  // @ts-expect-error a client is an object
  new ServiceRegistry({}, 'redis://h');

  const lastCheck = new Date();
  const capabilities = [{ name: 'resize', version: '1.0.0', inputs: { width: { type: 'number' } } }];
  const service = { name: 'images', endpoint: 'https://images:8080', version: '1.2.0', capabilities };
  const found: ServiceDefinition = await registry.register({ ...service, health: { status: 'healthy', lastCheck } });
  await registry.register(service);
  await registry.register(found);
  await registry.register({ ...service, health: { status: ServiceHealthStatus.UNKNOWN, lastCheck } });
  await registry.register({ ...service, metadata: { tags: ['t'], healthPath: '/up', eventsPath: '/in' } });
  // @ts-expect-error where it is, is missing
  await registry.register({ name: 'images', version: '1.2.0', capabilities });
  // @ts-expect-error a time is a Date
  await registry.register({ ...service, health: { status: 'healthy', lastCheck: 5 } });
  // @ts-expect-error no such status
  await registry.register({ ...service, health: { status: 'fine', lastCheck } });
  // @ts-expect-error no such key
  await registry.register({ ...service, metadata: { owner: 'me' } });

  const at: Date = found.registeredAt;
  const tags: string[] | undefined = (await registry.discover({ namePattern: 'im*', tags: ['t'], version: '^1' }))[0]?.metadata?.tags;
  await registry.discover({ healthStatus: ServiceHealthStatus.HEALTHY });
  // @ts-expect-error no such condition
  await registry.discover({ name: 'images' });
  // @ts-expect-error it may not be there
  (await registry.health('images')).status;
  const updated: ServiceDefinition | null = await registry.updateService('images', { version: '1.3.0' });
  const gone: boolean = await registry.unregister('images');
  const { totalServices } = await registry.getStats();
  await registry.startHealthMonitoring();
  registry.stopHealthMonitoring();

  const changed = ({ name, newStatus, health }: ServiceHealthChange): void => console.log(name, newStatus, health.lastCheck.getTime());
  registry
    .on('service:registered', (definition) => definition.capabilities.length)
    .once('service:health:changed', changed)
    .off('service:health:changed', changed)
    .on('registry:error', (error) => console.log(error.code))
    .on('registry:error', (error: OSSAError) => console.log(error.retryable))
    .on('of my own', (a, b) => [a, b])
    .once(Symbol('s'), () => 1)
    .prependListener('service:expired', () => 1);
  const name: string = found.name;
  registry.on(name, () => 1);
  // @ts-expect-error a definition has no such field
  registry.on('service:expired', (definition) => definition.newStatus);
  // @ts-expect-error a listener of something else
  registry.on('service:updated', changed);
  // @ts-expect-error a listener of something else
  registry.once('service:health:changed', (definition: ServiceDefinition) => definition.name);

  const bus = await createOSSAEventBus(registry, { serviceRegistry: { autoRegister: false, discoveryRefreshInterval: 5000 } });
  const status: ServiceRegistryIntegrationStatus | undefined = (await bus.getStatus()).serviceRegistry;
  const integration = bus.getServiceRegistryIntegration();
  const circuits: Array<'closed' | 'open' | 'half-open'> | undefined = (await integration?.getStatus())?.routes.map(
    ({ circuit }) => circuit,
  );
  const reasons = (await integration?.discoverContracts('images'))?.refused.map(({ service: by, contract, reason }) => [
    by,
    contract,
    reason,
  ]);
  // @ts-expect-error a bus is no registry
  new (await import('../../index.js')).OSSAEventBus(bus);
  await bus.subscribe(EVENT_TYPES.SYSTEM.CONFIGURATION_CHANGED, ({ data }: EventPayload<ConfigurationChangedEvent>) => {
    const change: 'registered' | 'updated' | 'unregistered' | 'expired' = data.change;
    return [change, data.service.capabilities.join()];
  });
  await bus.subscribe('system.health_check', ({ data }: EventPayload<HealthCheckEvent>) => data.responseTime?.toFixed());
  await bus.publish('system.health_check', { of: 'my own' });
  console.log(at, tags, updated?.version, gone, totalServices, status?.registeredAs, circuits, reasons);
}

export async function agents(bus: OSSAEventBus, shop: RedisEventBus<Shop>): Promise<void> {
  const agent: Agent = await createAgent(bus, {
    agentId: 'resizer-1',
    agentType: 'resizer',
    capabilities: ['images'],
    handler: async (task, { signal, attempt }) => ({ id: task.id, width: task.data.width, late: signal.aborted, attempt }),
  });
  await using other = await createAgent(shop, {
    agentId: 'b',
    agentType: 't',
    capabilities: [],
    maxTasks: 3,
    drainOnSigterm: false,
    signal: AbortSignal.timeout(1),
    handler: (task: AgentTask<{ url: string }>) => task.data.url.length,
  });
  agent.on('task:completed', ({ taskId, duration }) => taskId + duration.toFixed());
  agent.once('drained', ({ reason }) => reason.length);
  agent.on('my own', (anything) => anything);
  // @ts-expect-error no such field
  agent.on('task:failed', ({ result }) => result);
  // @ts-expect-error no such option
  await createAgent(bus, { agentId: 'c', agentType: 't', capabilities: [], handler: () => 1, retries: 3 });
  // @ts-expect-error a handler is needed
  await createAgent(bus, { agentId: 'c', agentType: 't', capabilities: [] });
  await agent.drain({ reason: 'deploy', timeoutMs: 1000 });
  const status: 'running' | 'draining' | 'stopped' = other.status;

  const given: string | null = await bus.distributeTask({
    id: 't',
    type: 'x',
    priority: 1,
    requiredCapabilities: ['images'],
    timeoutMs: 500,
  });
  const view: TaskView | null = await bus.getTask('t');
  const ended: Date | undefined = view?.endedAt;
  const cancelled: boolean | undefined = await bus.getOrchestrationOptimizer()?.cancelTask('t', 'not needed');
  bus.on('agent:circuit:changed', ({ agentId, to }) => `${agentId} ${to}`);
  bus.on('event:consumed', ({ eventId }) => eventId);
  await bus.subscribe('task.failed', ({ data }) => [data.final, data.attempts, data.handedBack, data.permanent, data.task]);
  await createOSSAEventBus(null, { orchestration: { config: { circuitBreaker: { minimumCalls: 10 } } } });
  console.log(given, ended, cancelled, status, bus.getAgents()[0]?.orchestratorId, agent.stats.completed + agent.running.length);
}

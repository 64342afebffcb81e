/** Buses with a map of event types, and without one: what must compile, and, under `@ts-expect-error`, must not. */

import type {
  BatchHandlerFn,
  CrossProjectMessage,
  EventBus,
  EventHandlerFn,
  EventPayload,
  OSSAEventBus,
  ScaleEvent,
  SubscriptionOptions,
} from '../../index.js';
import * as api from '../../index.js';

interface User {
  name: string;
}
interface Shop {
  'user.created': User;
  'order.paid': { orderId: string; cents: number };
  // A built-in name with more in it: the map wins.
  'task.started': api.TaskStartedEvent & { room: number };
}

/** Compiles only where both are the same type. */
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const yes = <_T extends true>(): void => undefined;

export async function batches(plain: EventBus, shop: EventBus<Shop>): Promise<void> {
  const user: User = { name: 'n' };
  await shop.publishBatch([
    { eventType: 'user.created', data: user },
    { eventType: 'order.paid', data: { orderId: 'o', cents: 1 }, options: { ttl: 1 } },
    { eventType: 'task.failed', data: { taskId: 't', agentId: 'a', error: 'e', timestamp: 1 } },
  ]);
  await shop.publishBatch([1, 2].map((cents) => ({ eventType: 'order.paid' as const, data: { orderId: 'o', cents } })));
  await shop.publishBatch([]);
  // @ts-expect-error cents is a number
  await shop.publishBatch([{ eventType: 'order.paid', data: { orderId: 'o', cents: '1' } }]);
  // @ts-expect-error that of another type
  await shop.publishBatch([{ eventType: 'order.paid', data: user }]);
  // @ts-expect-error not in the map
  await shop.publishBatch([{ eventType: 'order.lost', data: 1 }]);
  await shop.publishBatch([
    { eventType: 'user.created', data: user },
    // @ts-expect-error the second is not in the map
    { eventType: 'order.lost', data: 1 },
  ]);
  // @ts-expect-error a built-in event without its fields
  await shop.publishBatch([{ eventType: 'agent.spawned', data: {} }]);
  // @ts-expect-error no such option
  await shop.publishBatch([{ eventType: 'user.created', data: user, options: { timeToLive: 1 } }]);

  await plain.publishBatch([1, 2].map((data) => ({ eventType: 'step', data })));
  await plain.publishBatch([
    { eventType: 'any', data: 1 },
    { eventType: 'other', data: 'x', options: { delayMs: 1 } },
  ]);
  const events: Array<{ eventType: string; data: unknown }> = [];
  await plain.publishBatch(events);
  // @ts-expect-error a built-in event without its fields
  await plain.publishBatch([{ eventType: 'agent.spawned', data: {} }]);
  // @ts-expect-error no event type
  await plain.publishBatch([{ data: 1 }]);
}

export async function requests(plain: EventBus, shop: EventBus<Shop>): Promise<void> {
  const total: number = await shop.request<number>('order.paid', { orderId: 'o', cents: 1 }, { timeoutMs: 5 });
  const anything = await shop.request('user.created', { name: 'n' });
  await shop.request('agent.stopped', { agentId: 'a', reason: 'r', timestamp: 1 });
  // @ts-expect-error cents is missing
  await shop.request<number>('order.paid', { orderId: 'o' });
  // @ts-expect-error not in the map
  await shop.request<number>('order.lost', 1);
  // @ts-expect-error a request is for one type
  await shop.request('order.*', 1);
  // @ts-expect-error no such option
  await shop.request('user.created', { name: 'n' }, { timeout: 1 });

  const name: string = String(total + anything);
  const answer: { ok: boolean } = await plain.request<{ ok: boolean }>(name, { any: 1 }, { timeoutMs: 1, priority: 'high' });
  await plain.request('some.name', answer);
  // @ts-expect-error a built-in event without its fields
  await plain.request('agent.stopped', {});
}

export async function history(plain: EventBus, shop: EventBus<Shop>): Promise<void> {
  for await (const { data } of shop.replay('order.paid', { from: new Date(), limit: 1 })) yes<Equal<typeof data.cents, number>>();
  for await (const { data } of shop.replay('task.started')) yes<Equal<typeof data.room, number>>();
  for await (const { data } of shop.replay('orchestration.scale_up')) yes<Equal<typeof data, ScaleEvent>>();
  // @ts-expect-error not in the map
  shop.replay('order.lost');
  for await (const { data } of plain.replay<User>('some.name')) yes<Equal<typeof data, User>>();
  for await (const { data } of plain.replay('some.name')) yes<Equal<typeof data, any>>();
  for await (const { data } of plain.replay('orchestration.scale_down', { to: new Date() })) yes<Equal<typeof data, ScaleEvent>>();
  // @ts-expect-error a limit is a number
  plain.replay('some.name', { limit: '1' });
}

export async function handlersOfBatches(plain: EventBus, shop: EventBus<Shop>): Promise<void> {
  const batch = { maxSize: 10, maxWaitMs: 5 };
  await shop.subscribe(
    'order.paid',
    (events, context) => {
      yes<Equal<typeof events, Array<EventPayload<Shop['order.paid']>>>>();
      context.fail(0, new Error('no'));
    },
    { group: 'g', batch },
  );
  await shop.subscribe('task.completed', (events) => events.map(({ data }) => data.duration.toFixed()), { batch });
  await shop.subscribe('order.*', (events) => events.map(({ metadata }) => metadata.type), { batch });
  await shop.subscribe<User>('user.**', (events) => events[0]?.data.name.length, { batch: { maxSize: 2 } });
  await plain.subscribe<User>('x', (events) => events.map((event) => event.data.name), { batch });
  await plain.subscribe('x', async (events) => events.length, { batch });
  await plain.subscribe('agent.spawned', (events) => events[0]?.data.capabilities.join(), { batch });
  const kept: BatchHandlerFn<User> = (events) => events.length;
  await plain.subscribe('x', kept, { batch });
  await plain.subscribe('x', null, { batch });

  // @ts-expect-error the handler gets several
  await shop.subscribe('order.paid', (event) => event.data.cents, { batch });
  // @ts-expect-error the handler gets several
  await plain.subscribe('x', (event) => event.data, { batch });
  // @ts-expect-error the handler gets one
  await shop.subscribe('order.paid', (events) => events.length, { group: 'g' });
  // @ts-expect-error the handler gets one
  await plain.subscribe('x', kept);
  // @ts-expect-error of another type
  await shop.subscribe('order.paid', kept, { batch });
  // @ts-expect-error a batch has a size
  await plain.subscribe('x', kept, { batch: { maxWaitMs: 1 } });
  // @ts-expect-error no such option, beside those that are
  await plain.subscribe('x', () => 1, { group: 'g', groups: 1 });
  // @ts-expect-error no such option, beside those that are
  await plain.subscribe('x', kept, { group: 'g', groups: 1, batch });
}

export async function patterns(plain: EventBus, shop: EventBus<Shop>): Promise<void> {
  await shop.subscribe('user.*', (event) => yes<Equal<typeof event, EventPayload<any>>>());
  await shop.subscribe('**', ({ data, metadata }) => [data.anything, metadata.type]);
  await shop.subscribe<Shop[keyof Shop]>('*.created', ({ data }) => 'name' in data && data.name);
  for await (const event of await shop.subscribe('user.*')) await event.ack();
  await plain.subscribe<User>('user.created');
  await shop.subscribe('order.paid', null, { batch: { maxSize: 2 } });
  await plain.subscribe<User>('user.*', (e) => e.data.name);
  // @ts-expect-error one publishes one type
  await shop.publish('user.*', { name: 'n' });
}

export async function withoutMap(bus: api.RedisEventBus, user: User): Promise<void> {
  await bus.subscribe<User>('x', (e) => e.data.name);
  await bus.publish<User>('x', user);
  // @ts-expect-error there is no such field
  await bus.subscribe<User>('x', (e) => e.data.nothing);
  // @ts-expect-error that is no user
  await bus.publish<User>('x', {});
  // @ts-expect-error not even where the name is built in
  await bus.publish('orchestration.scale_up', { poolId: 'p' });
  for (const [type, name] of [
    [api.EVENT_TYPES.PERFORMANCE.BOTTLENECK, 'component'],
    [api.EVENT_TYPES.PERFORMANCE.THRESHOLD, 'metric'],
  ] as const) {
    await bus.subscribe(type, (event) => Object.keys(event.data).includes(name));
  }
  await bus.publish(api.EVENT_TYPES.SYSTEM.HEALTH_CHECK, { anything: 1 });
}

/** Wrappers as programs write them. */
export class Wrapped<E extends api.EventMap> {
  constructor(
    private readonly bus: api.RedisEventBus<E>,
    private readonly plain: api.EventBus,
  ) {}

  on<K extends keyof E & string>(name: K, handler: EventHandlerFn<E[K]>, options?: SubscriptionOptions) {
    return this.bus.subscribe(name, handler, options);
  }
  onMany<K extends keyof E & string>(name: K, handler: BatchHandlerFn<E[K]>, maxSize: number) {
    return this.bus.subscribe(name, handler, { batch: { maxSize } });
  }
  onAny<T>(name: string, handler: EventHandlerFn<T>, options?: SubscriptionOptions) {
    return this.plain.subscribe<T>(name, handler, options);
  }
  onMaybe<T>(name: string, handler?: EventHandlerFn<T> | null, options?: SubscriptionOptions) {
    return this.plain.subscribe(name, handler, options);
  }
  onMaybeListed<K extends keyof E & string>(name: K, handler?: EventHandlerFn<E[K]> | null, options?: SubscriptionOptions) {
    return this.bus.subscribe(name, handler, options);
  }
  onAnyInferred<T>(name: string, handler: (event: EventPayload<T>) => void, options: SubscriptionOptions = {}) {
    return this.plain.subscribe(name, handler, { ...options, group: 'g' });
  }
  emit<K extends keyof E & string>(name: K, data: E[K]) {
    return this.bus.publish(name, data);
  }
  ask<K extends keyof E & string>(name: K, data: E[K]): Promise<number> {
    return this.bus.request(name, data, { timeoutMs: 1 });
  }
  emitAny<T>(name: string, data: T) {
    return this.plain.publish<T>(name, data);
  }
}

export async function acrossProjects(plain: OSSAEventBus, registry: api.ServiceRegistry): Promise<void> {
  const shop = await api.createOSSAEventBus<Shop>(registry, { eventBus: { redis: { url: 'memory://' } } });
  await shop.publish('user.created', { name: 'n' });
  await shop.sendCrossProjectMessage('a', ['b'], 'user.created', { name: 'n' }, { priority: 'low' });
  // @ts-expect-error a name is a text
  await shop.sendCrossProjectMessage('a', '*', 'user.created', { name: 1 });
  // @ts-expect-error not in the map
  await shop.sendCrossProjectMessage('a', '*', 'user.deleted', { name: 'n' });
  await shop.setupCrossProjectHandler('b', 'order.paid', ({ payload, source }) => [payload.data.cents.toFixed(), source.projectId], {
    requireSignatureValidation: true,
    group: 'g',
  });
  await shop.setupCrossProjectHandler('b', 'agent.failed', ({ payload }) => payload.data.error.length);
  await shop.setupCrossProjectHandler<User>('b', 'user.*', ({ payload }) => payload.data.name);
  // @ts-expect-error there is no such field
  await shop.setupCrossProjectHandler('b', 'order.paid', ({ payload }) => payload.data.nothing);
  // @ts-expect-error not in the map
  await shop.setupCrossProjectHandler('b', 'order.lost', () => 1);
  // @ts-expect-error no such option
  await shop.setupCrossProjectHandler('b', 'order.paid', () => 1, { groups: 'g' });
  await plain.setupCrossProjectHandler<User>('b', 'any.name', ({ payload }) => payload.data.name);
  await plain.setupCrossProjectHandler('b', 'any.name', (message: CrossProjectMessage<User>) => message.payload.data.name);
  await plain.sendCrossProjectMessage<User>('a', 'b', 'any.name', { name: 'n' });
  // @ts-expect-error a name is a text
  await plain.sendCrossProjectMessage<User>('a', 'b', 'any.name', { name: 1 });
}

/** Every built-in event has a name that can be imported. */
export type Exported = [
  api.AgentSpawnedEvent,
  api.AgentStartedEvent,
  api.AgentStoppedEvent,
  api.AgentFailedEvent,
  api.AgentTerminatedEvent,
  api.TaskAssignedEvent,
  api.TaskStartedEvent,
  api.TaskCompletedEvent,
  api.TaskFailedEvent,
  api.TaskCancelledEvent,
  api.ResourceAllocatedEvent,
  api.ResourceReleasedEvent,
  api.ResourceExhaustedEvent,
  api.PerformanceMetricsEvent,
  api.ThresholdBreachedEvent,
  api.BottleneckDetectedEvent,
  api.ScaleEvent,
];

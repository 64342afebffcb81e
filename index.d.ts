/**
 * Public types of `@bluefly/ossa`. The package root, `@bluefly/ossa/services/EventBus` and
 * `@bluefly/ossa/services/ServiceRegistry` share them and export the same names.
 *
 * Every `…Config` argument is a deep partial: it is merged key by key over environment variables, and those over the
 * defaults. An unknown key, a wrong type or an impossible value is refused with ERR_INVALID_CONFIG and the path of the
 * key (`eventBus.redis.port`).
 *
 * Units: a name that ends in Ms is milliseconds. Older names keep the unit noted beside them.
 */
/// <reference types="node" />
import type { EventEmitter } from 'node:events';

// ───────────────────────────── events ─────────────────────────────

/**
 * Event type → type of its data. On a bus with a map of its own, wrong data in publish and a wrong handler type in
 * subscribe do not compile, and names that are neither in the map nor built in are refused; the same holds for publishBatch,
 * request, replay and messages between projects. Patterns stay possible: `subscribe<T>` says what their events hold. A bus
 * without a map takes any name: `publish<T>` and `subscribe<T>` say the type of the data. The built-in events
 * ({@link BuiltInEvents}) are typed on every bus.
 */
export type EventMap = Record<string, any>;

/** The map of a bus that was given none: any name with any data, the built-in events with theirs. */
export interface AnyEvents extends BuiltInEvents { [eventType: string]: any }

/** `string` for a bus without a map of its own, else `never`. */
export type UnlistedName<E> = string extends keyof E ? string : never;

/** Names that a bus with the map `E` knows: those of the map and the built-in ones; any on a bus without a map. */
export type EventName<E> = (keyof E & string) | keyof BuiltInEvents;

/** Names whose data's type a bus with the map `E` knows. */
export type ListedName<E> = string extends keyof E ? keyof BuiltInEvents : EventName<E>;

/** What a pattern looks like: it holds a wildcard. */
export type EventPattern = `${string}*${string}`;

/** Data of the event named `K` on a bus with the map `E`: the map's type, else the built-in one. */
export type DataOf<E, K> = K extends keyof E ? E[K] : K extends keyof BuiltInEvents ? BuiltInEvents[K] : never;

/** Data of an event whose name need not be listed: the built-in type of a built-in event, else `T`. */
export type UnlistedData<K, T> = K extends keyof BuiltInEvents ? BuiltInEvents[K] : T;

/** One event for publishBatch. */
export interface AnyBatchEvent { eventType: string; data: unknown; options?: PublishOptions }

/** Data of the event named `K` in publishBatch: of any type where the name is not known when compiling. */
export type BatchData<E, K> = string extends K ? unknown : DataOf<E, K>;

/** Order among waiting events; low ones keep a share. */
export declare enum EventPriority { CRITICAL = 'critical', HIGH = 'high', NORMAL = 'normal', LOW = 'low' }

/** How failed deliveries are repeated: delay × multiplier after each, up to maxDelay. */
export interface EventRetryConfig {
  maxAttempts: number;        // deliveries after the first one; 0 = never retry
  initialDelay: number;       // ms
  backoffMultiplier: number;
  maxDelay: number;           // ms
  jitter?: 'none' | 'full' | 'equal';   // default 'equal'
}

/** What the bus knows of an event. */
export interface EventMetadata {
  id: string;                 // UUIDv7, returned by publish()
  type: string;
  source: string;             // SERVICE_NAME unless given
  target?: string;
  timestamp: Date;            // when it was published
  correlationId?: string;
  causationId?: string;
  version: string;            // of the data's shape, default '1.0.0'
  priority: EventPriority;
  ttl?: number;               // seconds
  retry?: EventRetryConfig;
  tags?: string[];
  headers?: Record<string, string>;     // carries W3C traceparent/tracestate/baggage too
  partitionKey?: string;
  attempt: number;            // 1 at the first delivery
}

/** First argument of every handler. */
export interface EventPayload<T = any> { metadata: EventMetadata; data: T }

/** Third argument of publish. An unknown key is refused with ERR_INVALID_ARGUMENT. */
export interface PublishOptions {
  ttl?: number;               // seconds; 0 = never expires
  retry?: Partial<EventRetryConfig>;
  priority?: EventPriority | `${EventPriority}`;
  waitForAck?: boolean;       // resolve once a consumer group has acknowledged it
  ackTimeoutMs?: number;      // default 30000, then ERR_ACK_TIMEOUT (the event stays published)
  partitionKey?: string;      // same key → same partition, handled in order within a group
  delayMs?: number;           // or:
  deliverAt?: Date;
  idempotencyKey?: string;    // a second publish with it within idempotencyWindowMs returns the first id
  idempotencyWindowMs?: number; // default 24 h
  transient?: boolean;        // by Redis Pub/Sub to the subscribers of this moment, every one of them, at most once; nothing is stored
  correlationId?: string; causationId?: string; source?: string; target?: string;
  version?: string; tags?: string[]; headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Third argument of subscribe. An unknown key is refused with ERR_INVALID_ARGUMENT. */
export interface SubscriptionOptions {
  group?: string;             // default SERVICE_NAME, else 'default'; members of a group share the events, groups each get all
  startFrom?: 'beginning' | 'latest' | 'timestamp';   // for a new group; default 'beginning'
  startTimestamp?: Date;
  autoAck?: boolean;          // default true: acknowledged when the handler resolves
  maxUnacknowledged?: number; // in flight in this subscription; default performance.batchSize
  consumerTimeout?: number;   // ms a handler may take, from its call, before the delivery counts as failed (ERR_HANDLER_TIMEOUT); default 30000
  concurrency?: number;       // handlers running at once; default maxUnacknowledged, so 100 run in parallel unless told otherwise
  priority?: number;          // among handlers of one type in one process: higher is called first
  errorStrategy?: 'retry' | 'dlq' | 'ignore';         // default 'retry', then the dead letter queue
  retry?: Partial<EventRetryConfig>;
  filter?: { source?: string | string[]; tags?: string[]; priority?: EventPriority[]; headers?: Record<string, string> };
  ordered?: boolean;          // one at a time per partitionKey; a retry holds back its key only
  ephemeral?: boolean;        // the group ends with its last consumer, its process's death included (within 30 s); startFrom defaults to 'latest'
  batch?: { maxSize: number; maxWaitMs?: number };    // the handler gets EventPayload[]; it throws: all failed; context.fail(i, error): that one
  signal?: AbortSignal;       // aborting closes the subscription
}

/** Options of request(): `timeoutMs` is how long the answer is waited for, default 30000. */
export type RequestOptions = PublishOptions & { timeoutMs?: number };

/** What replay() reads: events published within these times, at most `limit`. */
export interface ReplayQuery { from?: Date; to?: Date; limit?: number }

/** second argument of every handler */
export interface DeliveryContext {
  readonly group: string; readonly streamId: string; readonly attempt: number; readonly redelivered: boolean;
  readonly signal: AbortSignal;         // aborted at consumerTimeout, on close and on shutdown
  ack(): Promise<void>;                 // with autoAck: false
  nack(options?: { delayMs?: number; deadLetter?: boolean; reason?: string }): Promise<void>;
  extend(ms: number): void;             // asks for more time
  fail(index: number, error: unknown): void;   // batch handlers: this event failed, the others are acknowledged
}
/** Succeeds when it returns or its promise resolves; what it throws fails the delivery. `error.permanent === true` means: do not retry. */
export type EventHandlerFn<T = any> = (payload: EventPayload<T>, context: DeliveryContext) => unknown | Promise<unknown>;

/** With `options.batch`: the events of one delivery. It throws: all failed; `context.fail(i, error)`: that one. */
export type BatchHandlerFn<T = any> = (events: EventPayload<T>[], context: DeliveryContext) => unknown | Promise<unknown>;

/** Options of a subscription whose handler gets several events at once. */
export type BatchSubscriptionOptions = SubscriptionOptions & { batch: NonNullable<SubscriptionOptions['batch']> };

/** Refuses, in options of type `O`, keys that do not exist, and `batch` beside a handler of single events. */
export type OneAtATime<O> = string extends keyof O ? unknown
  : { [Key in Exclude<keyof O, keyof SubscriptionOptions>]: never } & (O extends { batch: object } ? { batch: never } : unknown);

/** One handler on one type or pattern. */
export interface Subscription extends AsyncDisposable {
  readonly eventType: string; readonly group: string; readonly consumer: string;
  pause(): void; resume(): void;
  close(options?: { drainTimeoutMs?: number }): Promise<void>;
  /** `for await (const event of subscription)` for a subscription made without a handler */
  [Symbol.asyncIterator](): AsyncIterator<EventPayload & { ack(): Promise<void>; nack(o?: object): Promise<void> }>;
}

// ───────────────────────────── core bus ─────────────────────────────

/** Configuration of RedisEventBus, and `eventBus` in that of OSSAEventBus. */
export interface EventBusConfig {
  redis: {
    url?: string;             // redis://, rediss://, or memory:// for the embedded bus; wins over host and port
    host: string; port: number; username?: string; password?: string; db?: number;
    keyPrefix?: string;
    tls?: boolean | { ca?: string; cert?: string; key?: string; serverName?: string; rejectUnauthorized?: boolean };
    cluster?: { nodes: Array<{ host: string; port: number }>;
                options?: { enableReadyCheck?: boolean; readFromReplicas?: boolean; redisOptions?: { username?: string; password?: string; tls?: object } } };
    sentinel?: { masterName: string; nodes: Array<{ host: string; port: number }>; username?: string; password?: string };
    connectTimeoutMs?: number;          // default 10000
    commandTimeoutMs?: number;          // default 5000
  };
  performance: {
    batchSize: number;        // most events read at once
    batchTimeout: number;     // ms, longest a read blocks when nothing is there; never delays an event
    connectionPoolSize: number;
    pipelineSize: number;     // most commands sent in one pipeline
  };
  monitoring: {
    enabled: boolean; metricsInterval: number; healthCheckInterval: number;
    /**
     * Debug mode: with a samplingRate (0 to 1) what that share of the events goes through is logged, one line a step, with
     * level debug: to `logger`, or to console.debug where there is none. The event's id decides, so that all processes with
     * one rate log the same events. `true` and an object without a samplingRate log nothing.
     * `false`, or `enabled: false`, also switches traces off: no spans, nothing of them in events or taken from events (docs/tracing.md).
     */
    tracing: boolean | { enabled: boolean; samplingRate?: number };
  };
  defaults: { ttl: number; retry: EventRetryConfig; priority: EventPriority };
  deadLetterQueue: { enabled: boolean; keyPattern?: string /* default <keyPrefix>:dlq */; retention: number /* seconds */ };
  limits?: {
    maxPayloadBytes?: number;           // default 1 MiB → ERR_PAYLOAD_TOO_LARGE
    maxPendingPublishes?: number;       // default 100000, also while Redis is away → ERR_BACKPRESSURE
    keepAcknowledged?: number;          // acknowledged events kept a stream for replay and new groups, within their ttl; default 100000
    maxStreamLength?: number;           // most events of a stream (each lane of each partition of a type is one); default none; at it publish is refused with ERR_STREAM_FULL unless acknowledged ones can go
    stallTimeoutMs?: number;            // JavaScript thread silent this long → its events go to other processes; default 120000
  };
  /** publish resolves after WAIT, or WAITAOF with fsync (Redis 7.2+, else ERR_INVALID_CONFIG at connect); else ERR_NOT_REPLICATED, achieved level in details */
  durability?: { waitReplicas?: number; fsync?: boolean; waitTimeoutMs?: number };
  logger?: { debug(m: string): void; info(m: string): void; warn(m: string): void; error(m: string): void };
  /** The least severe lines that are logged, to `logger`, or to the console where there is none. Default: OSSA_LOG, else 'warn'. What
   *  debug mode writes down (monitoring.tracing.samplingRate) was asked for, and is logged at every level but 'silent'. */
  logLevel?: LogLevel;
}
/** How severe a line of the log is; 'silent': none. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
/** What a listener of 'log' is given: a line of logLevel or above. A logger and the console get `message` with `fields` behind it as
 *  key=value. Where somebody listens and there is no logger, nothing goes to the console. */
export interface LogLine {
  level: Exclude<LogLevel, 'silent'>; message: string; timestamp: Date;
  target?: string;                     // the part of the engine that says it
  fields?: Record<string, string>;     // what it happened to, and why
}
/** host localhost, port 6379, keyPrefix 'ossa:eventbus'; batchSize 100, batchTimeout 1000, connectionPoolSize 10,
 *  pipelineSize 100; monitoring on, 30000, true, 15000; ttl 3600, normal, retry 3 × from 1000 ms × 2 to 30000 ms;
 *  dead letters on, 604800 (a week) */
export declare const DEFAULT_EVENT_BUS_CONFIG: EventBusConfig;

/** Counters of one bus. */
export interface EventBusMetrics {
  eventsPublished: number; eventsConsumed: number; eventsInFlight: number; eventsFailed: number; eventsInDLQ: number;
  avgProcessingTime: number /* ms */; peakEventsPerSecond: number; currentThroughput: number /* over the last 10 s */;
  errorRate: number /* percent of deliveries over the last 5 min */; connectionPoolUtilization: number /* percent */;
}
/** Answer of RedisEventBus.getStatus(). */
export interface EventBusStatus {
  status: 'healthy' | 'degraded' | 'unhealthy';
  redis: { connected: boolean; cluster?: boolean; nodes?: Array<{ host: string; port: number; status: string }> };
  subscriptions: number; streams: number; metrics: EventBusMetrics; lastHealthCheck: Date;
}
/** How the events of a type are kept, see createStream(). All numbers are for each stream: a partition has one for each priority used. */
export interface StreamConfig {
  /** Most events, 1 or more: at it publish is refused with ERR_STREAM_FULL, unless acknowledged ones can go. Delayed events are never refused. */
  maxLength: number;
  /** What ends the life of acknowledged events; others stay until their ttl, delivered ones until they are settled. Without any group, of all events.
   *  'count': only retentionValue of them are kept (instead of limits.keepAcknowledged), and none beyond its ttl. 'time': they are kept for
   *  retentionValue seconds, whatever their ttl. 'both': for retentionValue seconds, and at most maxLength of them. */
  retention: 'time' | 'count' | 'both';
  retentionValue: number;     // seconds for 'time' and 'both', above 0; events for 'count', 0 or more
  /** How events without partitionKey are spread: 'hash' by their id, 'round-robin' in turn; default 'none': one partition. */
  partitioning?: 'none' | 'hash' | 'round-robin';
  partitions?: number;        // 1 to 256, more than 1 with 'hash' or 'round-robin' only; default 1; never changes
}
/** What a stream holds now. */
export interface StreamStats {
  messageCount: number; sizeBytes: number; firstMessage: Date | null; lastMessage: Date | null;
  consumerGroups: number; activeConsumers: number;
  groups: Array<{ name: string; pending: number; lag: number | null; consumers: number }>;
}
/** A stream: the events of one type. */
export interface EventStream { name: string; config: StreamConfig; stats: StreamStats }

/** An event that a group gave up. `reason`: 'max-attempts' 'handler' 'expired' 'crashed' 'malformed' 'contract' 'signature' 'permanent'. */
export interface DeadLetter<T = any> {
  id: string; eventType: string; group: string; reason: string; error: string; attempts: number;
  failedAt: Date; event: EventPayload<T>;
}
/** Answer of explain(). `state`: it waits to be due, is in the stream (at `streamId`), is there no more but in a dead letter, or its
 *  ttl was over before a group got it. `event.metadata.attempt` is 0. A group that acknowledged it, began behind it or was led past
 *  it when it expired says 'acknowledged', with `attempts` 0: no record. Of a trimmed event only groups with a dead letter are known. */
export interface EventExplanation {
  event: EventPayload; streamId?: string; state: 'delayed' | 'stored' | 'trimmed' | 'expired';
  groups: Array<{ name: string; state: 'not-delivered' | 'held' | 'retry-due' | 'acknowledged' | 'dead-lettered'; consumer?: string; attempts: number; nextRetryAt?: Date; lastError?: string }>;
}
/** The dead letter queue. */
export interface DeadLetters {
  list(q?: { eventType?: string; group?: string; from?: Date; to?: Date; limit?: number; cursor?: string }):
    Promise<{ items: DeadLetter[]; cursor?: string }>;
  count(q?: { eventType?: string; group?: string }): Promise<number>;
  /** puts them back for the group that failed them, attempts from 1; returns how many */
  redrive(q: { ids?: string[]; eventType?: string; group?: string }): Promise<number>;
  purge(q: { ids?: string[]; eventType?: string; group?: string }): Promise<number>;
}

/** What both bus classes can do.
 *  Lifecycle events: 'event:published' 'event:consumed' 'event:failed' 'event:retried' 'event:dead-lettered' 'event:expired'
 *  'subscription:created' 'subscription:cancelled' 'data:loss' 'connection:lost' 'connection:restored' 'metrics:updated'
 *  'health:status:changed' 'log' 'error', and of an OSSAEventBus 'agent:circuit:changed', 'alert:triggered' and 'alert:resolved' (an
 *  AlertEvent; resolved: with `resolvedAt`). 'log': a line of the log, a LogLine. 'error' without a listener is logged, it never
 *  ends the process. */
export declare abstract class EventBus<E extends EventMap = AnyEvents> extends EventEmitter implements AsyncDisposable {
  /** Resolves with the event's id once the store has it. `undefined` is stored as null, a Date as its ISO string. */
  publish<K extends keyof E & string>(eventType: K, data: E[K], options?: PublishOptions): Promise<string>;
  publish<K extends keyof BuiltInEvents>(eventType: K, data: DataOf<E, K>, options?: PublishOptions): Promise<string>;
  publish<T = any, N extends string = string>(eventType: N & UnlistedName<E>, data: UnlistedData<N, T>, options?: PublishOptions): Promise<string>;
  /** All ids in the order of `events`; or an error whose `details.results` holds `{ id }` or `{ error }` for each. */
  publishBatch<const Names extends readonly string[]>(events: readonly AnyBatchEvent[] &
    { [I in keyof Names]: { eventType: Names[I] & EventName<E>; data: BatchData<E, Names[I]>; options?: PublishOptions } }): Promise<string[]>;
  /** eventType may hold wildcards: `*` one dot-separated part, `**` any number; types first seen later are joined too.
   *  With `options.batch` the handler gets several events at once. Without a handler the subscription is an async iterator. */
  subscribe<K extends keyof E & string>(eventType: K, handler: BatchHandlerFn<E[K]>, options: BatchSubscriptionOptions): Promise<Subscription>;
  subscribe<K extends keyof BuiltInEvents>(eventType: K, handler: BatchHandlerFn<DataOf<E, K>>, options: BatchSubscriptionOptions): Promise<Subscription>;
  subscribe<T = any, N extends string = string>(eventType: N & (UnlistedName<E> | EventPattern),
    handler: BatchHandlerFn<UnlistedData<N, T>>, options: BatchSubscriptionOptions): Promise<Subscription>;
  subscribe<K extends keyof E & string, O extends SubscriptionOptions = SubscriptionOptions>(eventType: K,
    handler?: EventHandlerFn<E[K]> | null, options?: O & OneAtATime<O>): Promise<Subscription>;
  subscribe<K extends keyof BuiltInEvents, O extends SubscriptionOptions = SubscriptionOptions>(eventType: K,
    handler?: EventHandlerFn<DataOf<E, K>> | null, options?: O & OneAtATime<O>): Promise<Subscription>;
  subscribe<T = any, N extends string = string, O extends SubscriptionOptions = SubscriptionOptions>(eventType: N & (UnlistedName<E> | EventPattern),
    handler?: EventHandlerFn<UnlistedData<N, T>> | null, options?: O & OneAtATime<O>): Promise<Subscription>;
  subscribe(eventType: EventName<E> | EventPattern, handler?: null, options?: SubscriptionOptions): Promise<Subscription>;
  /** Closes this bus's subscriptions of that very type or pattern; with a handler, those of that handler only. */
  unsubscribe(eventType: string, handler?: Function): Promise<void>;
  /** request/reply: resolves with what the handler returned; ERR_REQUEST_TIMEOUT, ERR_REMOTE */
  request<R = any>(...request: { [K in ListedName<E>]: [eventType: K, data: DataOf<E, K>, options?: RequestOptions] }[ListedName<E>]): Promise<R>;
  request<R = any, N extends string = string>(eventType: N & UnlistedName<E>, data: UnlistedData<N, unknown>, options?: RequestOptions): Promise<R>;
  request<R = any, K extends keyof E & string = never>(eventType: K, data: E[K], options?: RequestOptions): Promise<R>;
  /** Says how a type's events are kept and spread, and makes its streams. For a type that is there it changes what is kept; another number
   *  of partitions is ERR_INVALID_ARGUMENT. Other processes go by it within moments. */
  createStream(name: string, config: StreamConfig): Promise<EventStream>;
  /** null for a type that was never seen. Statistics are sums over all partitions; lag is null where more than 10000 events would have to be counted;
   *  activeConsumers are those whose process is alive. config: the defaults where createStream was not called. */
  getStream(name: string): Promise<EventStream | null>;
  /** Deletes the group's subscription to that very type or pattern, and what waits in the group; resolves with whether there was one.
   *  ERR_INVALID_ARGUMENT while it has live consumers, and for a type that the group reads by a pattern (`details.pattern`). */
  deleteGroup(eventTypeOrPattern: string, group: string): Promise<boolean>;
  /** Reads history without consuming it, oldest first, up to the last event there is when the loop begins. `from` and `to` are
   *  times of storing (by the server's clock), both included. `metadata.attempt` is 0: it is no delivery. */
  replay<K extends keyof E & string>(eventType: K, q?: ReplayQuery): AsyncIterable<EventPayload<E[K]>>;
  replay<K extends keyof BuiltInEvents>(eventType: K, q?: ReplayQuery): AsyncIterable<EventPayload<DataOf<E, K>>>;
  replay<T = any, N extends string = string>(eventType: N & UnlistedName<E>, q?: ReplayQuery): AsyncIterable<EventPayload<UnlistedData<N, T>>>;
  readonly deadLetters: DeadLetters;
  /** Everything known of one event: where it is, per group who holds it, attempts, next retry, acknowledged, dead-lettered and why.
   *  Looked for within 60 s and 50,000 entries of a stream around the time in its id; null when it is not found there. */
  explain(eventType: string, eventId: string): Promise<EventExplanation | null>;
  getMetrics(): EventBusMetrics;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The core bus: connect(), then publish and subscribe. */
export declare class RedisEventBus<E extends EventMap = AnyEvents> extends EventBus<E> {
  constructor(config?: DeepPartial<EventBusConfig>);
  connect(): Promise<void>;                                             // idempotent
  disconnect(options?: { drainTimeoutMs?: number }): Promise<void>;     // idempotent
  getStatus(): Promise<EventBusStatus>;
}

// ───────────────────────────── orchestrating class ─────────────────────────────

/** Configuration of OSSAEventBus. */
export interface OSSAEventBusConfig {
  eventBus: EventBusConfig;
  /** What the bus does with the registry it was given. */
  serviceRegistry: {
    enabled: boolean;                   // false: nothing
    autoRegister: boolean;              // the bus registers itself
    healthMonitoring: boolean;          // it takes its turn in looking after services
    contractDiscovery?: boolean;        // it asks services for their contracts, and registers them
    discoveryRefreshInterval?: number;  // ms between two such looks
    http?: ServiceHttpConfig;           // beside what the registry is told: both hold at once; left out: the registry's alone
  };
  crossProject: { enabled: boolean; securityEnabled: boolean; rateLimitingEnabled: boolean; trustedKeys?: Record<string /* projectId */, string>;
    audit?: { retention: number /* seconds, 2592000: 30 days */; maxRecords: number /* 1000000; the oldest go first */ } };
  orchestration: { enabled: boolean; config: LoadBalancingConfig };
  monitoring: MonitoringConfig;
}

/** Defaults: everything enabled (autoRegister, healthMonitoring, contractDiscovery too), discoveryRefreshInterval 60000; the numbers noted beside the fields below. */
export declare class OSSAEventBus<E extends EventMap = AnyEvents> extends EventBus<E> {
  /** ERR_INVALID_ARGUMENT for what is no ServiceRegistry of this copy of the package. The bus never closes the registry: who made it does. */
  constructor(serviceRegistry?: ServiceRegistry | null, config?: DeepPartial<OSSAEventBusConfig>);
  initialize(): Promise<void>;          // idempotent; every method that needs it says ERR_NOT_INITIALIZED before; ERR_CLOSED where the registry was closed
  shutdown(options?: { drainTimeoutMs?: number }): Promise<void>;   // idempotent
  /** a part that cannot tell is left out */
  getStatus(): Promise<{ eventBus: EventBusStatus; serviceRegistry?: ServiceRegistryIntegrationStatus; crossProject?: CrossProjectStats;
    orchestration?: OrchestrationStats; monitoring?: MonitoringStats }>;

  registerProject(config: ProjectConfig): Promise<void>;
  unregisterProject(projectId: string): Promise<boolean>;     // ERR_NOT_PERMITTED unless this process registered it with its secret
  registerContract(contract: CrossProjectEventContract): Promise<void>;
  registerRoute(route: MessageRoute): Promise<void>;
  /** from a process that registered the source project with its secret, else ERR_NOT_PERMITTED */
  sendCrossProjectMessage<K extends keyof E & string>(source: string, target: string | string[] | '*', eventType: K, data: E[K],
    options?: CrossProjectOptions): Promise<string>;
  sendCrossProjectMessage<K extends keyof BuiltInEvents>(source: string, target: string | string[] | '*', eventType: K, data: DataOf<E, K>,
    options?: CrossProjectOptions): Promise<string>;
  sendCrossProjectMessage<T = any, N extends string = string>(source: string, target: string | string[] | '*', eventType: N & UnlistedName<E>,
    data: UnlistedData<N, T>, options?: CrossProjectOptions): Promise<string>;
  /** with `options.batch` the handler gets several messages at once */
  setupCrossProjectHandler<K extends keyof E & string>(projectId: string, eventType: K,
    handler: CrossProjectBatchHandlerFn<E[K]>, options: CrossProjectHandlerOptions & BatchSubscriptionOptions): Promise<Subscription>;
  setupCrossProjectHandler<T = any, N extends string = string>(projectId: string, eventType: N & (UnlistedName<E> | EventPattern),
    handler: CrossProjectBatchHandlerFn<UnlistedData<N, T>>, options: CrossProjectHandlerOptions & BatchSubscriptionOptions): Promise<Subscription>;
  setupCrossProjectHandler<K extends keyof E & string>(projectId: string, eventType: K,
    handler: CrossProjectHandlerFn<E[K]>, options?: CrossProjectHandlerOptions): Promise<Subscription>;
  setupCrossProjectHandler<K extends keyof BuiltInEvents>(projectId: string, eventType: K,
    handler: CrossProjectHandlerFn<DataOf<E, K>>, options?: CrossProjectHandlerOptions): Promise<Subscription>;
  setupCrossProjectHandler<T = any, N extends string = string>(projectId: string, eventType: N & (UnlistedName<E> | EventPattern),
    handler: CrossProjectHandlerFn<UnlistedData<N, T>>, options?: CrossProjectHandlerOptions): Promise<Subscription>;
  getAvailableContracts(projectId: string): CrossProjectEventContract[];
  validateProjectSetup(projectId: string): Promise<{ isValid: boolean; errors: string[]; warnings: string[]; recommendations: string[] }>;
  getCrossProjectStats(projectId?: string): Promise<CrossProjectStats>;
  /** public keys of a project, the present one last: what to pin in crossProject.trustedKeys */
  getProjectKeys(projectId: string): Promise<ProjectKey[]>;
  /** in the order in which Redis took the records, oldest first; a page may be short, or empty, and have more behind its cursor */
  getAuditLog(q?: AuditQuery): Promise<{ items: AuditRecord[]; cursor?: string }>;
  /** all records that match, each a line of JSON */
  exportAuditLog(q?: Omit<AuditQuery, 'limit' | 'cursor'>): AsyncIterableIterator<string>;
  verifyAuditLog(): Promise<{ ok: boolean; checked: number; firstBroken?: string }>;

  /** Gives the task to an agent that can do it: resolves with its id, or null when the task waits for one, or for its dependencies. A task
   *  is known by its id: one that is there already is not taken twice, so the call may be repeated. ERR_REQUEST_TIMEOUT where no process
   *  of this bus distributes tasks. With orchestration.enabled false this and all methods below are ERR_DISABLED. */
  distributeTask(task: OrchestrationTask): Promise<string | null>;
  /** Its agent is told to stop, nobody else gets it. Resolves with whether there was something to cancel. */
  cancelTask(id: string, reason?: string): Promise<boolean>;
  /** null when there is none of that id, or it ended long ago */
  getTask(id: string): Promise<TaskView | null>;
  /** these three as this process knows it: without asking Redis */
  getOrchestrationStats(): OrchestrationStats;
  getAgents(): AgentView[];
  getPools(): PoolView[];

  /** Measured figures only: of this process, and over all processes where Redis has the figure (see DashboardData) */
  getDashboardData(): Promise<DashboardData>;
  /** What this process measured in the last `windowSeconds`, one of monitoring.metrics.aggregationWindows (default: the shortest), and how
   *  that was before, as long as monitoring.metrics.retentionPeriod says. Without asking Redis. ERR_INVALID_ARGUMENT for another window;
   *  ERR_DISABLED where monitoring.metrics.enabled is false. */
  getAnalytics(windowSeconds?: number): Analytics;
  /** alerts that are raised now, the oldest first; 'alert:triggered' and 'alert:resolved' tell of changes */
  getActiveAlerts(): AlertEvent[];
  /** all consumer groups of all event types, as they stand in Redis */
  getGroups(): Promise<GroupView[]>;
  /** Prometheus text format 0.0.4; what is in it: docs/monitoring.md. ERR_DISABLED where monitoring.metrics.enabled is false */
  exportMetrics(): string;
  /** Never rejects. A part that does not answer within monitoring.healthCheck.timeout is 'unhealthy'. Components, each with details:
   *  `eventBus`; `redis` ('unhealthy' when it is away); `process` ('unhealthy' where a figure is beyond one of
   *  monitoring.healthCheck.criticalThresholds); with a registry `serviceRegistry`: 'unhealthy' where its Redis cannot be reached, 'degraded'
   *  where a service is unhealthy or degraded, a circuit is not closed or there is another problem; `crossProject`; `orchestration`:
   *  'degraded' where an agent has failed or its circuit is not closed; `monitoring`: 'degraded' while an alert is raised. The status of the
   *  whole is the worst of the first three, and 'degraded' where another one is not healthy: without those the bus still publishes and
   *  consumes. */
  healthCheck(): Promise<HealthReport>;
  /** GET /metrics /healthz /readyz /api/… and the dashboard page at /; to mount in Express, Fastify or node:http */
  httpHandler(options?: { token?: string; basePath?: string }): (req: import('node:http').IncomingMessage, res: import('node:http').ServerResponse) => void;
  serve(options?: { port?: number; host?: string; token?: string }): Promise<{ port: number; url: string; close(): Promise<void> }>;

  /** views kept for programs written against the earlier TypeScript bus */
  getEventBus(): RedisEventBus<E>;
  getServiceRegistryIntegration(): ServiceRegistryIntegration | undefined;   // undefined without a registry and where serviceRegistry.enabled is false
  getCrossProjectCommunication(): object | undefined;
  getOrchestrationOptimizer(): OrchestrationOptimizer | undefined;           // undefined where orchestration.enabled is false
  getMonitoring(): Monitoring | undefined;                                   // undefined where metrics and alerting are off

  /** the circuit of an agent opened, closed, or lets one task through to see ('half-open') */
  on(event: 'agent:circuit:changed', listener: (change: AgentCircuitChange) => void): this;
  on(event: string | symbol, listener: (...args: any[]) => void): this;
  once(event: 'agent:circuit:changed', listener: (change: AgentCircuitChange) => void): this;
  once(event: string | symbol, listener: (...args: any[]) => void): this;
  off(event: 'agent:circuit:changed', listener: (change: AgentCircuitChange) => void): this;
  off(event: string | symbol, listener: (...args: any[]) => void): this;
}

/** Makes an OSSAEventBus and initialises it. */
export declare function createOSSAEventBus<E extends EventMap = AnyEvents>(
  serviceRegistry?: ServiceRegistry | null, config?: DeepPartial<OSSAEventBusConfig>): Promise<OSSAEventBus<E>>;

// ───────────────────────────── cross-project ─────────────────────────────

/** A project that may send to others. */
export interface ProjectConfig {
  projectId: string; name: string; namespace: string;
  allowedEventTypes: string[];          // wildcards as in subscribe
  allowedTargets: string[];
  /** secret: at least 16 bytes; it never leaves the process. To change it, give the one before as previousSecret. */
  credentials?: { apiKey: string; secret: string; previousSecret?: string };
  rateLimiting?: { eventsPerSecond: number; burstLimit: number };
}
/** What the data of events between projects must look like. */
export interface CrossProjectEventContract {
  name: string; version: string; sourceProject: string; targetProjects: string[]; eventTypes: string[];
  schema: any;                          // JSON Schema, drafts 4 to 2020-12, formats checked
  metadata: { description: string; author: string; createdAt: Date; updatedAt: Date; tags?: string[] };
}
/** What a cross-project handler is given. */
export interface CrossProjectMessage<T = any> {
  source: { projectId: string; namespace: string; version: string };
  target: { projectId: string; namespace: string };
  payload: EventPayload<T>;
  security: { signature: string; timestamp: number; nonce: string; keyId?: string };   // signature '' where it is not signed; nonce: the message's id
  contracts?: string[];                 // that the data was checked against, '<name>@<version>'
  route?: string;                       // that brought it here, where it was not sent to this project
}
/** Options of sendCrossProjectMessage(). */
export type CrossProjectOptions = Pick<PublishOptions, 'correlationId' | 'causationId' | 'priority' | 'ttl' | 'delayMs' | 'partitionKey' | 'idempotencyKey'
  | 'tags' | 'headers'> & { contractVersion?: string /* semver version or range of the contract; without it the newest that takes the data */ };
/** Options of setupCrossProjectHandler(). */
export type CrossProjectHandlerOptions = { requireSignatureValidation?: boolean } & SubscriptionOptions;
/** Handler of messages between projects. */
export type CrossProjectHandlerFn<T = any> = (message: CrossProjectMessage<T>, context: DeliveryContext) => unknown | Promise<unknown>;
/** With `options.batch`: the messages of one delivery. */
export type CrossProjectBatchHandlerFn<T = any> = (messages: CrossProjectMessage<T>[], context: DeliveryContext) => unknown | Promise<unknown>;
/** A public key of a project and its time; the present one has no `until`. */
export interface ProjectKey { keyId: string; publicKey: string /* base64url, as crossProject.trustedKeys takes it */; from: Date; until?: Date }
/** Sends copies of matching messages to more projects. */
export interface MessageRoute {
  name: string;
  match: { sourceProject?: string; eventTypes?: string[]; tags?: string[]; where?: object /* JSON Schema on data */ };
  targets: string[];
}
/** Counters of cross-project messages. */
export interface CrossProjectStats {
  totalProjects: number; totalContracts: number; messagesSent: number; messagesReceived: number; messagesFailed: number;
  activeConnections: number; rateLimitHits: number; averageLatency: number /* ms */;
  projectStats?: Array<{ projectId: string; messagesSent: number; messagesReceived: number; lastActivity: Date }>;
}
/** What became of a cross-project message. */
export type AuditOutcome = 'sent' | 'delivered' | 'failed' | 'denied' | 'rate-limited' | 'invalid' | 'forged' | 'replayed';
/** One line of the audit log. */
export interface AuditRecord { id: string; at: Date; sourceProject: string; targetProject: string; eventType: string; messageId?: string; outcome: AuditOutcome; reason?: string; hash: string;
  chain?: string; sequence?: number; previousHash?: string; keyId?: string; signature?: string }
/** Which records of the audit log: those with projectId as source or target. */
export interface AuditQuery { projectId?: string; from?: Date; to?: Date; outcome?: AuditOutcome; limit?: number /* 100, at most 1000 */; cursor?: string }

// ───────────────────────────── orchestration ─────────────────────────────

/** Configuration of orchestration. */
export interface LoadBalancingConfig {
  maxAgentsPerPool: number /* 50 */; minAgentsPerPool: number /* 2 */;
  autoScaling: { scaleUpThreshold: number /* 0.8 */; scaleDownThreshold: number /* 0.3 */; cooldownPeriod: number /* 60000 ms */ };
  distributionStrategy: { name: 'round-robin' | 'least-loaded' | 'capability-based' | 'performance-weighted' | 'predictive'; parameters: Record<string, any> };
  circuitBreaker: { failureThreshold: number /* 0.5 */; resetTimeout: number /* 30000 ms */; monitoringPeriod: number /* 10000 ms */;
    minimumCalls?: number /* 5; fewer in monitoringPeriod say nothing of an agent */ };
  agentTimeoutMs?: number;              // silent this long → failed, its tasks are distributed again; default 60000
}
/** A task for distributeTask(). */
export interface OrchestrationTask {
  id: string; type: string; priority: number; requiredCapabilities: string[];
  estimatedDuration?: number /* ms */; dependencies?: string[]; data?: unknown; maxAttempts?: number;
  timeoutMs?: number;                   // longest that an agent may work on it
}
/** A task as the bus knows it. `data` is there until the task ends well, `result` as the agent gave it. */
export interface TaskView {
  id: string; type: string; priority: number; requiredCapabilities: string[]; estimatedDuration?: number /* ms */;
  dependencies: string[]; data?: any; maxAttempts: number; timeoutMs?: number;
  status: 'waiting' /* for its dependencies */ | 'queued' | 'assigned' | 'running' | 'completed' | 'failed' | 'cancelled';
  attempts: number; agentId?: string;
  submittedAt: Date; assignedAt?: Date; startedAt?: Date; endedAt?: Date;
  waitingFor?: string[];      // of its dependencies, those that are not done
  error?: string; result?: any; correlationId?: string;
}
/** Figures over all agents. */
export interface OrchestrationStats {
  totalAgents: number; totalPools: number; averageUtilization: number /* percent */; totalThroughput: number /* tasks a minute */;
  averageResponseTime: number /* ms */; errorRate: number /* percent */; queueDepth: number;
}
/** An agent as this process sees it. */
export interface AgentView {
  id: string; type: string; capabilities: string[]; status: 'idle' | 'busy' | 'draining' | 'failed' | 'terminated'; poolId: string;
  circuit: 'closed' | 'open' | 'half-open'; runningTasks: string[]; maxTasks: number;
  performance: { avgCompletionTime: number; successRate: number; tasksCompleted: number; loadFactor: number; throughput: number };
  resources: { cpu: number; memory: number; networkIO: number; diskIO: number }; lastActivity: Date;
  orchestratorId?: string;              // as it said in agent.spawned
}
/** A pool of agents of one type. */
export interface PoolView {
  id: string; agentType: string; agents: string[]; capacity: number;
  metrics: { utilization: number; avgResponseTime: number; queueDepth: number; throughput: number; errorRate: number };
}
/** 'agent:circuit:changed' */
export interface AgentCircuitChange { agentId: string; from: AgentView['circuit']; to: AgentView['circuit'] }
/** What an OSSAEventBus offers for agents and their tasks, on its own. */
export type OrchestrationOptimizer =
  Pick<OSSAEventBus, 'distributeTask' | 'cancelTask' | 'getTask' | 'getAgents' | 'getPools' | 'getOrchestrationStats'>;

// ───────────────────────────── agents ─────────────────────────────

/** Second argument of createAgent. An unknown key is refused with ERR_INVALID_ARGUMENT. */
export interface AgentOptions<Data = any, Result = any> {
  agentId: string;            // 1–128 of A-Z a-z 0-9 _ . : / -; nobody else's
  agentType: string;          // the same characters; agents of one type are a pool
  capabilities: string[];     // it is given tasks that require no others; at most 100, of 1–128 of these characters
  maxTasks?: number;          // tasks at a time, 1 to 10000, default 1; more that come wait in the agent
  /** Does a task. What it returns is the task's result (JSON; undefined is null); what it throws fails the task, which is then given out
   *  again up to its maxAttempts. `error.permanent === true` means: do not. */
  handler(task: AgentTask<Data>, context: AgentContext): Result | Promise<Result>;
  taskTimeoutMs?: number;     // longest that a task may take; of this and the task's own timeoutMs the shorter holds; default: none
  reportIntervalMs?: number;  // how often it says that it is well, with performance.metrics, 100 to 3600000; default 5000
  drainTimeoutMs?: number;    // how long drain() lets tasks go on, 0 to 86400000; default 10000
  drainOnSigterm?: boolean;   // default true: at SIGTERM all such agents of the process drain, then the process ends, unless it has other listeners for SIGTERM
  signal?: AbortSignal;       // aborting drains it
}
/** A task as an agent is given it. */
export interface AgentTask<Data = any> {
  id: string; type: string; priority: number; data: Data; attempt: number /* 1 the first time that anybody is given it */;
  dependencies: string[]; requiredCapabilities: string[]; estimatedDuration?: number /* ms */; timeoutMs?: number; correlationId?: string;
}
/** Second argument of an agent's handler. */
export interface AgentContext {
  readonly attempt: number;
  /** Aborted when the task is cancelled, takes too long, or does not end while the agent drains: what the handler returns is not used any more. */
  readonly signal: AbortSignal;
}
/** Events of an agent and what their listeners are given. A task is told to have ended, and counted, once that is stored. 'drained': it has stopped, for whatever reason; the program may end.
 *  'error': an error that reaches no caller; without a listener it is logged, it never ends the process. */
export interface AgentEvents {
  'task:started': { taskId: string; attempt: number };
  'task:completed': { taskId: string; attempt: number; result: any; duration: number /* ms */ };
  'task:failed': { taskId: string; attempt: number; error: string };
  'drained': { reason: string };
  'error': OSSAError;
}
/**
 * One who does tasks that are distributed on its bus, made by {@link createAgent}. It keeps Node alive until it has stopped. What it says
 * is retried until Redis takes it or the bus is closed. When the bus is closed it stops at once: drain() it before to let tasks end.
 */
export interface Agent extends EventEmitter, AsyncDisposable {
  readonly id: string;
  readonly type: string;
  readonly status: 'running' | 'draining' | 'stopped';
  readonly running: string[];                                                       // ids of the tasks that are being done
  readonly stats: { completed: number; failed: number; cancelled: number };         // since it was made
  /** Takes no more tasks, gives back those not begun, and resolves when the others have ended and that is told. Those that have not after
   *  timeoutMs (drainTimeoutMs) are aborted, and have failed. Idempotent. Called in a handler of this agent it does not wait for that one. */
  drain(options?: { reason?: string; timeoutMs?: number }): Promise<void>;
  /** drain() with a timeout of 0 */
  stop(): Promise<void>;
  /** drain() */
  [Symbol.asyncDispose](): Promise<void>;

  on<K extends keyof AgentEvents>(event: K, listener: (payload: AgentEvents[K]) => void): this;
  on<N extends string | symbol>(event: N & OtherAgentEvent<N>, listener: (...args: any[]) => void): this;
  once<K extends keyof AgentEvents>(event: K, listener: (payload: AgentEvents[K]) => void): this;
  once<N extends string | symbol>(event: N & OtherAgentEvent<N>, listener: (...args: any[]) => void): this;
  off<K extends keyof AgentEvents>(event: K, listener: (payload: AgentEvents[K]) => void): this;
  off<N extends string | symbol>(event: N & OtherAgentEvent<N>, listener: (...args: any[]) => void): this;
}
/** Refuses the names of {@link AgentEvents}, whose listeners are typed. */
export type OtherAgentEvent<N> = N extends keyof AgentEvents ? never : unknown;
/**
 * Makes an agent on a connected bus of either class, and makes it known: resolves once that is stored. The processes that distribute are
 * those with an OSSAEventBus; this one need not have any. ERR_INVALID_ARGUMENT with the option's name, also where an agent of that id is
 * on this bus already.
 */
export declare function createAgent<Data = any, Result = any>(bus: EventBus<any>, options: AgentOptions<Data, Result>): Promise<Agent>;

// ───────────────────────────── monitoring ─────────────────────────────

/** Configuration of monitoring. */
export interface MonitoringConfig {
  metrics: { enabled: boolean; collectionInterval: number /* 10000 ms */; retentionPeriod: number /* 86400000 ms */; aggregationWindows: number[] /* s: 60 300 900 3600 */ };
  /** Spans of publishing and handling, for OpenTelemetry (docs/tracing.md). They are made where an endpoint is given. */
  tracing: {
    enabled: boolean;            // false: no spans, nothing of traces is put into events or taken from them
    samplingRate: number;        // 0.1: share of the traces that begin here; one that began elsewhere is recorded as was decided there
    serviceName: string;         // service.name of the spans; default SERVICE_NAME, or ossa-event-bus
    jaegerEndpoint?: string;     // where Jaeger (1.35 or later) takes OTLP, as http://jaeger:4318; its /api/traces is refused
    otlpEndpoint?: string;       // where a collector takes OTLP over HTTP, as http://collector:4318; without a path: /v1/traces. With both, spans go to both
  };
  alerting: { enabled: boolean; webhookUrl?: string;
    webhookSecret?: string;   // signs what is posted (standardwebhooks.com): whsec_ and 24 to 64 bytes as base64
    thresholds: {
    maxErrorRate: number /* 5 % */; maxLatency: number /* 1000 ms */; maxQueueDepth: number /* 1000 */; minThroughput: number /* 1/s, 0 = off */;
    maxMemoryUsage: number /* 85 % */; maxConnectionUtilization: number /* 90 % */ } };
  healthCheck: { enabled: boolean; interval: number /* 30000 ms */; timeout: number /* 5000 ms */;
    criticalThresholds: { criticalErrorRate: number /* 25 % */; criticalLatency: number /* 5000 ms */; criticalMemoryUsage: number /* 95 % */ } };
}
/** An alert that is or was raised. */
export interface AlertEvent {
  id: string; severity: 'info' | 'warning' | 'critical'; title: string; description: string; timestamp: Date;
  metric: string; currentValue: number; threshold: number; context: Record<string, any>;
}
/** What the dashboard shows. */
export interface DashboardData {
  overview: { status: 'healthy' | 'degraded' | 'unhealthy'; uptime: number /* s */; totalEvents: number; currentTPS: number; errorRate: number };
  realtime: { eventsPerSecond: number[]; latency: number[] /* ms */; errorRate: number[]; queueDepth: number[]; timestamp: Date[] };  // last 5 min, 30 points, oldest first
  topMetrics: { topEventTypes: Array<{ type: string; count: number }>; topProjects: Array<{ project: string; events: number }>;
    slowestOperations: Array<{ operation: string; avgTime: number }>; errorsByType: Array<{ error: string; count: number }> };
  activeAlerts: AlertEvent[];
}
/** What healthCheck() found. */
export interface HealthReport {
  status: 'healthy' | 'degraded' | 'unhealthy'; timestamp: Date;
  components: Record<string, { status: string; details?: any }>;
}
/** Times of one kind, ms. Percentiles are estimates, right within 7 %; a wait in a stream is known to the millisecond. All 0 where nothing was measured. */
export interface LatencyFigures { count: number; average: number; p50: number; p95: number; p99: number; max: number }
/** What happened in a time. */
export interface AnalyticsFigures {
  published: number;
  consumed: number;                     // acknowledged
  failed: number;                       // deliveries that failed
  retried: number; deadLettered: number; expired: number;
  publishedPerSecond: number; consumedPerSecond: number;
  errorRate: number;                    // percent of deliveries
  publishTime: LatencyFigures;          // from publish() to Redis' word that it is stored
  processingTime: LatencyFigures;       // of handlers
  endToEndTime: LatencyFigures;         // from an event's entry in its stream to the call of its handler, first deliveries only
}
/** What this process did, see getAnalytics(). */
export interface Analytics {
  windowSeconds: number; from: Date; to: Date;
  total: AnalyticsFigures;
  byEventType: Array<{ eventType: string } & AnalyticsFigures>;     // the busiest first; beyond 100 types they fall into 'other'
  history: Array<{ from: Date; to: Date; total: AnalyticsFigures }>; // windows before this one, the oldest first
}
/** A consumer group of one event type. */
export interface GroupView {
  eventType: string; group: string; pending: number;
  lag: number | null;                   // events it has not read; null where Redis cannot tell
  consumers: Array<{ name: string; alive: boolean }>;
}
/** Figures of the monitoring itself. */
export interface MonitoringStats { metricsCollected: number; activeTraces: number; activeAlerts: number; healthHistorySize: number; uptimeSeconds: number }

/** What there is for monitoring, on its own. Emits 'alert:triggered', 'alert:resolved', 'metrics:updated' and 'health:status:changed'. */
export interface Monitoring extends EventEmitter {
  getMonitoringStats(): MonitoringStats;
  getDashboardData(): Promise<DashboardData>;
  getAnalytics(windowSeconds?: number): Analytics;
  getActiveAlerts(): AlertEvent[];
  exportMetrics(): string;
  getGroups(): Promise<GroupView[]>;
  healthCheck(): Promise<HealthReport>;
}

// ───────────────────────────── event types ─────────────────────────────

/** Names of the built-in events. */
export declare const EVENT_TYPES: {
  readonly AGENT: { readonly SPAWNED: 'agent.spawned'; readonly STARTED: 'agent.started'; readonly STOPPED: 'agent.stopped'; readonly FAILED: 'agent.failed'; readonly TERMINATED: 'agent.terminated' };
  readonly TASK: { readonly ASSIGNED: 'task.assigned'; readonly STARTED: 'task.started'; readonly COMPLETED: 'task.completed'; readonly FAILED: 'task.failed'; readonly CANCELLED: 'task.cancelled' };
  readonly RESOURCE: { readonly ALLOCATED: 'resource.allocated'; readonly RELEASED: 'resource.released'; readonly EXHAUSTED: 'resource.exhausted' };
  readonly PERFORMANCE: { readonly METRICS: 'performance.metrics'; readonly THRESHOLD: 'performance.threshold'; readonly BOTTLENECK: 'performance.bottleneck' };
  readonly SYSTEM: { readonly HEALTH_CHECK: 'system.health_check'; readonly CONFIGURATION_CHANGED: 'system.configuration_changed'; readonly SHUTDOWN: 'system.shutdown'; readonly ERROR: 'system.error' };
  readonly ORCHESTRATION: { readonly SCALE_UP: 'orchestration.scale_up'; readonly SCALE_DOWN: 'orchestration.scale_down' };
};
/** `agent.spawned` */
export interface AgentSpawnedEvent {
  agentId: string; agentType: string; capabilities: string[]; orchestratorId?: string;
  configuration?: { maxTasks?: number; timeout?: number /* ms */; inbox?: string /* where it is told of tasks */; [key: string]: unknown };
}
/** `agent.started` */
export interface AgentStartedEvent { agentId: string; agentType: string; timestamp: EventTime }
/** `agent.stopped` */
export interface AgentStoppedEvent {
  agentId: string; reason: string; timestamp: EventTime;
  draining?: boolean;         // it takes no more tasks, and ends those it has
  inbox?: string;             // where it reads, which tells its lives apart
}
/** `agent.failed` */
export interface AgentFailedEvent { agentId: string; error: string; timestamp: EventTime }
/** `agent.terminated` */
export interface AgentTerminatedEvent { agentId: string; reason: string; timestamp: EventTime; inbox?: string }
/** `task.assigned` */
export interface TaskAssignedEvent {
  taskId: string; agentId: string; taskType: string; priority: number; estimatedDuration: number /* ms */;
  dependencies: string[]; data?: any;
  attempt?: number;           // how often it was given out, this time included
  submittedAt?: number;       // ms since 1970: the same id again is another task
}
/** `task.started` */
export interface TaskStartedEvent { taskId: string; agentId: string; timestamp: EventTime; attempt?: number }
/** `task.completed` */
export interface TaskCompletedEvent {
  taskId: string; agentId: string; result: any; duration: number /* ms */; timestamp: EventTime; attempt?: number;
}
/** `task.failed` */
export interface TaskFailedEvent {
  taskId: string; agentId: string; error: string; timestamp: EventTime; attempt?: number;
  permanent?: boolean;        // another attempt would not help
  handedBack?: boolean;       // the agent did not begin: it does not count as an attempt
  final?: boolean;            // the task is given up, after so many `attempts`, for this `reason`
  attempts?: number;
  reason?: string;
  task?: any;                 // with `final`: the task as it was distributed
}
/** `task.cancelled` */
export interface TaskCancelledEvent { taskId: string; agentId: string; reason: string; timestamp: EventTime }
/** `resource.allocated` */
export interface ResourceAllocatedEvent { resourceId: string; resourceType: string; agentId: string; allocation: any; timestamp: EventTime }
/** `resource.released` */
export interface ResourceReleasedEvent { resourceId: string; resourceType: string; agentId: string; timestamp: EventTime }
/** `resource.exhausted` */
export interface ResourceExhaustedEvent { resourceType: string; threshold: number; current: number; timestamp: EventTime }
/** `performance.metrics`; `source` is an agent id */
export interface PerformanceMetricsEvent {
  source: string;
  metrics: { cpu: number; memory: number; responseTime: number; throughput: number; errorRate: number };
  timestamp: EventTime;
  inbox?: string;             // where it is told of tasks
  running?: Array<{ taskId: string; attempt: number }>;   // what it has, also what it has not begun
}
/** `performance.threshold` */
export interface ThresholdBreachedEvent {
  metric: string; threshold: number; currentValue: number; severity: string; source: string; timestamp: EventTime;
}
/** `performance.bottleneck` */
export interface BottleneckDetectedEvent {
  component: string; bottleneckType: string; impact: any; recommendations: string[]; timestamp: EventTime;
}
/** `orchestration.scale_up` and `orchestration.scale_down` */
export interface ScaleEvent { poolId: string; agentType: string; current: number; desired: number; agentIds?: string[]; reason: string }

/** `system.configuration_changed` as a bus announces it: a service came, changed or went. */
export interface ConfigurationChangedEvent {
  component: 'service-registry';
  change: 'registered' | 'updated' | 'unregistered' | 'expired';
  service: { name: string; endpoint: string; version: string; capabilities: string[] /* their names */ };
  timestamp: string;          // ISO 8601
}
/** `system.health_check` as a bus announces it: how a service is became different. */
export interface HealthCheckEvent {
  component: 'service-registry';
  service: string;            // its name
  status: `${ServiceHealthStatus}`;
  previousStatus: `${ServiceHealthStatus}`;
  responseTime?: number;      // ms, of the look that found it
  error?: string;
  timestamp: string;          // ISO 8601
}

/**
 * A time in the data of an event: what `publish` takes. It travels as JSON, so a handler is given the ISO string of a
 * Date, or the number as it was.
 */
export type EventTime = Date | string | number;

/**
 * Types of the data of the built-in events. The `system.*` events carry whatever their publisher says; those of the bus itself are
 * {@link ConfigurationChangedEvent} and {@link HealthCheckEvent}.
 */
export interface BuiltInEvents {
  'agent.spawned': AgentSpawnedEvent;
  'agent.started': AgentStartedEvent;
  'agent.stopped': AgentStoppedEvent;
  'agent.failed': AgentFailedEvent;
  'agent.terminated': AgentTerminatedEvent;
  'task.assigned': TaskAssignedEvent;
  'task.started': TaskStartedEvent;
  'task.completed': TaskCompletedEvent;
  'task.failed': TaskFailedEvent;
  'task.cancelled': TaskCancelledEvent;
  'resource.allocated': ResourceAllocatedEvent;
  'resource.released': ResourceReleasedEvent;
  'resource.exhausted': ResourceExhaustedEvent;
  'performance.metrics': PerformanceMetricsEvent;
  'performance.threshold': ThresholdBreachedEvent;
  'performance.bottleneck': BottleneckDetectedEvent;
  'system.health_check': any;
  'system.configuration_changed': any;
  'system.shutdown': any;
  'system.error': any;
  'orchestration.scale_up': ScaleEvent;
  'orchestration.scale_down': ScaleEvent;
}

// ───────────────────────────── service registry ─────────────────────────────

/** How a service is. */
export declare enum ServiceHealthStatus { HEALTHY = 'healthy', UNHEALTHY = 'unhealthy', DEGRADED = 'degraded', UNKNOWN = 'unknown', MAINTENANCE = 'maintenance' }
/** Something a service can do. */
export interface ServiceCapability {
  name: string;               // 1–128 of A-Z a-z 0-9 _ . : / -
  version: string;            // semantic version
  inputs?: Record<string, any>; outputs?: Record<string, any>;
  description?: string;       // at most 4096 bytes
}
/** How a service was when last looked at. */
export interface ServiceHealth {
  status: ServiceHealthStatus | `${ServiceHealthStatus}`;
  lastCheck: Date;
  responseTime?: number /* ms */;
  details?: Record<string, any>;
  error?: string;
}
/** A service as the registry knows it, of at most 64 KiB as JSON. */
export interface ServiceDefinition {
  name: string;               // 1–128 of A-Z a-z 0-9 _ . : / -
  endpoint: string;           // absolute URL of any scheme with a host, at most 2048 bytes; without user and password: everybody who discovers it sees it
  capabilities: ServiceCapability[];    // at most 100
  version: string;            // semantic version
  health: ServiceHealth;
  metadata?: {
    description?: string; author?: string; documentation?: string;  // at most 4096 bytes each
    tags?: string[];          // at most 100, of at most 256 bytes
    environment?: string;     // at most 128 bytes
    healthPath?: string;      // where its health is asked for, below the endpoint: begins with '/', at most 1024 bytes; default '/health'
    eventsPath?: string;      // where it takes events; default '/events'
  };
  registeredAt: Date; updatedAt: Date;
}
/** What register() takes: a definition, also one that was discovered. Without `health` the service is 'unknown'; the times are set anew. */
export type ServiceRegistration = Omit<ServiceDefinition, 'health' | 'registeredAt' | 'updatedAt'>
  & Partial<Pick<ServiceDefinition, 'health' | 'registeredAt' | 'updatedAt'>>;
/** What discover() looks for; all that is given must hold. An unknown key is refused with ERR_INVALID_ARGUMENT. */
export interface ServiceDiscoveryFilter {
  namePattern?: string;       // glob: * ? [ab] {a,b}
  capability?: string;        // name of one
  healthStatus?: ServiceHealthStatus;
  tags?: string[];            // any of them
  version?: string;           // semver range as npm has it: prereleases only where it names one
  environment?: string;
}
/** How many services there are, and how they are. */
export interface ServiceRegistryStats { totalServices: number; healthyServices: number; unhealthyServices: number; degradedServices: number; unknownServices: number; maintenanceServices?: number }
/** 'service:health:changed': how a service is became different. */
export interface ServiceHealthChange {
  name: string;
  oldStatus: `${ServiceHealthStatus}`; newStatus: `${ServiceHealthStatus}`;
  health: ServiceHealth; service: ServiceDefinition;
}
/**
 * Events of a ServiceRegistry and what their listeners are given. Those of services come from whichever process caused them.
 * 'service:expired': nobody renewed it within serviceTtlSeconds. 'registry:error': an error that reaches no caller; without a listener
 * it is logged.
 */
export interface ServiceRegistryEvents {
  'service:registered': ServiceDefinition;
  'service:updated': ServiceDefinition;
  'service:unregistered': ServiceDefinition;
  'service:expired': ServiceDefinition;
  'service:health:changed': ServiceHealthChange;
  'registry:error': OSSAError;
  'log': LogLine;
}
/** Configuration of ServiceRegistry. `redis` takes every key that `eventBus.redis` takes; keyPrefix is 'ossa:services' unless given. */
export interface ServiceRegistryConfig {
  redis: { url?: string; host: string; port: number; password?: string; db?: number; keyPrefix?: string }
    & Pick<EventBusConfig['redis'], 'username' | 'tls' | 'cluster' | 'sentinel' | 'connectTimeoutMs' | 'commandTimeoutMs'>;
  /** Time between two looks at a service and longest time of one; failures in a row that make it unhealthy, successes that make it healthy. */
  healthCheck: { intervalMs: number; timeoutMs: number; failureThreshold: number; successThreshold: number };
  serviceTtlSeconds: number;  // a service that nobody renews is forgotten after this
  http?: ServiceHttpConfig;
  logger?: EventBusConfig['logger']; logLevel?: LogLevel;     // as of a bus
}
/** What may be asked over HTTP of the endpoints that services give, and within which bounds. Redirects are followed by GET only, and only to
 *  the same scheme, host and port; certificates are always verified; proxies of the environment are not used.
 *
 *  A rule is a host name (`api.example.com`; `*.example.com` for every name below it), an address (`10.0.0.7`, `fd00::7`), a network
 *  (`10.0.0.0/8`, `fd00::/8`) or `private` (this machine, private networks, links, clouds' metadata), each perhaps with a port behind it
 *  (`api.example.com:8443`, `[fd00::7]:8443`). Rules for addresses count for every address that a name has. */
export interface ServiceHttpConfig {
  allow?: string[];           // left out: everything that is not denied, private addresses included; []: nothing
  deny?: string[];            // wins over allow; default none. ['private'], where others give endpoints
  timeoutMs?: number;         // longest a request may take, from looking up the name to the last byte; default 10000
  maxResponseBytes?: number;  // longest answer that is taken; default 1 MiB
  ca?: string;                // certificates to trust beside those that the system trusts, PEM
}
/** Defaults of ServiceRegistry. */
export declare const DEFAULT_SERVICE_REGISTRY_CONFIG: ServiceRegistryConfig;
/**
 * The register of services, shared by all processes that use the same Redis and keyPrefix. It connects at the first call, or when the
 * first listener for a 'service:…' event comes. Node is kept alive by a call on its way, by health monitoring and by such a listener, not
 * by services that are registered.
 *
 * Every method rejects with ERR_CLOSED after close(), and with ERR_CONNECTION, ERR_TIMEOUT … where Redis cannot be asked.
 */
export declare class ServiceRegistry extends EventEmitter implements AsyncDisposable {
  /**
   * redisClient: an ioredis or node-redis client, taken for its connection settings only (address, user, password, database, TLS): it is
   * not used and need not be connected. Its keyPrefix is not taken. An address in `config.redis` wins over it; other keys there are added.
   * ERR_INVALID_ARGUMENT for anything else, and for settings that cannot be taken over, naming what to pass.
   */
  constructor(config?: DeepPartial<ServiceRegistryConfig>, redisClient?: object);
  /** Makes the service known until it is unregistered; while this registry is open it is renewed. One of the same name is replaced.
   *  Resolves with it as it is registered. ERR_SERVICE_INVALID with `details.path` (`service.capabilities[0].name`). */
  register(service: ServiceRegistration): Promise<ServiceDefinition>;
  /** The services for which the filter holds; without one, all. ERR_INVALID_ARGUMENT with `details.argument` (`filter.version`). */
  discover(filter?: ServiceDiscoveryFilter): Promise<ServiceDefinition[]>;
  /** null when there is no service of that name */
  health(serviceName: string): Promise<ServiceHealth | null>;
  /** Resolves with whether it was there. */
  unregister(serviceName: string): Promise<boolean>;
  /** `metadata` is merged key by key, everything else replaced as a whole. The name cannot be changed; null is refused.
   *  Resolves with the new definition, or null when there is no service of that name. ERR_SERVICE_INVALID with `details.path` (`updates.name`). */
  updateService(serviceName: string, updates: Partial<ServiceDefinition>): Promise<ServiceDefinition | null>;
  /** From now on this process takes its turn in looking after services, until it is stopped; resolves once that began. */
  startHealthMonitoring(): Promise<void>;
  /** Takes effect at once, and never throws. */
  stopHealthMonitoring(): void;
  getAllServices(): Promise<ServiceDefinition[]>;
  getStats(): Promise<ServiceRegistryStats>;
  /** Ends everything; idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;

  on<K extends keyof ServiceRegistryEvents>(event: K, listener: (payload: ServiceRegistryEvents[K]) => void): this;
  on<N extends string | symbol>(event: N & OtherEvent<N>, listener: (...args: any[]) => void): this;
  once<K extends keyof ServiceRegistryEvents>(event: K, listener: (payload: ServiceRegistryEvents[K]) => void): this;
  once<N extends string | symbol>(event: N & OtherEvent<N>, listener: (...args: any[]) => void): this;
  off<K extends keyof ServiceRegistryEvents>(event: K, listener: (payload: ServiceRegistryEvents[K]) => void): this;
  off<N extends string | symbol>(event: N & OtherEvent<N>, listener: (...args: any[]) => void): this;
}
/** Refuses the names of {@link ServiceRegistryEvents}, whose listeners are typed. */
export type OtherEvent<N> = N extends keyof ServiceRegistryEvents ? never : unknown;

/** A way from the bus to a service: events that match its patterns are brought to it. */
export interface ServiceRouteStatus {
  service: string; group: string; patterns: string[];
  circuit: 'closed' | 'open' | 'half-open';   // open: it failed, nothing is sent for now; half-open: one is sent to see
  paused: boolean;
  delivered: number; failed: number;          // since this bus was opened
}
/** Answer of ServiceRegistryIntegration.getStatus(). */
export interface ServiceRegistryIntegrationStatus {
  connected: boolean;                         // whether the registry's Redis can be reached
  monitoring: boolean;                        // whether this process takes its turn in looking after services
  registeredAs: string | null;                // the service that this bus registered for itself
  services: ServiceRegistryStats;
  routes: ServiceRouteStatus[];
  contracts: { registered: number; refused: number };   // that were discovered, since this bus was opened
  problem?: string;                           // what is wrong now
}
/** What an OSSAEventBus does with the registry it was given. */
export interface ServiceRegistryIntegration {
  getStatus(): Promise<ServiceRegistryIntegrationStatus>;
  /** Asks all services now, or the one named, for their contracts, and registers them. ERR_INVALID_ARGUMENT for a name that is none. */
  discoverContracts(service?: string): Promise<{ registered: number; refused: Array<{ service: string; contract: string; reason: string }> }>;
}

// ───────────────────────────── errors ─────────────────────────────

/** Every rejection and throw of the package is one of these. Test `code`, not the class. */
export declare class OSSAError extends Error { readonly code: OSSAErrorCode; readonly retryable: boolean; readonly details?: Record<string, any>; cause?: unknown }
/** Codes of OSSAError. */
export type OSSAErrorCode =
  | 'ERR_INVALID_CONFIG' | 'ERR_INVALID_ARGUMENT' | 'ERR_NOT_INITIALIZED' | 'ERR_CLOSED' | 'ERR_DISABLED' | 'ERR_ABORTED'
  | 'ERR_LAYOUT' | 'ERR_UNSUPPORTED_SERVER' | 'ERR_CONNECTION' | 'ERR_AUTH' | 'ERR_TIMEOUT' | 'ERR_BACKPRESSURE' | 'ERR_STREAM_FULL' | 'ERR_NOT_REPLICATED' | 'ERR_REDIS'
  | 'ERR_PAYLOAD_TOO_LARGE' | 'ERR_NOT_SERIALIZABLE' | 'ERR_HANDLER_TIMEOUT' | 'ERR_ACK_TIMEOUT' | 'ERR_REQUEST_TIMEOUT' | 'ERR_REMOTE'
  | 'ERR_PROJECT_UNKNOWN' | 'ERR_PROJECT_CONFLICT' | 'ERR_NOT_PERMITTED' | 'ERR_RATE_LIMITED' | 'ERR_CONTRACT_VIOLATION' | 'ERR_CONTRACT_INVALID'
  | 'ERR_SIGNATURE' | 'ERR_REPLAY' | 'ERR_SERVICE_INVALID' | 'ERR_INTERNAL';

/** Every key optional, at every depth. */
export type DeepPartial<T> = T extends object ? { [K in keyof T]?: DeepPartial<T[K]> | undefined } : T;
/**
 * For `await using` in TypeScript 5.2+. Declared here because the one of the standard library needs
 * `"lib": ["esnext.disposable"]`; `Symbol.asyncDispose` itself comes with `@types/node`.
 */
export interface AsyncDisposable { [Symbol.asyncDispose](): Promise<void> }

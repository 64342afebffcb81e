/**
 * The addon as the façade sees it: a handful of functions, each called once for many events.
 *
 * Everything that crosses is a number, a typed array or text; errors cross as data and become {@link OSSAError}
 * here. Nothing in this file is public.
 */

/** Crossing form of an error. */
export interface NativeErrorData {
  code: string;
  message: string;
  retryable: boolean;
  details?: Record<string, unknown>;
}

/** Answer of a call that crosses as JSON text. */
export type NativeAnswer<T = unknown> = { ok: T } | { err: NativeErrorData };

/** Numbers of one delivery in `rows` of {@link NativeCallbacks.onDeliveries}. */
export const enum Row {
  /** id of the subscription, chosen by the façade in `subscribe` */
  Subscription = 0,
  /** names this call of this handler in `settle` */
  Token = 1,
  /** 1 at the first delivery */
  Attempt = 2,
  /** see {@link Flag} */
  Flags = 3,
  /** stream id: milliseconds / 2^32 */
  MsHigh = 4,
  /** stream id: milliseconds modulo 2^32 */
  MsLow = 5,
  /** stream id: sequence */
  Seq = 6,
  /** index into `texts`: the event type */
  Type = 7,
  /** length of the metadata's JSON text, UTF-16 units; it starts where the row before ended. 0: see {@link Row.Tail} */
  MetaLength = 8,
  /** length of the data's JSON text, which follows it */
  DataLength = 9,
  /** index into `texts`: the metadata's JSON text behind id and time, as many events share it; 0: the metadata stand in the text */
  Tail = 10,
  /** beside a tail: the metadata's timestamp / 2^32 */
  TimeHigh = 11,
  /** beside a tail: the metadata's timestamp modulo 2^32 */
  TimeLow = 12,
  /** numbers a row */
  Stride = 13,
}

/** Bits of {@link Row.Flags}. */
export const enum Flag {
  Redelivered = 1,
  /** what the handler returns is awaited: `replyTo` in the metadata says where */
  Asks = 2,
  /** it belongs to the call of the row before: a batch */
  Joined = 4,
}

/** What the engine tells, by the first argument of {@link NativeListener}. */
export const enum Message {
  /**
   * Results of publishes, in no particular order, by the tokens `numbers`: `text` holds the ids of the first of them, of
   * {@link ID_CHARS} characters each and one behind the other; `texts` what the others get, one each.
   */
  Published = 0,
  /**
   * Events for handlers: `numbers` are rows of {@link Row}. `texts` are, first, a JSON array of the ids of all rows with a
   * {@link Row.Tail}, '' where there is none; then what rows refer to. `text` holds, row after row, the JSON
   * text of the metadata, where they have no tail, and of the data. Metadata keys are those of EventMetadata; `timestamp` is ms, the ttl is `ttl`
   * (the publisher's) or `dttl` (a default), `v` the version of the packed form; `type` and `attempt` are not in it.
   */
  Deliveries = 1,
  /** Settlements with the confirmation numbers `numbers` are in the store; `text` is '' or a JSON array of `[number, NativeErrorData]`. */
  Settled = 2,
  /**
   * Lifecycle events: `text` is a JSON array of `[name, object]`; `['log', { level, message, target?, fields?, timestamp?, asked? }]`
   * among them, see `CrossedLine` in ts/logger.ts.
   */
  Lifecycle = 3,
  /** The answer to the call `numbers[0]`: `text` is JSON text of {@link NativeAnswer}. */
  Answer = 4,
  /** Nothing: the engine sees whether this thread answers. */
  Ping = 5,
  /**
   * For agents in this bus, from whoever distributes tasks: `text` is a JSON array of {@link Post}. One may come twice.
   */
  Posted = 6,
  /** Publishes that failed: `text` is a JSON array of `[token, NativeErrorData]`. */
  Refused = 7,
}

/** Characters of an id in {@link Message.Published}. */
export const ID_CHARS = 36;

/** A task as it is given to an agent. */
export interface Assignment {
  taskId: string;
  /** 1 the first time that the task is given to somebody; with the id it names this giving. */
  attempt: number;
  taskType: string;
  priority: number;
  estimatedDuration?: number | null;
  dependencies: string[];
  requiredCapabilities: string[];
  data?: unknown;
  timeoutMs?: number | null;
  correlationId?: string | null;
  /** ms since 1970; tells two tasks of one id apart. */
  submittedAt?: number | null;
}

/** What an agent is told; one of the keys behind `agent` is there. */
export interface Post {
  /** Its id. */
  agent: string;
  /** It has a task to do. */
  assign?: Assignment;
  /** A task is not to be done any more. */
  cancel?: { taskId: string; attempt: number; reason: string };
  /** It is one too many. */
  drain?: { reason: string };
  /** It is not known: it says again that it is there. */
  respawn?: object;
}

/** Called on the JavaScript thread, seldom and for many at once. */
export type NativeListener = (message: number, numbers: Uint32Array, texts: string[], text: string) => void;

/** Lifecycle events that cost something on the hot path are made only while their bit is set in `listen`. */
export const enum Listening {
  Published = 1,
  Consumed = 2,
  Failed = 4,
  Retried = 8,
}

/** One bus of the engine. */
export interface NativeBus {
  /**
   * All that happens seldom. Answered under `id` by {@link Message.Answer}. Methods and arguments (`args`):
   * - `connect {}` → `{}`; idempotent
   * - `disconnect { drainTimeoutMs? }` → `{}`; idempotent
   * - `subscribe { id, eventType, options, iterator: boolean }` → `{ group, consumer }`; options as the user gave them,
   *   `signal` taken out, `startTimestamp` as ms; unknown keys kept (the engine refuses them)
   * - `unsubscribe { id, drainTimeoutMs? }` → `{}`; resolves when its handlers are done or the time is over
   * - `pause { id }`, `resume { id }` → `{}`
   * - `status {}` → EventBusStatus with times as ms
   * - `getStream { name }` → EventStream with times as ms, or null; `createStream { name, config }`
   * - `deleteGroup { eventType, group }` → boolean
   * - `deadLetters.list { eventType?, group?, from?, to?, limit?, cursor? }` (times as ms) →
   *   `{ items: [{ id, eventType, group, reason, error, attempts, failedAt, meta, data }], cursor? }`, meta and data as JSON
   *   *text* (meta '' for an entry that the bus did not write)
   * - `replay { eventType, from?, to?, count?, cursor? }` (times as ms) → `{ texts, cursor }`: metadata and data of at most
   *   `count` events, one after the other as JSON text, and where the next page begins (null: nowhere)
   * - `explain { eventType, eventId }` → null or `{ meta, data, streamId?, state, groups }`, meta and data as JSON text, times
   *   as ms
   * - `projects.register` with a ProjectConfig → `{}`; `projects.unregister { projectId }` → boolean; `projects.registerContract`,
   *   `projects.registerRoute` with those (times as ms) → `{}`; `projects.validate { projectId }`, `projects.keys { projectId }`, `projects.stats { projectId? }`,
   *   `projects.audit { projectId?, from?, to?, outcome?, limit?, cursor? }`, `projects.verifyAudit {}` → as in the public
   *   contract, times as ms. In `subscribe`, `project` makes it a subscription to messages to that project
   * - `services.status {}` → ServiceRegistryIntegrationStatus; `services.discoverContracts { name? }` → as in the public contract.
   *   Where the bus was given no registry: ERR_DISABLED
   * - `orchestration.task { id }` → a TaskView with times as ms, or null
   * - `dashboard {}` → DashboardData with times as ms; `groups {}` → GroupView[]
   * - `agents.listen {}` → `{ inbox }`: from now on {@link Message.Posted} tells what is posted to that name; idempotent
   * - `deadLetters.count { eventType?, group? }` → number; `deadLetters.redrive`, `deadLetters.purge { ids?, eventType?, group? }` → number
   */
  call(id: number, method: string, args: string): void;
  /**
   * Publishes many: `text` is one record an event, `<type>\t<options JSON or nothing>\t<data JSON>\n`; the first has
   * `firstToken`, the next one more, modulo 2^32. Answered by {@link Message.Published} or {@link Message.Refused}. In options: `deliverAt` as ms,
   * `signal` true where the publish may be cancelled. The options of a request begin with `?<timeout in ms>`, which may stand
   * alone: its answer is the JSON text of what a handler returned, in place of the id. `@{ source, target, options?, characters? }` in place
   * of options makes it a message between projects; `characters`: of data that was left out because it has too many.
   */
  publish(firstToken: number, text: string): void;
  /**
   * Gives up a publish that was marked with `signal` and is not sent yet, or the wait for an answer to its event: then its
   * answer is ERR_ABORTED.
   */
  cancel(token: number): void;
  /**
   * Ends deliveries: `done` are tokens of handlers that succeeded. `failed` is '' or a JSON array of
   * `[token, kind, message, options?]`; kind: `error` (the handler threw; options `{ permanent?: true }`), `timeout`
   * (the handler still runs: its later `error` or `done` on the same token is awaited), `nack` (options as the user
   * gave them), `malformed` (the data is not JSON), `reply` (it succeeded; the message is the JSON text of its answer, or, with
   * `failed`, why there is none; options `{ to, id, failed? }` from the metadata's `replyTo` and `id`. It is sent also when the
   * token was ended before), `back` (was not started, give it to somebody). `confirm` 0, or a
   * number that comes back by {@link Message.Settled}.
   */
  settle(done: Uint32Array, failed: string, confirm: number): void;
  /** Nothing more is told. Called once disconnect was answered, so that no handle stays open. */
  close(): void;
  /** Bits of {@link Listening}. */
  listen(mask: number): void;
  /** getAvailableContracts(): JSON text of `NativeAnswer`, times as ms, from what is known, without I/O. */
  contracts(projectId: string): string;
  /**
   * What is known of agents, without I/O: JSON text of `NativeAnswer`. `what`: 'agents' → AgentView[] with times as ms, 'pools' →
   * PoolView[], 'stats' → OrchestrationStats.
   */
  orchestration(what: string): string;
  /** Metrics in the text format of Prometheus: JSON text of `NativeAnswer<string>`. */
  prometheus(): string;
  /** How the process is: CPU in percent of one core, memory used and allowed in bytes, lateness of the event loop in seconds. */
  vitals(cpuPercent: number, memoryBytes: number, memoryLimitBytes: number, eventLoopLagSeconds: number): void;
  /**
   * What is known of monitoring, without I/O: JSON text of `NativeAnswer`, times as ms. `what`: 'analytics' → Analytics, of the shortest
   * window unless one is named; 'alerts' → AlertEvent[]; 'stats' → MonitoringStats; 'process' → ProcessHealth of ts/monitoring.ts.
   */
  monitoring(what: string, windowSeconds?: number): string;
  /** EventBusMetrics as JSON text, from counters, without I/O. */
  metrics(): string;
}

/** A registry of services. Making one does no I/O; nothing throws. */
export interface NativeRegistry {
  /**
   * Answered under `id` by {@link Message.Answer}. Every method but `close` connects where that is not done yet. Names and filters that
   * are wrong are ERR_INVALID_ARGUMENT with `details.argument` (`serviceName`, `filter.tags[0]`), definitions and updates
   * ERR_SERVICE_INVALID with `details.path` (`service.capabilities[0].name`, `updates.name`). Methods and arguments (`args`):
   * - `open {}` → `{}`: connects; idempotent, and may be repeated after a failure
   * - `register` with a definition as the user gave it, Dates as ms → the definition, times as ms
   * - `update { name, updates }` → the definition with times as ms, or null; updates as the user gave them, Dates as ms
   * - `unregister { name }` → boolean
   * - `discover` with a filter as the user gave it, `all {}` → definitions with times as ms
   * - `health { name }` → ServiceHealth with `lastCheck` as ms, or null
   * - `stats {}` → ServiceRegistryStats
   * - `monitor { on: boolean }` → `{}`; off needs no connection
   * - `status {}` → `{ connected, monitoring, registeredHere, services, problem? }`
   * - `close {}` → `{}`; idempotent. Calls that are on their way are answered before
   */
  call(id: number, method: string, args: string): void;
  /** Nothing more is told. Called once `close` was answered, so that no handle stays open. */
  close(): void;
  /** Names it for a bus of this process: `serviceRegistry.handle` in the configuration of {@link NativeBus}. */
  readonly handle: number;
}

/** Exports of the addon. No function throws for wrong input. */
export interface NativeAddon {
  NativeBus: new (
    /**
     * `{ eventBus, crossProject?, orchestration?, monitoring?, serviceRegistry? }`, as `resolveConfig` answered them; the last one with the `handle` of the registry
     * that the bus is to work with
     */
    config: string,
    listener: NativeListener,
  ) => NativeBus;
  NativeRegistry: new (
    /** as `resolveConfig('serviceRegistry')` answered it */
    config: string,
    /**
     * Told {@link Message.Answer}, {@link Message.Ping} and, by {@link Message.Lifecycle}, `service:registered`, `service:updated`,
     * `service:unregistered`, `service:expired` with a definition, `service:health:changed` with
     * `{ name, oldStatus, newStatus, health, service }`, times as ms, `registry:error` with {@link NativeErrorData}, and `log`.
     */
    listener: NativeListener,
  ) => NativeRegistry;
  /**
   * Argument over environment over defaults, validated. `kind`: 'eventBus' (RedisEventBus), 'ossa' (OSSAEventBus) or
   * 'serviceRegistry'. Both texts are JSON; a value without JSON form stands as `{"$invalid":"NaN"}` (NaN, Infinity,
   * function, symbol, bigint …), a logger as `{"$logger":true}`. Answers JSON text of `NativeAnswer<object>`.
   */
  resolveConfig(kind: string, argument: string, env: string): string;
  /** Defaults of the kinds of `resolveConfig`, as JSON text. */
  defaultConfig(kind: string): string;
  /** '' when the name is right, else JSON text of NativeErrorData. `kind`: 'eventType', 'pattern', 'group'. */
  checkName(kind: string, name: string): string;
}

/**
 * One bus of the engine with all that belongs to it on this side. A RedisEventBus has one; an OSSAEventBus shares that of
 * the RedisEventBus inside it.
 */
import { addon } from './addon';
import { Calls } from './calls';
import { systemClock } from './clock';
import type { ResolvedEventBus } from './config';
import { DEFAULT_EVENT_BUS_CONFIG } from './defaults';
import { closingReason } from './delivery';
import { Dispatcher } from './dispatcher';
import { aborted, closed, internal, invalidArgument, OSSAError } from './errors';
import { Inbox } from './inbox';
import { Iteration } from './iteration';
import { KeepAlive, Reason } from './keepAlive';
import { Lifecycle } from './lifecycle';
import { Log } from './logger';
import { Sampler } from './monitoring';
import type { NativeBus, NativeListener } from './native';
import { Message } from './native';
import { toMessage } from './projects';
import { isSignal, Publisher } from './publisher';
import { dateMs } from './publishOptions';
import { CONSUMER_TIMEOUT_MS, Route } from './route';
import { currentDelivery } from './running';
import { Settlements } from './settlements';
import { EventSubscription } from './subscription';
import { Tracing } from './tracing';
import type { EventBusMetrics, EventHandlerFn, EventRetryConfig } from './types';

/** How the class that users hold calls things, for messages. */
export interface BusNames {
  readonly class: string;
  readonly start: string;
  readonly stop: string;
}

type State = 'new' | 'open' | 'closing' | 'closed';

/** Where bus, publisher, dispatcher and engine meet. */
export class BusCore {
  readonly lifecycle: Lifecycle;
  readonly publisher: Publisher;
  readonly dispatcher: Dispatcher;
  readonly retryDefaults: EventRetryConfig;
  readonly log: Log;
  readonly inbox = new Inbox(this);
  readonly #names: BusNames;
  readonly #config: Pick<ResolvedEventBus, 'crossProject' | 'orchestration' | 'monitoring' | 'serviceRegistry'> & {
    eventBus: ResolvedEventBus['config'];
  };
  readonly #settlements: Settlements;
  readonly #keepAlive = new KeepAlive(systemClock, this);
  readonly #subscriptions = new Map<EventSubscription, EventHandlerFn | undefined>();
  readonly #calls = new Calls(this.#keepAlive);
  readonly #ends = new Set<() => Promise<void>>();
  #native: NativeBus | undefined;
  #sampler: Sampler | undefined;
  #state: State = 'new';
  #connecting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  #lastRoute = 0;

  constructor({ config, logger, ...parts }: ResolvedEventBus, names: BusNames) {
    const log = new Log(logger, config.logLevel);
    this.log = log;
    collected.register(this, this.#keepAlive);
    this.#names = names;
    this.#config = { eventBus: config, ...parts };
    this.retryDefaults = config.defaults.retry;
    this.lifecycle = new Lifecycle(log);
    this.#settlements = new Settlements((error) => this.lifecycle.error(error));
    const limit = config.limits?.maxPayloadBytes ?? (DEFAULT_EVENT_BUS_CONFIG.limits?.maxPayloadBytes as number);
    const tracing = Tracing.of({ config, ...parts });
    this.dispatcher = new Dispatcher(systemClock, this.#settlements, log, this.retryDefaults, limit, tracing);
    this.publisher = new Publisher(addon(), this.#keepAlive, limit, tracing, () => this.#refusal());
  }

  /** Connects; concurrent calls share one attempt, and after a failure it may be tried again. */
  connect(): Promise<void> {
    if (this.#state === 'open') return Promise.resolve();
    if (this.#state !== 'new') return Promise.reject(this.#refusal());
    return (this.#connecting ??= this.#connect().finally(() => (this.#connecting = undefined)));
  }

  /**
   * Stops reading, lets handlers finish, hands back what is not finished, closes. Called from inside a handler of this
   * bus it does not wait for that one.
   */
  disconnect(drainTimeoutMs: number | undefined): Promise<void> {
    this.#closing ??= this.#disconnect(drainTimeoutMs);
    const own = currentDelivery();
    if (own === undefined || own.owner !== this.dispatcher) return this.#closing;
    return Promise.race([this.#closing, this.dispatcher.idle(this.dispatcher.routes, own)]);
  }

  /** A call to the engine. Rejects ERR_NOT_INITIALIZED before connect, ERR_CLOSED after disconnect. */
  async call<T = unknown>(method: string, args: unknown): Promise<T> {
    return this.#calls.ask<T>(this.native(), method, args);
  }

  /** A reason for this bus to keep Node alive, not there yet. */
  reason(): Reason {
    return new Reason(this.#keepAlive);
  }

  /** From the engine's counters. Throws before connect and after disconnect. */
  metrics(): EventBusMetrics {
    return JSON.parse(this.native().metrics()) as EventBusMetrics;
  }

  /** The engine's bus. Throws before connect and after disconnect. */
  native(): NativeBus {
    if (this.#native === undefined || this.#state === 'new' || this.#state === 'closed') throw this.#refusal();
    return this.#native;
  }

  /** Whether it takes work: connected, and nobody began to close it. */
  get isOpen(): boolean {
    return this.#state === 'open';
  }

  /**
   * `end` is called when all else of the bus has ended, and waited for, unless the returned function was called before. It must not
   * reject. Where that is over already it is called at once.
   */
  atEnd(end: () => Promise<void>): () => void {
    if (this.#state === 'closed') void end();
    else this.#ends.add(end);
    return () => void this.#ends.delete(end);
  }

  /** subscribe(); with `project`, messages to it. */
  async subscribe(eventType: unknown, handler: unknown, options: unknown, project?: string): Promise<EventSubscription> {
    this.native();
    if (this.#state === 'closing') throw this.#refusal();
    if (typeof eventType !== 'string') throw invalidArgument('eventType', 'must be a string');
    if (handler !== undefined && handler !== null && typeof handler !== 'function') {
      throw invalidArgument('handler', 'must be a function, or left out (null) to iterate over the subscription');
    }
    const { signal, ...rest } = checkOptions(options);
    if (isAborted(signal)) throw aborted('subscribe', signal as AbortSignal);
    const call = (handler ?? undefined) as EventHandlerFn | undefined;
    const timeoutMs = typeof rest['consumerTimeout'] === 'number' ? rest['consumerTimeout'] : CONSUMER_TIMEOUT_MS;
    // Higher ones are the engine's own.
    const id = (this.#lastRoute = (this.#lastRoute + 1) & 0x7fff_ffff);
    const batched = rest['batch'] !== undefined;
    if (batched && call === undefined) throw invalidArgument('options.batch', 'needs a handler, which gets an array of events');
    const route = new Route(
      id,
      eventType,
      call,
      timeoutMs,
      rest['autoAck'] === false,
      batched,
      project === undefined ? undefined : toMessage,
    );
    if (call === undefined) route.iteration = new Iteration(this.dispatcher, route);
    this.dispatcher.add(route);
    this.#keepAlive.hold();
    let subscription: EventSubscription;
    try {
      const answer = await this.call<{ group: string; consumer: string }>('subscribe', {
        id,
        eventType,
        project,
        options: rest,
        iterator: call === undefined,
      });
      if (this.#state !== 'open') throw this.#refusal();
      route.group = answer.group;
      subscription = new EventSubscription(this, route, answer.consumer, signal);
    } catch (error) {
      this.dispatcher.closing(route, closingReason(`The subscription to '${eventType}'`));
      this.dispatcher.remove(route);
      this.#keepAlive.release();
      throw error;
    }
    this.#subscriptions.set(subscription, call);
    if (isAborted(signal)) {
      await subscription.close();
      throw aborted('subscribe', signal as AbortSignal);
    }
    this.dispatcher.opened(route, route.group);
    return subscription;
  }

  /** unsubscribe() */
  async unsubscribe(eventType: unknown, handler: unknown): Promise<void> {
    this.native();
    if (typeof eventType !== 'string') throw invalidArgument('eventType', 'must be a string');
    if (handler !== undefined && handler !== null && typeof handler !== 'function')
      throw invalidArgument('handler', 'must be a function, or left out');
    const meant = [...this.#subscriptions].filter(
      ([subscription, its]) =>
        !subscription.isOfProject && subscription.eventType === eventType && (handler === undefined || handler === null || its === handler),
    );
    await Promise.all(meant.map(([subscription]) => subscription.close()));
  }

  /** A subscription was closed. */
  forget(subscription: EventSubscription, route: Route): void {
    if (!this.#subscriptions.delete(subscription)) return;
    this.dispatcher.remove(route);
    this.#keepAlive.release();
  }

  async #connect(): Promise<void> {
    const config = JSON.stringify({ ...this.#config, serviceRegistry: this.#config.serviceRegistry?.() });
    const native = (this.#native = new (addon().NativeBus)(config, listenerOf(this)));
    this.lifecycle.connect((mask) => native.listen(mask));
    try {
      await this.#calls.ask(native, 'connect', {});
    } catch (error) {
      // The next attempt makes a new one: whoever gives up here has nothing to close. Whoever is closing waits for its answer.
      if (this.#state === 'new') {
        native.close();
        this.#native = undefined;
      }
      throw error;
    }
    if (this.#state !== 'new') throw this.#refusal();
    this.#state = 'open';
    this.#settlements.open(native);
    this.publisher.open(native);
    const { monitoring } = this.#config;
    if (monitoring !== undefined) this.#sampler = new Sampler(native, monitoring.metrics.collectionInterval);
  }

  async #disconnect(drainTimeoutMs: number | undefined): Promise<void> {
    const before = this.#state;
    this.#state = 'closing';
    const native = this.#native;
    try {
      this.inbox.close();
      this.publisher.flush();
      const reason = closingReason(`The ${this.#names.class}`);
      for (const route of this.dispatcher.routes) this.dispatcher.closing(route, reason);
      // Handlers that still run may publish; without any, nothing more is taken.
      if (this.dispatcher.running === 0) this.publisher.close();
      if (native !== undefined) await this.#calls.ask(native, 'disconnect', { drainTimeoutMs });
    } finally {
      this.#settlements.flush();
      this.#sampler?.stop();
      this.#state = 'closed';
      this.#native = undefined;
      for (const subscription of this.#subscriptions.keys()) subscription.detach();
      this.#subscriptions.clear();
      this.publisher.close();
      const error = this.#refusal();
      this.publisher.abandon(error);
      this.#settlements.end(error);
      this.dispatcher.end();
      this.lifecycle.connect(undefined);
      this.#keepAlive.end();
      native?.close();
      // What the engine has not answered by now it never does.
      this.#calls.end(error);
      await Promise.all([...this.#ends].map((end) => end()));
      if (before === 'new' && this.#connecting !== undefined) await this.#connecting.catch(() => undefined);
    }
  }

  /** What the engine tells; throws nothing into the addon. */
  receive(message: number, numbers: Uint32Array, texts: string[], text: string): void {
    try {
      this.#receive(message, numbers, texts, text);
    } catch (error) {
      this.lifecycle.error(error instanceof OSSAError ? error : internal('An answer of the addon could not be handled', error));
    }
  }

  #receive(message: number, numbers: Uint32Array, texts: string[], text: string): void {
    switch (message) {
      case Message.Published:
        this.publisher.receive(numbers, texts, text);
        return;
      case Message.Refused:
        this.publisher.refused(text);
        return;
      case Message.Deliveries:
        this.dispatcher.receive(text, numbers, texts);
        return;
      case Message.Settled:
        this.#settlements.receive(numbers, text);
        return;
      case Message.Lifecycle:
        this.lifecycle.receive(text);
        return;
      case Message.Answer:
        this.#calls.answer(numbers[0] as number, text);
        return;
      case Message.Posted:
        this.inbox.receive(text);
    }
  }

  #refusal(): OSSAError {
    const { class: name, start, stop } = this.#names;
    if (this.#state === 'new') {
      return new OSSAError(`This ${name} is not connected yet: await ${start} first`, { code: 'ERR_NOT_INITIALIZED' });
    }
    return closed(`This ${name} was closed by ${stop} and stays so: make a new one`);
  }
}

/**
 * The addon holds its listener for as long as the engine's bus lives, and that ends when this side is collected: the
 * listener must not hold it. While an answer is awaited, {@link KeepAlive} does.
 */
function listenerOf(core: BusCore): NativeListener {
  const held = new WeakRef(core);
  return (message, numbers, texts, text) => held.deref()?.receive(message, numbers, texts, text);
}

/** Leaves no timer behind when a bus is collected without disconnect. */
const collected = new FinalizationRegistry<KeepAlive>((keepAlive) => keepAlive.end());

/** A function, because the answer changes between two looks. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function checkOptions(options: unknown): Record<string, unknown> & { signal?: AbortSignal } {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object' || Array.isArray(options)) throw invalidArgument('options', 'must be an object');
  const { signal, startTimestamp, ...rest } = options as Record<string, unknown>;
  if (startTimestamp !== undefined) rest['startTimestamp'] = dateMs('options.startTimestamp', startTimestamp);
  if (signal === undefined) return rest;
  if (!isSignal(signal)) throw invalidArgument('options.signal', 'must be an AbortSignal');
  return { ...rest, signal };
}

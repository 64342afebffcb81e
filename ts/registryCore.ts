/**
 * What stands between a ServiceRegistry and the engine's registry: when it is made and connected, what keeps Node alive meanwhile, and
 * how it ends.
 */
import { addon } from './addon';
import { Calls } from './calls';
import { systemClock, type Timer } from './clock';
import { type CrossedDefinition, type CrossedHealth, definitionOf, healthOf } from './definitions';
import { closed, internal, OSSAError } from './errors';
import { KeepAlive, Reason } from './keepAlive';
import { Lifecycle, type LifecycleKind } from './lifecycle';
import { Log } from './logger';
import { Message, type NativeListener, type NativeRegistry } from './native';
import type { Logger, ServiceRegistryConfig } from './types';

/** Who listens for one of these is told what other processes do, so it needs a connection. */
const SERVICE_EVENTS = ['service:registered', 'service:updated', 'service:unregistered', 'service:expired', 'service:health:changed'];

/** Pauses between attempts to connect while somebody listens; each is twice as long as the one before. */
const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 30_000;

const OF_REGISTRY: LifecycleKind = { error: 'registry:error', label: 'Service registry', revive };

/** One registry of the engine with all that belongs to it on this side. */
export class RegistryCore {
  readonly lifecycle: Lifecycle;
  readonly #config: string;
  readonly #keepAlive = new KeepAlive(systemClock, this);
  readonly #calls = new Calls(this.#keepAlive);
  readonly #listeners = new Reason(this.#keepAlive);
  readonly #monitoring = new Reason(this.#keepAlive);
  #native: NativeRegistry | undefined;
  #closing: Promise<void> | undefined;
  /** Connecting for listeners; undefined: not tried, or failed. */
  #opening: Promise<void> | undefined;
  #retry: Timer | undefined;
  #retryMs = RETRY_MS_MIN;
  /** Starts and stops of the monitoring take effect in the order of their calls. */
  #lastTurn: Promise<unknown> = Promise.resolve();
  #turns = 0;
  /** Whether it was started since it was stopped. */
  #monitored = false;

  constructor({ config, logger }: { config: ServiceRegistryConfig; logger: Logger | undefined }) {
    this.lifecycle = new Lifecycle(new Log(logger, config.logLevel), OF_REGISTRY);
    this.#config = JSON.stringify(config);
    collected.register(this, this.#keepAlive);
  }

  /** A call to the engine, which connects for it. Rejects ERR_CLOSED after close. */
  async call<T>(method: string, args: unknown): Promise<T> {
    return this.#calls.ask<T>(this.native(), method, args);
  }

  /** The engine's registry, made at the first use, not connected. Throws ERR_CLOSED after close. */
  native(): NativeRegistry {
    if (this.#closing !== undefined) throw refusal();
    return (this.#native ??= new (addon().NativeRegistry)(this.#config, listenerOf(this)));
  }

  /** The first listener for services connects; without one, they keep Node alive no longer. */
  listenersChanged(): void {
    if (this.#closing !== undefined) return;
    const listening = SERVICE_EVENTS.some((name) => this.lifecycle.hears(name));
    if (listening === this.#listeners.holds) return;
    this.#listeners.set(listening);
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#retryMs = RETRY_MS_MIN;
    if (listening) this.#open();
  }

  /** Resolves once the engine checks services. It keeps Node alive until it is stopped. */
  async startMonitoring(): Promise<void> {
    this.#monitored = true;
    const turn = await this.#monitor(true);
    if (turn === this.#turns && this.#closing === undefined) this.#monitoring.set(true);
  }

  /** The engine is told to check no more; an error of that is told by 'registry:error'. */
  stopMonitoring(): void {
    this.#monitoring.set(false);
    if (!this.#monitored || this.#closing !== undefined) return;
    this.#monitored = false;
    this.#monitor(false).catch((error: unknown) => this.#report(error));
  }

  /** Ends everything; idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** What the engine tells; throws nothing into the addon. */
  receive(message: number, numbers: Uint32Array, text: string): void {
    try {
      if (message === Message.Lifecycle) this.lifecycle.receive(text);
      else if (message === Message.Answer) this.#calls.answer(numbers[0] as number, text);
    } catch (error) {
      this.lifecycle.error(internal('What the addon told could not be handled', error));
    }
  }

  #open(): void {
    this.#opening ??= this.call('open', {}).then(
      () => undefined,
      (error: unknown) => {
        this.#opening = undefined;
        this.#report(error);
        if (this.#listeners.holds && this.#closing === undefined && error instanceof OSSAError && error.retryable) this.#openLater();
      },
    );
  }

  /** Listeners make no calls: without this, nothing would ever reach them where the server came up after the process. */
  #openLater(): void {
    this.#retry?.cancel();
    this.#retry = systemClock.after(this.#retryMs, () => {
      this.#retry = undefined;
      this.#open();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX);
  }

  /** Answers the number of this turn. The engine works on calls side by side: each turn waits for the one before. */
  #monitor(on: boolean): Promise<number> {
    const turn = ++this.#turns;
    const done = this.#lastTurn.then(() => this.call('monitor', { on })).then(() => turn);
    this.#lastTurn = done.catch(() => undefined);
    return done;
  }

  /** After close nobody is told that a call of ours came too late. */
  #report(error: unknown): void {
    if (this.#closing === undefined) this.lifecycle.error(error);
  }

  async #close(): Promise<void> {
    this.#retry?.cancel();
    const native = this.#native;
    try {
      if (native !== undefined) await this.#calls.ask(native, 'close', {});
    } finally {
      this.#native = undefined;
      this.#keepAlive.end();
      native?.close();
      // What the engine has not answered by now it never does.
      this.#calls.end(refusal());
    }
  }
}

function refusal(): OSSAError {
  return closed('This ServiceRegistry was closed by close() and stays so: make a new one');
}

function revive(payload: Record<string, unknown>, name: string): unknown {
  if (name !== 'service:health:changed') return definitionOf(payload as unknown as CrossedDefinition);
  const { health, service, ...rest } = payload;
  return { ...rest, health: healthOf(health as CrossedHealth), service: definitionOf(service as CrossedDefinition) };
}

/** The addon holds its listener for as long as the engine's registry lives, and that ends when this side is collected, see BusCore. */
function listenerOf(core: RegistryCore): NativeListener {
  const held = new WeakRef(core);
  return (message, numbers, _, text) => held.deref()?.receive(message, numbers, text);
}

/** Leaves no timer behind when a registry is collected without close. */
const collected = new FinalizationRegistry<KeepAlive>((keepAlive) => keepAlive.end());

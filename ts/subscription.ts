/** What subscribe() answers. */
import type { BusCore } from './core';
import { closingReason } from './delivery';
import { invalidArgument, OSSAError } from './errors';
import { EventIterator } from './iteration';
import type { Route } from './route';
import { currentDelivery } from './running';
import type { Subscription } from './types';

/** One handler, or one iteration, on one type or pattern. */
export class EventSubscription implements Subscription {
  /** Type or pattern. */
  readonly eventType: string;
  /** Consumer group. */
  readonly group: string;
  /** Name of this process in the group. */
  readonly consumer: string;
  readonly #core: BusCore;
  readonly #route: Route;
  #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => void this.close().catch((error: unknown) => this.#core.lifecycle.error(error));
  #closing: Promise<void> | undefined;
  /** pause() and resume() reach the engine in the order of their calls. */
  #control: Promise<unknown> = Promise.resolve();

  constructor(core: BusCore, route: Route, consumer: string, signal: AbortSignal | undefined) {
    this.eventType = route.eventType;
    this.group = route.group;
    this.consumer = consumer;
    this.#core = core;
    this.#route = route;
    this.#signal = signal;
    if (route.iteration !== undefined) route.iteration.close = () => this.close();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** @internal Whether it takes messages to a project: those are no events of that type. */
  get isOfProject(): boolean {
    return this.#route.isOfProject;
  }

  /** No handler is called until resume(); what was not started is handed back. */
  pause(): void {
    if (this.#route.state !== 'open') return;
    this.#route.state = 'paused';
    this.#route.iteration?.handBack();
    this.#tell('pause');
  }

  /** Goes on after pause(). */
  resume(): void {
    if (this.#route.state !== 'paused') return;
    this.#route.state = 'open';
    this.#tell('resume');
  }

  /**
   * Takes no more events and resolves when the handlers under way are done, at the latest after drainTimeoutMs
   * (10000). Called from inside a handler of this subscription, or from the loop over it, it does not wait for that one.
   */
  close(options?: { drainTimeoutMs?: number }): Promise<void> {
    let drainTimeoutMs: number | undefined;
    try {
      drainTimeoutMs = drainTimeout(options);
    } catch (error) {
      return Promise.reject(error);
    }
    this.#closing ??= this.#close(drainTimeoutMs);
    const own = currentDelivery();
    // A loop is not a handler: who closes from its body cannot be told from who closes from elsewhere.
    if (this.#route.iteration !== undefined && this.#route.running.size > 0) return Promise.race([this.#closing, Promise.resolve()]);
    if (own === undefined || own.subscription !== this.#route) return this.#closing;
    return Promise.race([this.#closing, this.#core.dispatcher.idle([this.#route], own)]);
  }

  /** close() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** For a subscription made without a handler. */
  [Symbol.asyncIterator](): EventIterator {
    const { iteration } = this.#route;
    if (iteration === undefined) throw invalidArgument('subscription', 'has a handler; to iterate, subscribe without one');
    return new EventIterator(iteration);
  }

  /** The bus is closed, and this with it. */
  detach(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#signal = undefined;
    this.#closing ??= Promise.resolve();
  }

  async #close(drainTimeoutMs: number | undefined): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#signal = undefined;
    const what = `The subscription to '${this.eventType}'`;
    this.#core.dispatcher.closing(this.#route, closingReason(what));
    try {
      await this.#core.call('unsubscribe', { id: this.#route.id, drainTimeoutMs });
    } catch (error) {
      if (!(error instanceof OSSAError && error.code === 'ERR_CLOSED')) throw error;
    } finally {
      this.#core.forget(this, this.#route);
    }
  }

  #tell(method: 'pause' | 'resume'): void {
    this.#control = this.#control
      .then(() => (this.#closing === undefined ? this.#core.call(method, { id: this.#route.id }) : undefined))
      .catch((error: unknown) => this.#core.lifecycle.error(error));
  }
}

/** A day. */
const DRAIN_MS_MAX = 86_400_000;

/** `drainTimeoutMs` of the options of close(), disconnect() and shutdown(), checked. */
export function drainTimeout(options: unknown): number | undefined {
  if (options === undefined || options === null) return undefined;
  if (typeof options !== 'object') throw invalidArgument('options', 'must be an object { drainTimeoutMs? }');
  for (const key of Object.keys(options))
    if (key !== 'drainTimeoutMs') throw invalidArgument(`options.${key}`, 'is unknown; there is drainTimeoutMs');
  const { drainTimeoutMs } = options as { drainTimeoutMs?: unknown };
  if (drainTimeoutMs === undefined) return undefined;
  if (typeof drainTimeoutMs !== 'number' || !(drainTimeoutMs >= 0 && drainTimeoutMs <= DRAIN_MS_MAX)) {
    throw invalidArgument('options.drainTimeoutMs', `must be a number of milliseconds from 0 to ${DRAIN_MS_MAX}`);
  }
  return drainTimeoutMs;
}

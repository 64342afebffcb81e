/** An EventEmitter that notices when listeners come and go. */
import { EventEmitter } from 'node:events';

type Listener = (...args: any[]) => void;

/** Called after every change. */
export const LISTENERS_CHANGED = Symbol('ossa.listenersChanged');

/** Base of what users listen to. once() and prependOnceListener() come by here too, when they add as when they remove. */
export abstract class ObservedEmitter extends EventEmitter {
  /** @internal */
  abstract [LISTENERS_CHANGED](): void;

  /** @internal */
  override on(event: string | symbol, listener: Listener): this {
    return this.#changed(super.on(event, listener));
  }

  /** @internal */
  override addListener(event: string | symbol, listener: Listener): this {
    return this.on(event, listener);
  }

  /** @internal */
  override prependListener(event: string | symbol, listener: Listener): this {
    return this.#changed(super.prependListener(event, listener));
  }

  /** @internal */
  override removeListener(event: string | symbol, listener: Listener): this {
    return this.#changed(super.removeListener(event, listener));
  }

  /** @internal */
  override off(event: string | symbol, listener: Listener): this {
    return this.removeListener(event, listener);
  }

  /** @internal */
  override removeAllListeners(event?: string | symbol): this {
    return this.#changed(event === undefined ? super.removeAllListeners() : super.removeAllListeners(event));
  }

  #changed(self: this): this {
    this[LISTENERS_CHANGED]();
    return self;
  }
}

/**
 * Keeps Node alive while a bus has something to wait for: an open subscription, a publish or a call on its way. The
 * engine's callbacks do not (they are weak), so that an idle bus never holds up the end of a program.
 */
import type { Clock, Timer } from './clock';

const FOREVER_MS = 0x7fff_ffff;

/** One timer a bus, held while something is counted. */
export class KeepAlive {
  readonly #clock: Clock;
  readonly #owner: WeakRef<object> | undefined;
  /** The owner, while something is counted: answers are for it, though nobody else may hold it any more. */
  held: object | undefined;
  #timer: Timer | undefined;
  #count = 0;
  #ended = false;

  constructor(clock: Clock, owner?: object) {
    this.#clock = clock;
    this.#owner = owner === undefined ? undefined : new WeakRef(owner);
  }

  /** One thing more to wait for. */
  hold(): void {
    if (this.#count++ > 0 || this.#ended) return;
    this.held = this.#owner?.deref();
    (this.#timer ??= this.#arm()).ref();
  }

  /** One thing less. */
  release(): void {
    if (--this.#count > 0) return;
    this.held = undefined;
    this.#timer?.unref();
  }

  /** Leaves no handle behind, whatever is counted. */
  end(): void {
    this.#ended = true;
    this.held = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): Timer {
    return this.#clock.after(FOREVER_MS, () => {
      this.#timer = undefined;
      if (this.#count === 0 || this.#ended) return;
      this.#timer = this.#arm();
      this.#timer.ref();
    });
  }
}

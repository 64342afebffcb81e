/**
 * Keeps Node alive while there is something to wait for: an open subscription, a publish or a call on its way, a listener for
 * services. The engine's callbacks do not (they are weak), so that nothing idle ever holds up the end of a program.
 */
import type { Clock, Timer } from './clock';

const FOREVER_MS = 0x7fff_ffff;

/** One timer a bus or registry, held while something is counted. */
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

/** One reason to keep Node alive, which is there or not. */
export class Reason {
  readonly #keepAlive: KeepAlive;
  #holds = false;

  constructor(keepAlive: KeepAlive) {
    this.#keepAlive = keepAlive;
  }

  /** Whether it is there. */
  get holds(): boolean {
    return this.#holds;
  }

  /** Says whether it is there from now on. */
  set(holds: boolean): void {
    if (holds === this.#holds) return;
    this.#holds = holds;
    if (holds) this.#keepAlive.hold();
    else this.#keepAlive.release();
  }
}

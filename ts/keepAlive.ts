/**
 * Keeps Node alive while a bus has something to wait for: an open subscription, a publish or a call on its way. The
 * engine's callbacks do not (they are weak), so that an idle bus never holds up the end of a program.
 */
import type { Clock, Timer } from './clock';

const FOREVER_MS = 0x7fff_ffff;

/** One timer a bus, held while something is counted. */
export class KeepAlive {
  readonly #clock: Clock;
  #timer: Timer | undefined;
  #count = 0;
  #ended = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** One thing more to wait for. */
  hold(): void {
    if (this.#count++ > 0 || this.#ended) return;
    (this.#timer ??= this.#arm()).ref();
  }

  /** One thing less. */
  release(): void {
    if (--this.#count === 0) this.#timer?.unref();
  }

  /** Leaves no handle behind, whatever is counted. */
  end(): void {
    this.#ended = true;
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

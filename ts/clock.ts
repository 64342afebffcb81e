/** Time and timers, so that tests can turn them by hand. Node's own, not the globals that test tools put their fakes in. */

import { performance } from 'node:perf_hooks';
import { clearTimeout, setTimeout } from 'node:timers';

/** Bound now: test tools replace the method on the object that everybody shares. */
const now = performance.now.bind(performance);

/** What the façade needs of time. */
export interface Clock {
  /** Monotonic, ms. */
  now(): number;
  /** Calls `run` once after `ms`; keeps Node alive only if told by `ref`. */
  after(ms: number, run: () => void): Timer;
}

/** A call to come. */
export interface Timer {
  ref(): void;
  unref(): void;
  cancel(): void;
}

/** The clock in use outside of tests. */
export const systemClock: Clock = {
  now: () => now(),
  after(ms, run) {
    const timeout = setTimeout(run, ms);
    timeout.unref();
    return {
      ref: () => void timeout.ref(),
      unref: () => void timeout.unref(),
      cancel: () => clearTimeout(timeout),
    };
  },
};

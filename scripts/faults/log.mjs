/** The one clock of a run, and the list of what was done to it. */

/** ms of the monotonic clock, which the records of all processes share. */
export const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Faults as they happened: { kind, target, from, to, … }; `to` is when it was healed. */
export class FaultLog {
  faults = [];

  /** Notes a fault from before it is made until it is healed, also when that fails. */
  async during(fault, action) {
    const entry = { ...fault, from: now(), to: Number.POSITIVE_INFINITY };
    this.faults.push(entry);
    try {
      return await action(entry);
    } finally {
      entry.to = now();
    }
  }
}

/**
 * The clock of handler timeouts: one timer a bus for all deliveries. Deliveries with the same timeout end in the order
 * in which they began, so each timeout has a list, and adding and removing cost nothing that grows with the number
 * under way.
 */
import type { Clock, Timer } from './clock';

/** What can be timed. The links belong to {@link Deadlines}. */
export interface Timed {
  /** When it is over, by the clock. */
  deadline: number;
  before: Timed | undefined;
  after: Timed | undefined;
  list: TimedList | undefined;
}

/** Those with one timeout, the earliest first. */
export interface TimedList {
  readonly ms: number;
  first: Timed | undefined;
  last: Timed | undefined;
}

/** Longest that Node's timers can wait. */
const WAIT_MS_MAX = 0x7fff_ffff;

/** Extended timeouts are multiples of this. */
const EXTENSION_STEP_MS = 8;

/** Different timeouts that keep a list while it is empty. */
const LISTS_MAX = 64;

/** Calls `expired` for each whose time is over, a few ms late at most. */
export class Deadlines<T extends Timed> {
  readonly #clock: Clock;
  readonly #expired: (item: T) => void;
  readonly #lists = new Map<number, TimedList>();
  #timer: Timer | undefined;
  #due = Infinity;

  constructor(clock: Clock, expired: (item: T) => void) {
    this.#clock = clock;
    this.#expired = expired;
  }

  /** The time of `item` runs from now, for `ms`. */
  start(item: T, ms: number): void {
    const list = this.#lists.get(ms) ?? this.#makeList(ms);
    item.deadline = this.#clock.now() + ms;
    item.list = list;
    item.before = list.last;
    item.after = undefined;
    if (list.last === undefined) list.first = item;
    else list.last.after = item;
    list.last = item;
    if (item.deadline < this.#due) this.#arm(item.deadline);
  }

  /** `item` is done, or was never started. */
  stop(item: T): void {
    const { list, before, after } = item;
    if (list === undefined) return;
    if (before === undefined) list.first = after;
    else before.after = after;
    if (after === undefined) list.last = before;
    else after.before = before;
    item.list = undefined;
    item.before = undefined;
    item.after = undefined;
  }

  /** Gives `item` `ms` more than it had; nothing happens once its time is over. */
  extend(item: T, ms: number): void {
    if (item.list === undefined) return;
    const rest = item.deadline + ms - this.#clock.now();
    this.stop(item);
    // In the list of those that have equally long to go: only so do lists stay in the order of their ends. Rounded up,
    // so that there are few of them.
    this.start(item, Math.max(Math.ceil(rest / EXTENSION_STEP_MS), 0) * EXTENSION_STEP_MS);
  }

  /** Leaves no timer behind. */
  end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#due = Infinity;
    this.#lists.clear();
  }

  #makeList(ms: number): TimedList {
    if (this.#lists.size >= LISTS_MAX) {
      for (const [key, list] of this.#lists) if (list.first === undefined) this.#lists.delete(key);
    }
    const list: TimedList = { ms, first: undefined, last: undefined };
    this.#lists.set(ms, list);
    return list;
  }

  #arm(due: number): void {
    this.#timer?.cancel();
    this.#due = due;
    this.#timer = this.#clock.after(Math.min(Math.max(Math.ceil(due - this.#clock.now()), 1), WAIT_MS_MAX), () => this.#tick());
  }

  #tick(): void {
    this.#timer = undefined;
    this.#due = Infinity;
    const now = this.#clock.now();
    let next = Infinity;
    for (const list of [...this.#lists.values()]) {
      for (let item = list.first; item !== undefined && item.deadline <= now; item = list.first) {
        this.stop(item as T);
        this.#expired(item as T);
      }
      if (list.first !== undefined && list.first.deadline < next) next = list.first.deadline;
    }
    if (next < this.#due) this.#arm(next);
  }
}

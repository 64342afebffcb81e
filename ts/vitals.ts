/** How an agent and its process are: what performance.metrics says. */
import { totalmem } from 'node:os';
import { type Clock, systemClock } from './clock';

/** Agents of one process that report within this time of each other say the same of it. */
const SHARED_MS = 500;

const SECONDS = 60;

/** Percentages, 0 to 100. */
export interface ProcessVitals {
  /** Of one core, since the measurement before. */
  cpu: number;
  /** Of the machine's memory, or of what the process may use. */
  memory: number;
}

/** Measures the process. */
export class ProcessMeter {
  readonly #clock: Clock;
  #at: number;
  #cpu = process.cpuUsage();
  #last: ProcessVitals | undefined;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    this.#at = clock.now();
  }

  /** Since the measurement before, if that is long enough ago. */
  read(): ProcessVitals {
    const elapsedMs = this.#clock.now() - this.#at;
    if (this.#last !== undefined && elapsedMs < SHARED_MS) return this.#last;
    const { user, system } = process.cpuUsage(this.#cpu);
    this.#cpu = process.cpuUsage();
    this.#at += elapsedMs;
    const cpu = elapsedMs > 0 ? percent((user + system) / 1000, elapsedMs) : 0;
    return (this.#last = { cpu, memory: percent(process.memoryUsage.rss(), memoryLimit()) });
  }
}

let meter: ProcessMeter | undefined;

/** The one of this process. It measures from the first call on. */
export function processMeter(): ProcessMeter {
  return (meter ??= new ProcessMeter());
}

/** Bytes that this process can have: the machine's, or fewer where its container is bounded. */
export function memoryLimit(constrained: number | undefined = process.constrainedMemory?.()): number {
  const total = totalmem();
  return constrained !== undefined && constrained > 0 && constrained < total ? constrained : total;
}

/** Tasks since the report before. */
export interface Ended {
  count: number;
  failed: number;
  totalMs: number;
}

/** Counts the tasks of one agent as they end. */
export class Tally {
  readonly #clock: Clock;
  #since: Ended = { count: 0, failed: 0, totalMs: 0 };
  /** Completed ones of the last minute, by second. */
  readonly #completed = new Uint32Array(SECONDS);
  #second: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#second = this.#now();
  }

  /** A task ended, by itself or because its time was over. */
  ended(ms: number, completed: boolean): void {
    this.#since.count++;
    this.#since.totalMs += ms;
    if (!completed) this.#since.failed++;
    this.#turn();
    if (completed) this.#completed[this.#second % SECONDS]!++;
  }

  /** For a report; what is counted from now on is for the next. */
  take(): { figures: { responseTime: number; throughput: number; errorRate: number }; taken: Ended } {
    this.#turn();
    const taken = this.#since;
    this.#since = { count: 0, failed: 0, totalMs: 0 };
    const { count, failed, totalMs } = taken;
    const figures = {
      responseTime: count === 0 ? 0 : totalMs / count,
      throughput: this.#completed.reduce((sum, each) => sum + each, 0),
      errorRate: count === 0 ? 0 : percent(failed, count),
    };
    return { figures, taken };
  }

  /** The report was not heard: the next one says it too. */
  giveBack({ count, failed, totalMs }: Ended): void {
    this.#since.count += count;
    this.#since.failed += failed;
    this.#since.totalMs += totalMs;
  }

  /** Forgets seconds that are more than a minute ago. */
  #turn(): void {
    const now = this.#now();
    for (let second = Math.max(this.#second + 1, now - SECONDS + 1); second <= now; second++) this.#completed[second % SECONDS] = 0;
    this.#second = now;
  }

  #now(): number {
    return Math.floor(this.#clock.now() / 1000);
  }
}

function percent(part: number, whole: number): number {
  return Math.min(Math.max((part / whole) * 100, 0), 100);
}

/** Where the façade and the engine log to: the user's logger, listeners of 'log', or the console. */
import { systemClock } from './clock';
import { describeThrown } from './errors';
import type { Logger, LogLevel, LogLine } from './types';

type Level = LogLine['level'];

/** What is logged, the least severe first; a log takes those from its level on. */
const RANKS: ReadonlyMap<string, number> = new Map<LogLevel, number>([
  ['debug', 0],
  ['info', 1],
  ['warn', 2],
  ['error', 3],
  ['silent', 4],
]);

/** Failures of one kind that are logged in a time; the engine bounds its lines alike. */
const FAILURES_MAX = 30;
const WINDOW_MS = 60_000;
/** Kinds of failures that are counted; event types are part of them, so there is no natural bound. */
const KINDS_MAX = 1_000;

/** A line as the engine tells it. */
export interface CrossedLine {
  readonly level?: unknown;
  readonly message?: unknown;
  readonly target?: string;
  readonly fields?: Record<string, string>;
  readonly timestamp?: number;
  /** Debug mode, which is written at every level: it was asked for. */
  readonly asked?: true;
}

/**
 * The log of one bus or registry. With a logger all lines go there. Without one they go to the listeners of 'log' where there are
 * any, else to the console.
 */
export class Log {
  readonly #logger: Logger | undefined;
  readonly #rank: number;
  readonly #failures = new Map<string, { since: number; count: number }>();
  #listeners: ((line: LogLine) => boolean) | undefined;
  #telling = false;

  constructor(logger?: Logger, level: LogLevel = 'warn') {
    this.#logger = logger;
    this.#rank = rankOf(level);
  }

  /** `tell` is told each line from now on, and answers whether anybody heard it. */
  listenedBy(tell: (line: LogLine) => boolean): void {
    this.#listeners = tell;
  }

  /** Logs and never throws. */
  write(level: Level, message: string): void {
    if (this.#takes(level)) this.#put({ level, message, timestamp: new Date() });
  }

  /** What the engine says. */
  receive({ level, message, target, fields, timestamp, asked }: CrossedLine): void {
    const known = level === 'silent' || !RANKS.has(String(level)) ? 'info' : (level as Level);
    if (!this.#takes(known) && !(asked === true && this.#takes('error'))) return;
    const line: LogLine = { level: known, message: String(message), timestamp: timestamp === undefined ? new Date() : new Date(timestamp) };
    if (target !== undefined) line.target = target;
    if (fields !== undefined) line.fields = fields;
    this.#put(line);
  }

  /** An error that reaches no caller. `unheard`: listeners are not told, because one of them failed. */
  failure(what: string, error: unknown, unheard = false): void {
    if (!this.#takes('error') || !this.#mayFail(what)) return;
    this.#put({ level: 'error', message: `${what}: ${describeThrown(error)}`, timestamp: new Date() }, unheard);
  }

  #takes(level: Level): boolean {
    return rankOf(level) >= this.#rank;
  }

  /** The same failure with every event must not fill a disk. */
  #mayFail(what: string): boolean {
    const now = systemClock.now();
    const seen = this.#failures.get(what);
    if (seen !== undefined && now - seen.since < WINDOW_MS) return ++seen.count <= FAILURES_MAX;
    if (this.#failures.size >= KINDS_MAX) this.#failures.clear();
    this.#failures.set(what, { since: now, count: 1 });
    const leftOut = (seen?.count ?? 0) - FAILURES_MAX;
    if (leftOut > 0) this.write('error', `${what}: ${leftOut} more of these were left out`);
    return true;
  }

  #put(line: LogLine, unheard = false): void {
    // What a listener does may be worth a line: it is not told of it.
    const heard = !unheard && !this.#telling && this.#tell(line);
    try {
      if (this.#logger !== undefined) this.#logger[line.level](textOf(line));
      else if (!heard) console[line.level](`@bluefly/ossa: ${textOf(line)}`);
    } catch {
      // A logger that throws has nowhere to be reported.
    }
  }

  #tell(line: LogLine): boolean {
    this.#telling = true;
    try {
      return this.#listeners?.(line) ?? false;
    } finally {
      this.#telling = false;
    }
  }
}

const rankOf = (level: LogLevel): number => RANKS.get(level) ?? 0;

/** The message, and the fields behind it as `key=value`. */
function textOf({ message, fields }: LogLine): string {
  if (fields === undefined) return message;
  return [
    message,
    ...Object.entries(fields).map(([key, value]) => `${key}=${/[\s"=]|^$/.test(value) ? JSON.stringify(value) : value}`),
  ].join(' ');
}

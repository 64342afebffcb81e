/** Where the façade and the engine log to. */
import { describeThrown } from './errors';
import type { Logger } from './types';

/** Levels of a logger. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

const LEVELS: ReadonlySet<string> = new Set<LogLevel>(['debug', 'info', 'warn', 'error']);

/**
 * The user's logger, which may throw. Without one errors are shown on the console, and in debug mode the lines of level
 * debug, too: who turned it on wants to see them.
 */
export class Log {
  readonly #logger: Logger | undefined;
  readonly #debugMode: boolean;

  constructor(logger: Logger | undefined, debugMode = false) {
    this.#logger = logger;
    this.#debugMode = debugMode;
  }

  /** Logs and never throws. */
  write(level: string, message: string): void {
    const known: LogLevel = LEVELS.has(level) ? (level as LogLevel) : 'info';
    try {
      if (this.#logger !== undefined) this.#logger[known](message);
      else if (known === 'error') console.error(`@bluefly/ossa: ${message}`);
      else if (known === 'debug' && this.#debugMode) console.debug(`@bluefly/ossa: ${message}`);
    } catch {
      // A logger that throws has nowhere to be reported.
    }
  }

  /** An error that reaches no caller. */
  failure(what: string, error: unknown): void {
    this.write('error', `${what}: ${describeThrown(error)}`);
  }
}

/**
 * The server program, `node dist/server/app.js`: a bus from the environment, its metrics, health and dashboard over HTTP, until it is
 * told to end. docs/deployment.md has all that it can be told.
 */
import { isIP } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { resolveOssaConfig } from '../config';
import { describeThrown, property } from '../errors';
import { OSSAEventBus } from '../OSSAEventBus';
import { ServiceRegistry } from '../ServiceRegistry';
import type { DeepPartial, Logger, LogLevel, OSSAEventBusConfig } from '../types';
import { Front } from './front';
import { DEFAULT_LEVEL, isLevel, jsonLogger, whenUnread } from './log';
import { readSettings, type Settings, SettingsError } from './settings';

/** Between attempts to reach Redis at the start: doubled after each. */
const RETRY_MS = { first: 250, longest: 5_000 };

/** How long ending may take beyond what handlers have: saying goodbye, closing connections, answers that are under way. */
const CLOSING_MS_MAX = 10_000;

/** Exit codes of a process that a signal ended, as a shell says them. */
const ENDED_BY = { SIGINT: 130, SIGTERM: 143 };

/** All that is open while the program runs. */
class Program {
  readonly #front = new Front();
  readonly #stopping = new AbortController();
  readonly #bus: OSSAEventBus;
  readonly #registry: ServiceRegistry | null;
  #exitCode = 0;

  /** @throws SettingsError where the configuration is wrong */
  constructor(
    private readonly settings: Settings,
    private readonly log: Logger,
  ) {
    const config = withLogger(settings.config, log);
    try {
      // The registry is where the bus is: what the file does not say of the address, both take from the environment.
      const { keyPrefix: _busPrefix, ...redis } = config.eventBus?.redis ?? {};
      const wanted = resolveOssaConfig(config).config.serviceRegistry.enabled;
      this.#registry = wanted ? new ServiceRegistry({ redis, logger: log, ...levelOf(config) }) : null;
      this.#bus = new OSSAEventBus(this.#registry, config);
    } catch (error) {
      throw wrongConfig(error, settings);
    }
  }

  /** Resolves when the bus is connected, or the program was told to end. */
  async run(): Promise<void> {
    const { port, host, token } = this.settings;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#signalled(signal));
    for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
      process.on(event, (error: unknown) => this.#failed('An error that nothing handled', error));
    }
    const url = await this.#front.listen(port, host).catch((error: unknown) => {
      throw new SettingsError(`HOST ${host}, PORT ${port}: cannot be listened on (${String(property(error, 'code') ?? error)})`);
    });
    this.log.info(`Listening on ${url}`);
    if (token === undefined && !isLoopback(host)) {
      this.log.warn(`Everybody who reaches ${url} can read events and purge dead letters: set OSSA_HTTP_TOKEN`);
    }
    if (!(await this.#connect())) return;
    this.#front.ready(this.#bus.httpHandler(token === undefined ? {} : { token }));
    this.log.info('Connected to Redis');
  }

  /** Ends with `exitCode`: lets handlers finish, closes all, in a bounded time. */
  async stop(exitCode: number): Promise<void> {
    this.#exitCode ||= exitCode;
    if (this.#stopping.signal.aborted) return;
    this.#stopping.abort();
    this.#front.drain();
    setTimeout(() => this.#tooLate(), this.settings.drainTimeoutMs + CLOSING_MS_MAX);
    try {
      await this.#bus.shutdown({ drainTimeoutMs: this.settings.drainTimeoutMs });
      await this.#registry?.close();
    } catch (error) {
      this.#exitCode ||= 1;
      this.log.error(`Shutting down failed: ${describeThrown(error)}`);
    }
    await this.#front.close();
    this.log.info(`Ended with exit code ${this.#exitCode}`);
    process.exit(this.#exitCode);
  }

  /** Whether the bus is connected; false: the program ends. Redis may come later than the program, so it is waited for. */
  async #connect(): Promise<boolean> {
    const { signal } = this.#stopping;
    for (let pauseMs = RETRY_MS.first; !signal.aborted; pauseMs = Math.min(pauseMs * 2, RETRY_MS.longest)) {
      try {
        await this.#bus.initialize();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        if (property(error, 'retryable') !== true) throw error;
        this.log.warn(`Redis cannot be used yet, the next attempt is in ${pauseMs} ms: ${describeThrown(error)}`);
      }
      await pause(pauseMs, undefined, { signal }).catch(() => undefined);
    }
    return false;
  }

  #signalled(signal: keyof typeof ENDED_BY): void {
    if (this.#stopping.signal.aborted) {
      this.log.warn(`${signal} again: ending at once`);
      process.exit(ENDED_BY[signal]);
    }
    this.log.info(`${signal}: ending, handlers have ${this.settings.drainTimeoutMs} ms`);
    void this.stop(0);
  }

  /** Something that is waited for does not come: whoever waits for the end of the process need not wait for it, too. */
  #tooLate(): never {
    this.log.error(`Shutting down takes more than ${this.settings.drainTimeoutMs + CLOSING_MS_MAX} ms: ending at once`);
    process.exit(this.#exitCode || 1);
  }

  #failed(what: string, error: unknown): void {
    this.log.error(`${what}: ${property(error, 'stack') ?? describeThrown(error)}`);
    void this.stop(1);
  }
}

/** With the program's log as the bus's. What is no object, and a `logger` that a file cannot hold, are left for the bus to refuse. */
function withLogger(config: DeepPartial<OSSAEventBusConfig>, logger: Logger): DeepPartial<OSSAEventBusConfig> {
  const { eventBus } = config;
  if (eventBus === undefined) return { ...config, eventBus: { logger } };
  if (typeof eventBus !== 'object' || eventBus === null || Array.isArray(eventBus)) return config;
  return { ...config, eventBus: { logger, ...eventBus } };
}

/** The registry's lines are as severe as the bus's: as the file says, else by OSSA_LOG. A wrong word is for the bus to refuse. */
function levelOf(config: DeepPartial<OSSAEventBusConfig>): { logLevel?: LogLevel } {
  const logLevel = property(config.eventBus, 'logLevel');
  return isLevel(logLevel) ? { logLevel } : {};
}

/** What comes from a variable names it already. */
function wrongConfig(error: unknown, { file }: Settings): SettingsError {
  const fromVariable = property(property(error, 'details'), 'env') !== undefined;
  const where = file === undefined || fromVariable ? '' : `OSSA_CONFIG: ${file}: `;
  return new SettingsError(`${where}${describeThrown(error)}`);
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

async function main(): Promise<void> {
  let log = jsonLogger(DEFAULT_LEVEL);
  let program: Program | undefined;
  whenUnread(() => {
    if (program === undefined) process.exit(1);
    void program.stop(1);
  });
  try {
    const settings = readSettings(process.env);
    log = jsonLogger(settings.level);
    program = new Program(settings, log);
    await program.run();
  } catch (error) {
    log.error(error instanceof SettingsError ? error.message : describeThrown(error));
    if (program === undefined) process.exit(1);
    await program.stop(1);
  }
}

void main();

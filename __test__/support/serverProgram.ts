/** The server program of the package, `dist/server/app.js`, in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { until } from './wait';

const PROGRAM = join(__dirname, '..', '..', 'dist', 'server', 'app.js');

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A line of its log. */
export interface Record {
  time: string;
  level: string;
  message: string;
}

/** A server program under way. */
export class ServerProgram {
  /** What it logged. */
  readonly log: Record[] = [];
  /** How it ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #child: ChildProcess;
  #stderr = '';

  /** Starts it with these environment variables and no others, on a free port unless they name one. */
  constructor(env: { [name: string]: string }) {
    const child = spawn(process.execPath, [PROGRAM], { env: { PORT: '0', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    running.add(child);
    createInterface({ input: child.stdout! }).on('line', (line) => this.log.push(JSON.parse(line) as Record));
    child.stderr!.on('data', (data) => {
      this.#stderr += data;
    });
    this.ended = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        running.delete(child);
        resolve({ code, signal });
      });
    });
  }

  /** What it said beside its log: nothing, unless it is broken. */
  get stderr(): string {
    return this.#stderr;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** From now on nobody reads its log. */
  stopReading(): void {
    this.#child.stdout?.destroy();
  }

  /** Resolves once a line of its log matches. */
  logged(what: RegExp): Promise<Record> {
    return until(() => this.log.find(({ message }) => what.test(message)) ?? this.#given(), { show: () => this.log }) as Promise<Record>;
  }

  /** Where it listens. */
  async url(): Promise<string> {
    const { message } = await this.logged(/^Listening on /);
    return message.slice('Listening on '.length);
  }

  /** Its answer to GET. */
  async get(path: string, headers: { [name: string]: string } = {}): Promise<{ status: number; text: string }> {
    const response = await fetch(`${await this.url()}${path}`, { headers });
    return { status: response.status, text: await response.text() };
  }

  /** A program that ended logs no more. */
  #given(): undefined {
    if (this.#child.exitCode !== null)
      throw new Error(`the server ended with ${this.#child.exitCode}: ${JSON.stringify(this.log)} ${this.#stderr}`);
    return undefined;
  }
}

/** Ends all that still run. */
export async function endServers(): Promise<void> {
  await Promise.all(
    [...running].map((child) => {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      return ended;
    }),
  );
}

/** Programs of the tests in processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const FOLDER = join(__dirname, '..', 'integration', 'programs');

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A line that a program printed. */
export type Line = Record<string, any>;

/** A program under way. */
export interface Program {
  /** What it printed, one JSON object a line. */
  readonly lines: Line[];
  readonly pid: number;
  /** What it said on stderr. */
  stderr(): string;
  kill(signal: NodeJS.Signals): void;
  /** Asks it for something by a message, which gets an `id`; resolves with the `value` of the line that has it as `answer`. */
  ask(message: object): Promise<any>;
  /** How it ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts `programs/<name>` with `task` as its argument. `asked`: it takes messages. */
export function start(
  name: string,
  task: object,
  { nodeOptions = [], onLine, asked = false }: { nodeOptions?: string[]; onLine?: (line: Line) => void; asked?: boolean } = {},
): Program {
  const child = spawn(process.execPath, [...nodeOptions, join(FOLDER, name), JSON.stringify(task)], {
    stdio: asked ? ['ignore', 'pipe', 'pipe', 'ipc'] : ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const lines: Line[] = [];
  const waiting = new Map<number, (line: Line) => void>();
  let questions = 0;
  let stderr = '';
  createInterface({ input: child.stdout! }).on('line', (text) => {
    const line = JSON.parse(text) as Line;
    const answered = waiting.get(line.answer);
    if (answered !== undefined) return answered(line);
    lines.push(line);
    onLine?.(line);
  });
  child.stderr!.on('data', (data) => {
    stderr += data;
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('close', (code, signal) => {
      running.delete(child);
      for (const answered of waiting.values()) answered({ error: `${name} ended before it answered; ${stderr}` });
      resolve({ code, signal });
    });
  });
  const ask = (message: object) =>
    new Promise((resolve, reject) => {
      const id = questions++;
      waiting.set(id, (line) => {
        waiting.delete(id);
        if (line.error === undefined) resolve(line.value);
        else reject(new Error(line.error));
      });
      child.send({ id, ...message });
    });
  return { lines, pid: child.pid as number, stderr: () => stderr, kill: (signal) => void child.kill(signal), ask, ended };
}

/** Ends all that still run. */
export async function endAll(): Promise<void> {
  await Promise.all(
    [...running].map((child) => {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      return ended;
    }),
  );
}

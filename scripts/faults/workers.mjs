/** The Node.js processes of a run: publishers and consumers, each with a file of records. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../lib/paths.mjs';
import { deathGuard, waitFor } from '../lib/servers.mjs';
import { now } from './log.mjs';

const programs = join(root, 'scripts/faults/programs');
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** One process: `name` is its own, that of the process it replaces is not used again. */
export async function startWorker(role, name, { folder, task, clock }) {
  const records = join(folder, `${name}.jsonl`);
  const own = [process.execPath, join(programs, `${role}.cjs`), JSON.stringify({ ...task, name, records })];
  const [command, ...args] = [...(await deathGuard()), ...own];
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...clock?.env },
  });
  running.add(child);
  const worker = { role, name, records, clock, pid: child.pid, started: now(), ended: null, killed: null, stderr: '' };
  child.stderr.on('data', (data) => {
    worker.stderr = (worker.stderr + data).slice(-4000);
  });
  worker.exit = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      running.delete(child);
      worker.ended = { t: now(), code, signal };
      resolve(worker.ended);
    });
  });
  worker.signal = (signal) => void child.kill(signal);
  /** As a crash would; its time is noted first, so that it lies before whatever follows from it. */
  worker.kill = async () => {
    worker.killed ??= now();
    child.kill('SIGKILL');
    await worker.exit;
  };
  /** By SIGTERM, once it listens for that; whether it ended by itself in time. */
  worker.close = async (timeoutMs) => {
    await waitFor(() => worker.ended !== null || sizeOf(records) > 0, timeoutMs);
    worker.closed ??= now();
    child.kill('SIGTERM');
    const inTime = await waitFor(() => worker.ended !== null, timeoutMs);
    if (!inTime) {
      worker.hung = true;
      await worker.kill();
    }
    return inTime;
  };
  worker.ready = () => waitFor(() => worker.ended !== null || readRecords(records).some(({ e }) => e === 'ready'), 30_000);
  return worker;
}

const sizeOf = (file) => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/** A file's lines; what a process that was killed had begun to write is left out. */
export function readRecords(file) {
  if (!existsSync(file)) return [];
  const text = readFileSync(file, 'utf8');
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

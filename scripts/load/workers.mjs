/** The processes with the buses: started, asked, and ended. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from '../lib/paths.mjs';
import { deathGuard, waitFor } from '../lib/servers.mjs';

const program = join(root, 'scripts/load/programs/worker.cjs');
const closeTimeoutMs = 30_000;
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A process with its task; resolves when it listens. */
export async function startWorker(task) {
  const [command, ...args] = [...(await deathGuard()), process.execPath, program, JSON.stringify(task)];
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  running.add(child);
  const waiting = new Map();
  let ended = null;
  let stderr = '';
  let asked = 0;
  child.stderr.on('data', (data) => {
    stderr = (stderr + data).slice(-4000);
  });
  const gone = () => new Error(`process ${task.number} ended with ${ended.signal ?? ended.code}\n${stderr}`);
  const ready = new Promise((resolve, reject) => waiting.set('ready', { resolve, reject }));
  child.on('message', ({ ready: isReady, id, answer, error }) => {
    const call = waiting.get(isReady ? 'ready' : id);
    if (error) call.reject(new Error(`process ${task.number}: ${error}`));
    else call.resolve(answer);
    waiting.delete(isReady ? 'ready' : id);
  });
  child.once('exit', (code, signal) => {
    running.delete(child);
    ended = { code, signal };
    for (const { reject } of waiting.values()) reject(gone());
  });

  const worker = {
    number: task.number,
    /** Resolves with what the process answers; rejects when it ends before. */
    ask: (ask) =>
      new Promise((resolve, reject) => {
        if (ended) return reject(gone());
        waiting.set(++asked, { resolve, reject });
        child.send({ ask, id: asked });
      }),
    /** Closes its buses; whether it then ended by itself, with exit code 0. */
    async close() {
      worker.ask('close').catch(() => {});
      const inTime = await waitFor(() => ended !== null, closeTimeoutMs);
      return inTime && ended.code === 0;
    },
    async kill() {
      child.kill('SIGKILL');
      await waitFor(() => ended !== null, closeTimeoutMs);
    },
  };
  await ready;
  return worker;
}

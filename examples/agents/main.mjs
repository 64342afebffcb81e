// Agents: tasks with dependencies are given to those who can do them, in other processes, and in the end a table says who did what.
// REDIS_URL names a Redis, and the workers are processes of their own; without it all is in this one, on the embedded bus.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createOSSAEventBus } from '@bluefly/ossa';
import { tableOf, tasksOf, WORKERS } from './plan.mjs';
import { startAgents } from './worker.mjs';

const WORKER = fileURLToPath(new URL('worker.mjs', import.meta.url));

/** Has an album made, and resolves with its tasks as they ended. */
export async function run(url, { album = `album-${Date.now()}`, photos = 6, workers = WORKERS } = {}) {
  const redis = { url, keyPrefix: 'ossa:example:agents' };
  const bus = await createOSSAEventBus(null, { eventBus: { redis } });
  const processes = [];
  try {
    if (url.startsWith('memory:')) for (const worker of workers) await startAgents(bus, worker);
    else processes.push(...workers.map((worker) => start(worker, redis)));
    const tasks = tasksOf(album, photos);
    const ids = tasks.map(({ id }) => id);
    const { ended } = await watch(bus, ids);
    // In any order, and before there is an agent: tasks wait for what they depend on, and for who can do them.
    for (const task of tasks) await bus.distributeTask(task);
    await ended;
    return await Promise.all(ids.map((id) => settled(bus, id)));
  } finally {
    await Promise.all(processes.map(end));
    await bus.shutdown();
  }
}

/** The task once it is noted that it ended: what an agent says of it is heard here as early as by those who note it. */
async function settled(bus, id) {
  for (;;) {
    const task = await bus.getTask(id);
    if (task.endedAt !== undefined) return task;
    await sleep(20);
  }
}

/** Resolves once it listens; `ended` of what it answers resolves when all tasks of these ids have ended. */
async function watch(bus, ids) {
  const left = new Set(ids);
  let done;
  const ended = new Promise((resolve) => (done = resolve));
  const count = ({ data }) => {
    left.delete(data.taskId);
    if (left.size === 0) done();
  };
  const options = { group: `album-${process.pid}`, ephemeral: true };
  await bus.subscribe('task.completed', count, options);
  await bus.subscribe('task.cancelled', count, options);
  // Without `final` it is given out again.
  await bus.subscribe('task.failed', (event) => event.data.final && count(event), options);
  return { ended };
}

function start(worker, redis) {
  return spawn(process.execPath, [WORKER, JSON.stringify({ worker, redis })], { stdio: 'inherit' });
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'close');
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const views = await run(process.env.REDIS_URL || 'memory://');
  for (const line of tableOf(views)) console.log(line);
}

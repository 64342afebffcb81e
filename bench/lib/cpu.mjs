/** CPU time, to tell what an event costs from how fast the machine was just then. */
import { readdirSync, readFileSync } from 'node:fs';

/** What the engine calls its threads. */
const engineThread = 'ossa';

/** ns of the JavaScript thread and of the engine's; Linux alone tells (Node before 23.9 has no call for it). */
function threadsNs() {
  try {
    const ns = (thread) => Number(readFileSync(`/proc/self/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    const named = (thread) => readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim();
    const engine = readdirSync('/proc/self/task').filter((thread) => named(thread) === engineThread);
    return { javascript: ns(process.pid), engine: engine.reduce((sum, thread) => sum + ns(thread), 0) };
  } catch {
    return { javascript: Number.NaN, engine: Number.NaN };
  }
}

/** µs the server has used. */
export async function serverUs(redis) {
  const info = await redis.info('cpu');
  const seconds = (field) => Number(new RegExp(`^${field}:([\\d.]+)`, 'm').exec(info)?.[1]);
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6;
}

/** Starts counting; the answer resolves with µs an event: of the JavaScript thread, the engine, all other threads, the server. */
export async function countCpu(redis) {
  const server = await serverUs(redis);
  const threads = threadsNs();
  const all = process.cpuUsage();
  return async (events) => {
    const now = threadsNs();
    const { user, system } = process.cpuUsage(all);
    const javascript = (now.javascript - threads.javascript) / 1e3;
    const engine = (now.engine - threads.engine) / 1e3;
    const used = { javascript, engine, others: user + system - javascript - engine, server: (await serverUs(redis)) - server };
    return Object.fromEntries(Object.entries(used).map(([part, us]) => [part, us / events]));
  };
}

/** Clock ticks of /proc/<pid>/stat. */
const tickUs = 1e4;

/** µs that each of these processes has used; Linux alone tells. */
export const processesUs = (pids) =>
  pids.map((pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) * tickUs;
  });

/** The process of a server. */
export const serverPid = async (redis) => Number(/process_id:(\d+)/.exec(await redis.info('server'))[1]);

/** CPU time, to tell what an event costs from how fast the machine was just then. */
import { readFileSync } from 'node:fs';

/** ns of the JavaScript thread; Linux alone tells (Node before 23.9 has no call for it). */
function threadNs() {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]);
  } catch {
    return Number.NaN;
  }
}

/** µs the server has used. */
export async function serverUs(redis) {
  const info = await redis.info('cpu');
  const seconds = (field) => Number(new RegExp(`^${field}:([\\d.]+)`, 'm').exec(info)?.[1]);
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6;
}

/** Starts counting; the answer resolves with µs an event of the JavaScript thread, of all threads, of the server. */
export async function countCpu(redis) {
  const server = await serverUs(redis);
  const thread = threadNs();
  const all = process.cpuUsage();
  return async (events) => {
    const javascript = (threadNs() - thread) / 1e3 / events;
    const { user, system } = process.cpuUsage(all);
    return { javascript, process: (user + system) / events, server: ((await serverUs(redis)) - server) / events };
  };
}

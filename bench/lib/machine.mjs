/** On what a measurement was made. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { performance } from 'node:perf_hooks';
import { serverUs } from './cpu.mjs';

const read = (file) => JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8'));

/** Machine and versions. */
export async function machine(redis) {
  const info = await redis.info('server');
  return {
    date: new Date().toISOString(),
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cpus: os.availableParallelism(),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.version,
    redis: /^redis_version:(\S+)/m.exec(info)?.[1] ?? 'unknown',
    ossa: read('../../package.json').version,
    commit: commit(),
    loadBefore: load(),
  };
}

/** Versions of those that are measured beside the bus: all of them exact, and installed as the lock file says. */
export function peerVersions() {
  return Object.entries(read('../package.json').devDependencies)
    .filter(([name]) => name !== 'd3-scale')
    .map(([name, at]) => `${name} ${at}`);
}

/** µs of CPU that child processes have used that have ended; Linux alone tells. */
function childrenUs() {
  try {
    const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ');
    return (Number(fields[13]) + Number(fields[14])) * 1e4;
  } catch {
    return Number.NaN;
  }
}

/**
 * Starts counting; the answer resolves with how many CPUs other programs than this one, those that it started and that have ended, and the
 * server kept busy.
 */
export async function countOthers(redis) {
  const busy = () => os.cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
  const before = { busy: busy(), at: performance.now(), server: await serverUs(redis), children: childrenUs() };
  const own = process.cpuUsage();
  return async () => {
    const { user, system } = process.cpuUsage(own);
    const ours = (user + system + (await serverUs(redis)) - before.server + childrenUs() - before.children) / 1e3;
    return Number((Math.max(0, busy() - before.busy - ours) / (performance.now() - before.at)).toFixed(2));
  };
}

/** Load over 1, 5 and 15 minutes: what else the machine was doing. */
export const load = () => os.loadavg().map((value) => Number(value.toFixed(2)));

function commit() {
  const { status, stdout } = spawnSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8', cwd: import.meta.dirname });
  return status === 0 ? stdout.trim() : 'unknown';
}

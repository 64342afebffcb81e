/** On what a measurement was made. */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import { performance } from 'node:perf_hooks';
import { serverUs } from './cpu.mjs';

const require = createRequire(import.meta.url);

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
    ioredis: require('ioredis/package.json').version,
    ossa: require('@bluefly/ossa/package.json').version,
    commit: commit(),
    loadBefore: load(),
  };
}

/** Starts counting; the answer resolves with how many CPUs other programs than this one and the server kept busy. */
export async function countOthers(redis) {
  const busy = () => os.cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
  const before = { busy: busy(), at: performance.now(), server: await serverUs(redis) };
  const own = process.cpuUsage();
  return async () => {
    const { user, system } = process.cpuUsage(own);
    const ours = (user + system + (await serverUs(redis)) - before.server) / 1e3;
    return Number((Math.max(0, busy() - before.busy - ours) / (performance.now() - before.at)).toFixed(2));
  };
}

/** Load over 1, 5 and 15 minutes: what else the machine was doing. */
export const load = () => os.loadavg().map((value) => Number(value.toFixed(2)));

function commit() {
  const { status, stdout } = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', cwd: import.meta.dirname });
  return status === 0 ? stdout.trim() : 'unknown';
}

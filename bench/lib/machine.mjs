/** On what a measurement was made. */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';

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

/** Load over 1, 5 and 15 minutes: what else the machine was doing. */
export const load = () => os.loadavg().map((value) => Number(value.toFixed(2)));

function commit() {
  const { status, stdout } = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', cwd: import.meta.dirname });
  return status === 0 ? stdout.trim() : 'unknown';
}

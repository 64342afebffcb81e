/** What the server takes over one connection, by the tool that comes with it: XADD of 200 bytes, 100 a pipeline. */
import { spawn, spawnSync } from 'node:child_process';

const found = spawnSync('redis-benchmark', ['--version'], { stdio: 'ignore' }).status === 0;

function benchmark(address, count) {
  const { hostname, port } = new URL(address);
  const command = ['XADD', 'limit', '*', 'd', 'x'.repeat(200)];
  const child = spawn('redis-benchmark', ['-h', hostname, '-p', port, '-n', String(count), '-c', '1', '-P', '100', '-q', ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  child.stdout.on('data', (chunk) => {
    printed += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      const rate = /([\d.]+) requests per second/.exec(printed)?.[1];
      if (rate === undefined) reject(new Error(`redis-benchmark said: ${printed}`));
      else resolve({ value: Number(rate) });
    });
  });
}

/** `null` where redis-benchmark is not installed. */
export const serverLimit = found
  ? {
      name: "the server's limit: XADD, 1 connection, pipeline 100",
      unit: 'events/s',
      sides: { 'redis-benchmark': ({ address, count }) => benchmark(address, count * 2) },
    }
  : null;

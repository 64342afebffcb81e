/** What the server takes over one connection, by the tool that comes with it: XADD of what the bus writes for an event, 100 a pipeline. */
import { spawn, spawnSync } from 'node:child_process';
import { data, type } from '../lib/event.mjs';
import { withBus } from '../lib/sides.mjs';

const found = spawnSync('redis-benchmark', ['--version'], { stdio: 'ignore' }).status === 0;

/** The fields of an entry as the bus writes it, as long as they are. */
async function entry(address, redis) {
  await withBus(address, (bus) => bus.publish(type, data(50_000)));
  const [key] = await redis.keys(`bench:*:stream:${type}:*`);
  const [[, fields]] = await redis.xrange(key, '-', '+', 'COUNT', 1);
  return fields.map((field, i) => (i % 2 === 0 ? field : 'x'.repeat(Buffer.byteLength(field))));
}

async function benchmark({ address, redis, count }) {
  const { hostname, port } = new URL(address);
  const command = ['XADD', 'limit', '*', ...(await entry(address, redis))];
  const child = spawn('redis-benchmark', ['-h', hostname, '-p', port, '-n', String(count * 2), '-c', '1', '-P', '100', '-q', ...command], {
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

/** Nothing where redis-benchmark is not installed. */
export const limit = found ? { 'redis-benchmark XADD, pipeline 100': benchmark } : {};

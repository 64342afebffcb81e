/** The two that are compared: this bus with its defaults, and a plain Redis client. */
import { createRequire } from 'node:module';
import { Redis } from 'ioredis';

const require = createRequire(import.meta.url);
const { RedisEventBus } = require('@bluefly/ossa');

/** A connected bus under a prefix of its own. */
export async function openBus(address, config = {}) {
  const bus = new RedisEventBus({ ...config, redis: { url: address, keyPrefix: 'bench', ...config.redis } });
  await bus.connect();
  return bus;
}

/** A connected ioredis. */
export async function openClient(address) {
  const client = new Redis(address, { lazyConnect: true });
  await client.connect();
  return client;
}

/** Runs with a bus and closes it. */
export async function withBus(address, work, config) {
  const bus = await openBus(address, config);
  try {
    return await work(bus);
  } finally {
    await bus.disconnect();
  }
}

/** Runs with `count` clients and closes them. */
export async function withClients(address, count, work) {
  const clients = await Promise.all(Array.from({ length: count }, () => openClient(address)));
  try {
    return await work(...clients);
  } finally {
    for (const client of clients) client.disconnect();
  }
}

/**
 * Reads as a member of a group with ioredis: 100 entries a call, handlers called together, one XACK a batch, which the
 * next read does not wait for. Ends when `enough()`.
 */
export async function readGroup(client, stream, handler, enough) {
  while (!enough()) {
    const answer = await client.xreadgroup('GROUP', 'group', 'reader', 'COUNT', 100, 'BLOCK', 1000, 'STREAMS', stream, '>');
    if (answer === null) continue;
    const ids = [];
    await Promise.all(
      answer[0][1].map(([id, fields]) => {
        ids.push(id);
        return handler({ metadata: JSON.parse(fields[1]), data: JSON.parse(fields[3]) });
      }),
    );
    client.xack(stream, 'group', ...ids);
  }
}

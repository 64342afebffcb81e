/** Opening what is measured, and closing it whatever happens. */
import { Redis } from 'ioredis';
import { RedisEventBus } from './ossa.mjs';

/** A connected bus under a prefix of its own. */
export async function openBus(address, config = {}) {
  const bus = new RedisEventBus({ ...config, redis: { url: address, keyPrefix: 'bench', ...config.redis } });
  await bus.connect();
  return bus;
}

/** A connected ioredis. */
export async function openClient(address, options = {}) {
  const client = new Redis(address, { ...options, lazyConnect: true });
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

/** Runs with a client and closes it. */
export async function withClient(address, work) {
  const client = await openClient(address);
  try {
    return await work(client);
  } finally {
    client.disconnect();
  }
}

/** Sides of a measurement by the names of peers: `work(opened, context)` with each of them, which is closed whatever happens. */
export function sidesOf(peers, work) {
  const side = (peer) => async (context) => {
    const opened = await peer.open(context);
    try {
      return await work(opened, { ...context, count: Math.ceil(context.count * (peer.share ?? 1)) });
    } finally {
      await opened.close();
    }
  };
  return Object.fromEntries(peers.map((peer) => [peer.name, side(peer)]));
}

/** Throws unless so many events were stored, and so many of them are not acknowledged. */
export async function expectState(opened, { stored, unsettled }) {
  const state = await opened.state();
  if (state.stored === stored && state.unsettled === unsettled) return;
  throw new Error(`${stored} stored and ${unsettled} not acknowledged expected, but ${JSON.stringify(state)} found`);
}

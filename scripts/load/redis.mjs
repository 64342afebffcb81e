/** The servers of a run, and what they say of themselves and of the streams. */
import { Redis } from 'ioredis';
import { machine } from '../../bench/lib/machine.mjs';
import { outstanding } from '../faults/inventory.mjs';
import { startServers } from '../lib/servers.mjs';

export const prefix = 'load';
const keysAtOnce = 500;

/** Starts them, with a user for each bus: CLIENT LIST then says whose a connection is. */
export async function startRedis(topology, buses) {
  const cluster = topology === 'cluster';
  const { env, stop } = await startServers({ single: !cluster, cluster });
  const addresses = (cluster ? env.OSSA_TEST_CLUSTER.split(',') : [env.OSSA_TEST_REDIS.slice('redis://'.length)]).map(parsed);
  const clients = addresses.map((address) => new Redis({ ...address, maxRetriesPerRequest: 0 }));
  for (const client of clients) client.on('error', () => {});
  for (const client of clients)
    for (let bus = 0; bus < buses; bus++) await client.call('ACL', 'SETUSER', user(bus), 'on', `>${user(bus)}`, '~*', '&*', '+@all');
  const masters = [];
  for (const client of clients) if (/^role:master/m.test(await client.info('replication'))) masters.push(client);

  return {
    masters: masters.length,
    version: /^redis_version:(\S+)/m.exec(await clients[0].info('server'))[1],
    /** Machine and versions. */
    about: () => machine(clients[0]),
    /** The section `redis` of a bus's configuration. */
    configOf: (bus) => ({
      ...(cluster ? { cluster: { nodes: addresses } } : addresses[0]),
      ...{ keyPrefix: prefix, username: user(bus), password: user(bus) },
    }),
    /** Commands so far, bytes sent, and seconds of CPU, on all nodes. */
    async traffic() {
      const infos = await Promise.all(clients.map(async (client) => (await client.info('stats')) + (await client.info('cpu'))));
      const total = (name) => sum(infos.map((info) => number(info, name)));
      return {
        commands: total('total_commands_processed'),
        sent: total('total_net_output_bytes'),
        cpu: total('used_cpu_user') + total('used_cpu_sys'),
      };
    },
    async sample() {
      const memory = await Promise.all(masters.map(usedMemory));
      const clientsConnected = await Promise.all(clients.map(connectedClients));
      const standing = await Promise.all(masters.map(pendingAndLag));
      return {
        usedMemory: sum(memory),
        connectedClients: sum(clientsConnected),
        connections: await connectionsByBus(clients, buses),
        entries: sum(standing.map(({ entries }) => entries)),
        pending: sum(standing.map(({ pending }) => pending)),
        lag: sum(standing.map(({ lag }) => lag)),
        lagUnknown: sum(standing.map(({ lagUnknown }) => lagUnknown)),
      };
    },
    /** Keys and bytes by what the keys are for. */
    async keyspace() {
      const kinds = new Map();
      for (const master of masters) await addKeyspace(master, kinds);
      return Object.fromEntries([...kinds].sort(([a], [b]) => (a < b ? -1 : 1)));
    },
    /** What is left to do, by stream and group. */
    outstanding: async () => (await Promise.all(masters.map((master) => outstanding(master, prefix)))).flat(),
    async stop() {
      for (const client of clients) client.disconnect();
      await stop();
    },
  };
}

const user = (bus) => `bus-${bus}`;
const sum = (list) => list.reduce((all, each) => all + each, 0);
const number = (info, name) => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)[1]);
const usedMemory = async (client) => number(await client.info('memory'), 'used_memory');
const connectedClients = async (client) => number(await client.info('clients'), 'connected_clients');

function parsed(address) {
  const [host, port] = address.split(':');
  return { host, port: Number(port) };
}

/** How many connections each bus has to all nodes. */
async function connectionsByBus(clients, buses) {
  const counts = Array(buses).fill(0);
  for (const client of clients) for (const [, bus] of (await client.client('LIST')).matchAll(/ user=bus-(\d+)/g)) counts[bus]++;
  return counts;
}

async function* pagesOf(client, pattern) {
  let cursor = '0';
  do {
    const [next, page] = await client.scan(cursor, 'MATCH', pattern, 'COUNT', keysAtOnce);
    yield page;
    cursor = next;
  } while (cursor !== '0');
}

/** Over all groups of all streams of a node. */
async function pendingAndLag(client) {
  const all = { entries: 0, pending: 0, lag: 0, lagUnknown: 0 };
  for await (const keys of pagesOf(client, `${prefix}:{*}:stream:*`)) {
    const commands = client.pipeline();
    for (const key of keys) commands.xlen(key).xinfo('GROUPS', key);
    const replies = (await commands.exec()).map(([, reply]) => reply);
    for (let n = 0; n < replies.length; n += 2) {
      all.entries += replies[n];
      for (const group of replies[n + 1].map(pairs)) {
        all.pending += group.pending;
        // Null after a deletion in the middle: Redis would have to count.
        if (group.lag === null) all.lagUnknown++;
        else all.lag += group.lag;
      }
    }
  }
  return all;
}

async function addKeyspace(client, kinds) {
  for await (const keys of pagesOf(client, '*')) {
    const commands = client.pipeline();
    for (const key of keys) commands.memory('USAGE', key, 'SAMPLES', 20);
    const replies = await commands.exec();
    keys.forEach((key, n) => {
      const kind = /^[^:]+:(?:\{[^}]*\}:)?([^:]+)/.exec(key)?.[1] ?? key;
      const { keys: count = 0, bytes = 0 } = kinds.get(kind) ?? {};
      kinds.set(kind, { keys: count + 1, bytes: bytes + (replies[n][1] ?? 0) });
    });
  }
}

const pairs = (list) => Object.fromEntries(Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i], list[2 * i + 1]]));

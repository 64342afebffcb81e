/** Three masters and a replica of each, with their data on disk; failovers and moves of slots. */
import { output } from '../lib/run.mjs';
import { ask, freeClusterPort, waitFor } from '../lib/servers.mjs';
import { startNode } from './node.mjs';

const size = 6;
const readyTimeoutMs = 30_000;
const failoverTimeoutMs = 6_000;
const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', '--repl-diskless-sync-delay', '0'];
/** Keys that one command moves from node to node. */
const movedAtOnce = 50;

/** Hash tags of the buckets, as in src/engine/store/redis/keys.rs. */
export const tags = 'b367 b260 b9 b401 b366 b261 b8 b400 b447 b11 b226 b321 b446 b10 b227 b320'.split(' ');

export async function startCluster() {
  const nodes = [];
  const stop = () => Promise.all(nodes.map((node) => node.stop()));
  try {
    while (nodes.length < size) nodes.push(await startNode({ port: await freeClusterPort(), args: settings }));
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
    await output('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-replicas', '1', '--cluster-yes'], { quiet: true });
    const cluster = { nodes, stop, ...actions(nodes) };
    await cluster.ready();
    return cluster;
  } catch (error) {
    await stop();
    throw error;
  }
}

function actions(nodes) {
  const isMaster = async (node) => /role:master/.test(await ask(node.port, 'INFO replication'));

  /** In the order of their slots, so that an index means the same until slots move. */
  async function masters() {
    const roles = await Promise.all(nodes.map(isMaster));
    return nodes.filter((_, index) => roles[index]);
  }

  /** Every node knows a master for each slot, and every replica has a master that it follows. */
  async function isReady() {
    for (const node of nodes) {
      if (!/cluster_state:ok/.test(await ask(node.port, 'CLUSTER INFO'))) return false;
      if (/master_link_status:down|loading:1/.test(await ask(node.port, 'INFO'))) return false;
      const known = await ask(node.port, 'CLUSTER NODES');
      if (/\bfail\??\b|handshake/.test(known)) return false;
    }
    return (await masters()).length === size / 2;
  }

  async function ready() {
    if (await waitFor(isReady, readyTimeoutMs)) return;
    const views = await Promise.all(nodes.map(async ({ port, log }) => `port ${port}: ${(await ask(port, 'CLUSTER NODES')) || log()}`));
    throw new Error(`the cluster did not become ready\n${views.join('\n')}`);
  }

  /** The replica takes over from its master, by agreement: nothing is lost. */
  async function failover(index) {
    const all = await Promise.all(nodes.map(isMaster));
    const replicas = nodes.filter((_, n) => !all[n]);
    const replica = replicas[index % replicas.length];
    // Redis gives a failover up after five seconds, as on a machine that is busy: then it is asked for once more.
    for (const end = Date.now() + readyTimeoutMs; ; ) {
      await replica.call('CLUSTER', 'FAILOVER').catch(() => {});
      if (await waitFor(() => isMaster(replica), failoverTimeoutMs)) break;
      if (Date.now() > end) throw new Error(`no failover to port ${replica.port}`);
    }
    await ready();
  }

  /** Moves the slot of a bucket with all its keys to another master, while clients use it. */
  async function moveSlot(bucket, to) {
    const targets = await masters();
    const slot = await nodes[0].call('CLUSTER', 'KEYSLOT', `{${tags[bucket]}}`);
    const ids = new Map();
    for (const node of targets) ids.set(node, await node.call('CLUSTER', 'MYID'));
    const owner = (await nodes[0].call('CLUSTER', 'SLOTS')).find(([first, last]) => first <= slot && slot <= last);
    const source = targets.find(({ port }) => port === owner[2][1]);
    const target = targets[to % targets.length];
    if (source === undefined || source === target) return;
    await target.call('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', ids.get(source));
    await source.call('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', ids.get(target));
    await source.with(async (client) => {
      for (;;) {
        const keys = await client.call('CLUSTER', 'GETKEYSINSLOT', String(slot), String(movedAtOnce));
        if (keys.length === 0) return;
        await client.call('MIGRATE', '127.0.0.1', String(target.port), '', '0', '10000', 'KEYS', ...keys);
      }
    });
    // The new owner first: between the two nobody would have it otherwise.
    for (const node of [target, source, ...targets.filter((other) => other !== target && other !== source)])
      await node.call('CLUSTER', 'SETSLOT', String(slot), 'NODE', ids.get(target));
    await ready();
  }

  return { isMaster, masters, ready, failover, moveSlot };
}

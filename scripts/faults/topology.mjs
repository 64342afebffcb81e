/** The servers of a run: one, or a cluster. Both answer to the same names, so that a fault need not know. */
import { makeClock } from './clock.mjs';
import { startCluster } from './cluster.mjs';
import { startNode } from './node.mjs';
import { startProxy } from './proxy.mjs';

/** `clocks`: whether clocks can be made to jump; their files are made in `folder`. */
export async function startTopology(kind, options) {
  return kind === 'cluster' ? clusterTopology(await startCluster()) : singleTopology(options);
}

async function singleTopology({ clocks, folder }) {
  const clock = clocks ? makeClock(folder, 'server') : undefined;
  const node = Object.assign(await startNode({ clock }), { clock });
  await node.makeBallast();
  const proxy = await startProxy(node.port);
  return {
    node,
    nodes: [node],
    proxy,
    nodeAt: () => node,
    /** A single server that comes back has its data: it is what it was. */
    isMaster: async () => true,
    ready: () => node.ready(),
    /** What `action` says for each server that has data of its own. */
    onMasters: (action) => node.with(action).then((answer) => [answer]),
    redis: (proxied) => ({ url: `redis://127.0.0.1:${proxied ? proxy.port : node.port}` }),
    async stop() {
      await proxy.stop();
      await node.stop();
    },
  };
}

/** No proxy: a bus learns the addresses of the nodes from themselves. */
function clusterTopology(cluster) {
  return {
    cluster,
    nodes: cluster.nodes,
    nodeAt: (index) => cluster.nodes[index],
    isMaster: cluster.isMaster,
    ready: cluster.ready,
    async onMasters(action) {
      const answers = [];
      for (const node of await cluster.masters()) answers.push(await node.with(action));
      return answers;
    },
    redis: () => ({ cluster: { nodes: cluster.nodes.map(({ port }) => ({ host: '127.0.0.1', port })) } }),
    stop: cluster.stop,
  };
}

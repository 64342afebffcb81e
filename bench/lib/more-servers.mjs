/** Servers that only some measurements need: started for the first one that asks, kept until the end. */
import { startServer, startServers } from '../../scripts/lib/servers.mjs';
import { openClient } from './sides.mjs';

/**
 * `cluster()` resolves with three masters without replicas, `backlog(fill)` with a single server that `fill(address)` has filled once:
 * { addresses, clients }. `stop()` ends all.
 */
export function moreServers() {
  const started = new Map();
  const once = (name, start) => {
    if (!started.has(name)) started.set(name, start());
    return started.get(name);
  };
  const opened = async (addresses, stop) => ({
    addresses,
    clients: await Promise.all(addresses.map((address) => openClient(address))),
    stop,
  });
  return {
    cluster: () =>
      once('cluster', async () => {
        const { env, stop } = await startServers({ single: false, cluster: true, replicas: 0 });
        return opened(
          env.OSSA_TEST_CLUSTER.split(',').map((node) => `redis://${node}`),
          stop,
        );
      }),
    backlog: (fill) =>
      once('backlog', async () => {
        const server = await startServer(process.env.OSSA_REDIS_SERVER);
        const address = `redis://127.0.0.1:${server.port}`;
        await fill(address);
        return opened([address], () => server.stop());
      }),
    async stop() {
      for (const each of started.values()) {
        const { clients, stop } = await each;
        for (const client of clients) client.disconnect();
        await stop();
      }
    },
  };
}

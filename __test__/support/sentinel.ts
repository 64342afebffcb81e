/** A master with replicas and three sentinels of a test's own. */
import { TestServer } from './server';
import { until } from './wait';

/** What the sentinels call the master. */
export const masterName = 'main';

const sentinelCount = 3;
const quorum = 2;

/** Servers are named by their number: the first master first. Numbers stay when roles change. */
export class TestSentinels {
  private constructor(
    readonly servers: TestServer[],
    readonly sentinels: TestServer[],
  ) {}

  /** Starts them; resolves when the sentinels know the replicas and each other. */
  static async start({
    replicas = 1,
    downAfterMs = 1000,
    password,
  }: {
    replicas?: number;
    downAfterMs?: number;
    password?: string;
  } = {}): Promise<TestSentinels> {
    const all = new TestSentinels([], []);
    try {
      const master = await TestServer.start(['--repl-diskless-sync-delay', '0']);
      all.servers.push(master);
      for (let n = 0; n < replicas; n++)
        all.servers.push(await TestServer.start(['--repl-diskless-sync-delay', '0', '--replicaof', '127.0.0.1', String(master.port)]));
      await until(() => all.#hasReplicas(replicas));
      const lines = [
        `sentinel monitor ${masterName} 127.0.0.1 ${master.port} ${quorum}`,
        `sentinel down-after-milliseconds ${masterName} ${downAfterMs}`,
        `sentinel failover-timeout ${masterName} ${downAfterMs * 3}`,
        ...(password === undefined ? [] : [`sentinel sentinel-pass ${password}`]),
      ];
      const setup = { files: { 'sentinel.conf': `${lines.join('\n')}\n` }, configFile: 'sentinel.conf' };
      const start = () => TestServer.start(['--sentinel'], password === undefined ? setup : { ...setup, password });
      for (let n = 0; n < sentinelCount; n++) all.sentinels.push(await start());
      for (const sentinel of all.sentinels) await until(() => knowsAll(sentinel, replicas), { timeoutMs: 30_000 });
    } catch (error) {
      await all.stop();
      throw error;
    }
    return all;
  }

  async #hasReplicas(count: number): Promise<boolean> {
    const replication = await this.servers[0].call('INFO', 'replication');
    return String(replication).split('state=online').length - 1 === count;
  }

  /** Host and port of each sentinel, as the configuration of a bus has them. */
  get addresses(): Array<{ host: string; port: number }> {
    return this.sentinels.map(({ port }) => ({ host: '127.0.0.1', port }));
  }

  /** Kills the first master; resolves with the other's number and the time, once that says that it is the master. */
  async replaced(): Promise<{ by: number; at: number }> {
    await this.servers[0].kill();
    return until(
      async () => {
        for (const [by, server] of this.servers.entries()) {
          if (by > 0 && (await server.call('ROLE'))[0] === 'master') return { by, at: Date.now() };
        }
        return undefined;
      },
      { timeoutMs: 30_000 },
    ) as Promise<{ by: number; at: number }>;
  }

  /** Ends all for good. */
  async stop(): Promise<void> {
    await Promise.all([...this.sentinels, ...this.servers].map((server) => server.stop()));
  }
}

async function knowsAll(sentinel: TestServer, replicas: number): Promise<boolean> {
  const fields: string[] = await sentinel.call('SENTINEL', 'MASTER', masterName);
  const value = (name: string) => Number(fields[fields.indexOf(name) + 1]);
  return value('num-slaves') === replicas && value('num-other-sentinels') === sentinelCount - 1;
}

/** A Redis Cluster of a test's own, whose nodes it may kill and pause. */
import { freePort, TestServer } from './server';
import { until } from './wait';

/** How it is made. */
export interface ClusterShape {
  masters?: number;
  /** Of each master. */
  replicas?: number;
  /** After so long without an answer a node is taken for dead. */
  nodeTimeoutMs?: number;
}

const SLOTS = 16_384;

/** Nodes are named by their number: the masters first, then the replicas in the order of their masters. Numbers stay when roles change. */
export class TestCluster {
  private constructor(
    readonly nodes: TestServer[],
    private readonly masters: number,
    private readonly replicas: number,
  ) {}

  /** Starts it; resolves when every node knows all slots and the replicas have their data. */
  static async start({ masters = 3, replicas = 1, nodeTimeoutMs = 1500 }: ClusterShape = {}): Promise<TestCluster> {
    const args = async () => [
      ...['--cluster-enabled', 'yes', '--cluster-port', String(await freePort()), '--cluster-node-timeout', String(nodeTimeoutMs)],
      // Replicas are shown once something was replicated: a ping will do.
      ...['--cluster-replica-validity-factor', '0', '--repl-diskless-sync-delay', '0', '--repl-ping-replica-period', '1'],
    ];
    const started = await Promise.allSettled(Array.from({ length: masters * (1 + replicas) }, () => TestServer.start(args)));
    const nodes = started.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const cluster = new TestCluster(nodes, masters, replicas);
    try {
      for (const result of started) if (result.status === 'rejected') throw result.reason;
      await cluster.#join();
      await until(() => cluster.#isWhole(), { timeoutMs: 30_000 });
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async #join(): Promise<void> {
    const ids: string[] = [];
    for (const node of this.nodes.keys()) ids.push(await this.call(node, 'CLUSTER', 'MYID'));
    const bound = (n: number) => Math.floor((SLOTS * n) / this.masters);
    for (let n = 0; n < this.masters; n++) {
      await this.call(n, 'CLUSTER', 'ADDSLOTSRANGE', bound(n), bound(n + 1) - 1);
      // Each has an epoch of its own from the start; else they fight over it first.
      await this.call(n, 'CLUSTER', 'SET-CONFIG-EPOCH', n + 1);
    }
    for (const node of this.nodes.slice(1)) await this.call(0, 'CLUSTER', 'MEET', '127.0.0.1', node.port, node.portOf('--cluster-port'));
    for (let n = this.masters; n < this.nodes.length; n++) {
      const master = ids[Math.floor((n - this.masters) / this.replicas)];
      // Refused until it has shaken hands with its master.
      await until(() =>
        this.call(n, 'CLUSTER', 'REPLICATE', master).then(
          () => true,
          () => false,
        ),
      );
    }
  }

  /** Host and port of each, as the configuration of a bus has them. */
  get addresses(): Array<{ host: string; port: number }> {
    return this.nodes.map(({ port }) => ({ host: '127.0.0.1', port }));
  }

  /** One command to one node; a redirection is an error. */
  call(node: number, command: string, ...args: Array<string | number>): Promise<any> {
    return this.nodes[node].call(command, ...args);
  }

  /** Which node has the slot of a key, by the word of one that runs. */
  async owner(key: string): Promise<number> {
    const asked = this.nodes.findIndex((node) => node.isRunning);
    const slot = await this.call(asked, 'CLUSTER', 'KEYSLOT', key);
    return (await this.#slots(asked)).find(({ first, last }) => first <= slot && slot <= last)?.nodes[0] ?? -1;
  }

  async #slots(node: number): Promise<Array<{ first: number; last: number; nodes: number[] }>> {
    const ranges: Array<[number, number, ...Array<[string, number]>]> = await this.call(node, 'CLUSTER', 'SLOTS');
    const numberOf = ([, port]: [string, number]) => this.nodes.findIndex((one) => one.port === port);
    return ranges.map(([first, last, ...nodes]) => ({ first, last, nodes: nodes.map(numberOf) }));
  }

  /** Kills a node and resolves with its replacement's number and the time, once that says that it is the master. */
  async replaced(node: number): Promise<{ by: number; at: number }> {
    const before = await this.#slots(node);
    const lost = before.find(({ nodes }) => nodes[0] === node);
    if (lost === undefined) throw new Error(`node ${node} has no slots`);
    await this.nodes[node].kill();
    return until(
      async () => {
        for (const by of lost.nodes.slice(1)) {
          const [role] = await this.call(by, 'ROLE');
          if (role === 'master') return { by, at: Date.now() };
        }
        return undefined;
      },
      { timeoutMs: 30_000 },
    ) as Promise<{ by: number; at: number }>;
  }

  /** Whether all nodes that run serve all slots, and replicas follow their masters. */
  async #isWhole(): Promise<boolean> {
    for (const [n, node] of this.nodes.entries()) {
      if (!node.isRunning) continue;
      const [state, replication] = [await this.call(n, 'CLUSTER', 'INFO'), await this.call(n, 'INFO', 'replication')];
      const seesReplicas = (await this.#slots(n)).every(({ nodes }) => nodes.length === 1 + this.replicas);
      if (!state.includes('cluster_state:ok') || replication.includes('master_link_status:down') || !seesReplicas) return false;
    }
    return true;
  }

  /** Ends it for good. */
  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.stop()));
  }
}

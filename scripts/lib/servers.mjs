/** Private redis-servers on free loopback ports, gone when the run is over. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { redisServer, redisServer8 } from './redis-binaries.mjs';
import { output, works } from './run.mjs';

/** The cluster bus of a node listens on its port plus this. */
const clusterBusOffset = 10_000;
const clusterMasters = 3;
/** Nobody takes these nodes down: one that the machine leaves no time for need not be replaced. */
const clusterNodeTimeoutMs = 15_000;
const startTimeoutMs = 15_000;
const stopTimeoutMs = 3_000;

/** Every server that this process started and that still runs. */
const running = new Set();

// Whatever ends this process ends the servers. A signal is turned into an exit, so that there is one way out.
process.on('exit', () => {
  for (const server of running) server.killNow();
});
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
])
  process.on(signal, () => process.exit(code));

/**
 * Starts what is asked for and resolves with `env`, which names it to child processes, and `stop`:
 * OSSA_REDIS_SERVER and OSSA_REDIS_SERVER_8 are the binaries, for tests that start servers themselves;
 * OSSA_TEST_REDIS and OSSA_TEST_REDIS_8 the address of a single server, OSSA_TEST_CLUSTER those of three masters and of so many
 * `replicas` of each.
 */
export async function startServers({ single = true, eight = false, cluster = false, replicas = 1 } = {}) {
  const env = {};
  const stop = () => Promise.all([...running].map((server) => server.stop()));
  try {
    env.OSSA_REDIS_SERVER = await redisServer();
    const newer = eight ? await redisServer8() : null;
    if (newer) env.OSSA_REDIS_SERVER_8 = newer;
    if (single) env.OSSA_TEST_REDIS = url(await startServer(env.OSSA_REDIS_SERVER));
    if (single && newer) env.OSSA_TEST_REDIS_8 = url(await startServer(newer));
    if (cluster) env.OSSA_TEST_CLUSTER = (await startCluster(env.OSSA_REDIS_SERVER, replicas)).map(address).join(',');
    return { env, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * One server; resolves when it answers: PING with PONG, or, with `loading`, anything at all. Its data goes with it, unless
 * they are kept in a `dir` of the caller's, from which another server can be started.
 */
export async function startServer(binary, { args = [], port, dir, env, loading = false } = {}) {
  const answers = (server) => (loading ? ask(server.port, 'PING').then((reply) => reply !== '') : ping(server.port));
  // Between finding a port and taking it somebody else may: then another one is tried.
  for (let attempt = 1; ; attempt++) {
    const server = await spawnServer(binary, port ?? (await freePort()), args, { dir, env });
    if (await waitFor(() => server.exited || answers(server), startTimeoutMs)) {
      if (!server.exited) return server;
    }
    await server.stop();
    if (attempt === 3) throw new Error(`${binary} did not start:\n${server.log()}`);
  }
}

/** Three masters with their replicas; resolves when every node knows all slots and has its data. */
async function startCluster(binary, replicas) {
  const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', String(clusterNodeTimeoutMs), '--repl-diskless-sync-delay', '0'];
  const nodes = [];
  while (nodes.length < clusterMasters * (1 + replicas)) nodes.push(await startServer(binary, { args, port: await freeClusterPort() }));
  await output('redis-cli', ['--cluster', 'create', ...nodes.map(address), '--cluster-replicas', String(replicas), '--cluster-yes']);
  const ready = async (node) =>
    /cluster_state:ok/.test(await ask(node.port, 'CLUSTER INFO')) &&
    !/master_link_status:down/.test(await ask(node.port, 'INFO replication'));
  for (const node of nodes)
    if (!(await waitFor(() => ready(node), startTimeoutMs)))
      throw new Error(`the cluster node on port ${node.port} did not become ready:\n${node.log()}`);
  return nodes;
}

async function spawnServer(binary, port, args, { dir: kept, env } = {}) {
  const dir = kept ?? mkdtempSync(join(tmpdir(), 'ossa-redis-'));
  const removeDir = () => kept ?? rmSync(dir, { recursive: true, force: true });
  const settings = [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', dir],
    ...['--save', '', '--appendonly', 'no', '--loglevel', 'notice'],
  ];
  const guard = await deathGuard();
  const [command, ...rest] = [...guard, binary, ...settings, ...args];
  // A process group of its own: Ctrl-C ends the tests first, then this process ends the server.
  const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'], detached: true, env: { ...process.env, ...env } });
  const lines = [];
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data) => {
      lines.push(String(data));
      if (lines.length > 50) lines.shift();
    });
  const server = {
    port,
    exited: false,
    log: () => lines.join(''),
    killNow() {
      child.kill('SIGKILL');
      removeDir();
    },
    signal: (signal) => void child.kill(signal),
    /** As a crash would. */
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
    async stop() {
      child.kill('SIGTERM');
      if (!(await waitFor(() => server.exited, stopTimeoutMs))) child.kill('SIGKILL');
      await ended;
    },
  };
  const ended = new Promise((resolve) => {
    const end = (error) => {
      if (error instanceof Error) lines.push(error.message);
      server.exited = true;
      running.delete(server);
      removeDir();
      resolve();
    };
    child.once('error', end).once('exit', end);
  });
  running.add(server);
  return server;
}

/** What to put before a command: where the system has it, the program ends with this process, even when that is killed. */
let guardKnown;
export function deathGuard() {
  const args = ['--pdeathsig', 'KILL'];
  guardKnown ??= works('setpriv', [...args, 'true']).then((ok) => (ok ? ['setpriv', ...args] : []));
  return guardKnown;
}

const address = (server) => `127.0.0.1:${server.port}`;
const url = (server) => `redis://${address(server)}`;

const ping = (port) => ask(port, 'PING').then((reply) => reply.startsWith('+PONG'));

/** One inline command on a connection of its own; resolves with the raw reply, '' when there is none. */
export function ask(port, command) {
  return new Promise((resolve) => {
    let reply = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(`${command}\r\nQUIT\r\n`));
    socket.setTimeout(1_000, () => socket.destroy());
    socket.on('data', (data) => {
      reply += data;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(reply));
  });
}

/** Asks until the answer is true; false when that took too long. */
export async function waitFor(condition, timeoutMs) {
  for (const end = Date.now() + timeoutMs; Date.now() < end; ) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

/** A port that nobody listens on; 0 lets the system choose. Resolves with 0 when it is taken. */
const tryPort = (port) =>
  new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(0));
    probe.listen(port, '127.0.0.1', () => {
      const found = probe.address().port;
      probe.close(() => resolve(found));
    });
  });

export const freePort = () => tryPort(0);

/** The port and its cluster bus below the range from which the system hands out ports of outgoing connections. */
export async function freeClusterPort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 12_000);
    if ((await tryPort(port)) && (await tryPort(port + clusterBusOffset))) return port;
  }
}

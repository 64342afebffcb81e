/** A redis-server that keeps its data on disk, and what can be done to it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { redisServer } from '../lib/redis-binaries.mjs';
import { ask, startServer, waitFor } from '../lib/servers.mjs';
import { pause } from './log.mjs';

const settings = ['--appendonly', 'yes', '--appendfsync', 'always'];
const readyTimeoutMs = 20_000;
/**
 * µs for each command of the append-only file. While it loads, a server looks at its connections every 1024 commands: more
 * would make it silent rather than loading.
 */
const loadDelayUs = 200;
/** Commands that make the file long enough, 4 s at that delay. */
const ballast = 20_000;

/** Where servers keep their data, until they are stopped. */
const folders = new Set();
process.on('exit', () => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true });
});

/** A server with its data in a folder of its own; `clock` is that of makeClock(), if it is to have one. */
export async function startNode({ clock, port, args = [] } = {}) {
  const binary = await redisServer();
  const dir = mkdtempSync(join(tmpdir(), 'ossa-faults-'));
  folders.add(dir);
  const start = (more = {}) =>
    startServer(binary, {
      dir,
      port: more.port,
      env: clock?.env,
      loading: more.loading,
      args: [...settings, ...args, ...(more.args ?? [])],
    });
  let server = await start({ port });
  /** The last one that was killed on purpose. */
  let killed;

  const node = {
    port: server.port,
    /** Runs `action` with a client of its own; commands that get no answer reject. */
    async with(action) {
      const client = new Redis({
        port: node.port,
        host: '127.0.0.1',
        lazyConnect: true,
        retryStrategy: null,
        maxRetriesPerRequest: 0,
        // It would wait for a server that is loading.
        enableReadyCheck: false,
        commandTimeout: 20_000,
      });
      client.on('error', () => {});
      try {
        await client.connect();
        return await action(client);
      } finally {
        client.disconnect();
      }
    },
    call: (...command) => node.with((client) => client.call(...command)),
    log: () => server.log(),
    kill() {
      killed = server;
      return server.kill();
    },
    /** What it said, if it ended by itself. */
    crash: () => (server.exited && killed !== server ? server.log() : undefined),
    signal: (signal) => server.signal(signal),
    async start(more) {
      server = await start({ ...more, port: node.port });
    },
    /** Makes it have much to load; to be done before {@link startLoading}. */
    makeBallast: () =>
      node.with((client) => {
        const commands = client.pipeline();
        for (let n = 0; n < ballast; n++) commands.incr('ballast');
        return commands.exec();
      }),
    /** Starts it so that it is busy with reading its file, and answers LOADING, for about so long. */
    async startLoading(forMs) {
      await node.start({
        loading: true,
        args: ['--key-load-delay', String(loadDelayUs)],
      });
      await pause(forMs);
      await node.call('CONFIG', 'SET', 'key-load-delay', '0');
      await node.ready();
    },
    async ready() {
      const good = async () => (await ask(node.port, 'PING')).startsWith('+PONG');
      if (!(await waitFor(good, readyTimeoutMs)))
        throw new Error(`the redis-server on port ${node.port} does not answer:\n${server.log()}`);
    },
    async stop() {
      server.signal('SIGCONT');
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
      folders.delete(dir);
    },
  };
  return node;
}

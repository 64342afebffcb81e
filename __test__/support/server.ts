/** Servers of a test's own: redis-servers that it may stop and start, and a pretended one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Redis from 'ioredis';
import { until } from './wait';

const BINARY = process.env['OSSA_REDIS_SERVER'] ?? 'redis-server';

/** The shell ends the server when its input ends: at stop(), or with the test process, however that ends. */
const GUARD = '"$@" >/dev/null 2>&1 & server=$!; cat >/dev/null; kill -KILL $server 2>/dev/null; wait $server';

/** A redis-server of a test's own. */
export class TestServer {
  readonly #folder = mkdtempSync(join(tmpdir(), 'ossa-test-redis-'));
  #guard: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly args: string[],
    private readonly password: string | undefined,
  ) {}

  /** Starts one; resolves when it answers. */
  static async start(args: string[] = [], { password }: { password?: string } = {}): Promise<TestServer> {
    const server = new TestServer(await freePort(), password === undefined ? args : [...args, '--requirepass', password], password);
    await server.start();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again, on the same port. */
  async start(): Promise<void> {
    const settings = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.#folder, '--save', '', '--appendonly', 'no'];
    this.#guard = spawn('sh', ['-c', GUARD, 'sh', BINARY, ...settings, ...this.args], { stdio: ['pipe', 'ignore', 'ignore'] });
    const client = this.client();
    await until(() =>
      client.ping().then(
        () => true,
        () => false,
      ),
    );
    client.disconnect();
  }

  /** Kills it: what was not on disk is gone. */
  async kill(): Promise<void> {
    const guard = this.#guard;
    if (guard === undefined) return;
    this.#guard = undefined;
    const ended = new Promise((resolve) => guard.once('exit', resolve));
    guard.stdin?.end();
    await ended;
  }

  /** Ends it for good. */
  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A connection beside the package's. */
  client(): Redis {
    return connectTo(this.url, this.password);
  }
}

/** A connection beside the package's; it says nothing of its own. */
export function connectTo(url: string, password?: string): Redis {
  const client = new Redis(url, { ...(password === undefined ? {} : { password }), maxRetriesPerRequest: 1, retryStrategy: () => 50 });
  client.on('error', () => undefined);
  return client;
}

/** A port on which nobody listens. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** A server that only pretends: `answer` gets each chunk and says what to send back; undefined: nothing. */
export async function pretended(answer: (chunk: string) => string | undefined): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (data) => {
      const reply = answer(data.toString('latin1'));
      if (reply !== undefined) socket.write(reply);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Commands in what a client sent: arrays of bulk strings, none of which is split over chunks in these tests. */
export function commands(chunk: string): string[][] {
  const lines = chunk.split('\r\n');
  const found: string[][] = [];
  for (let at = 0; lines[at]?.startsWith('*'); ) {
    const count = Number(lines[at].slice(1));
    found.push(Array.from({ length: count }, (_, n) => lines[at + 2 + 2 * n] ?? ''));
    at += 1 + 2 * count;
  }
  return found;
}

/** Servers of a test's own: redis-servers that it may stop and start, and a pretended one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import Redis from 'ioredis';
import { until } from './wait';

const BINARY = process.env['OSSA_REDIS_SERVER'] ?? 'redis-server';

/**
 * The shell ends the server when its input ends: at stop(), or with the test process, however that ends. It ends with the
 * server.
 */
const GUARD = 'exec 3<&0; "$@" >/dev/null 2>&1 3<&- & server=$!; (cat <&3 >/dev/null; kill -KILL $server 2>/dev/null) & wait $server';

/** Below the range from which systems give ports to outgoing connections: a server that is started again finds its port free. */
const PORTS = { first: 20_000, count: 12_000 };

/** A redis-server of a test's own. */
export class TestServer {
  readonly #folder = mkdtempSync(join(tmpdir(), 'ossa-test-redis-'));
  #guard: ChildProcess | undefined;

  private constructor(
    private at: number,
    private readonly args: string[],
    private readonly password: string | undefined,
  ) {}

  /** Starts one; resolves when it answers. */
  static async start(args: string[] = [], { password }: { password?: string } = {}): Promise<TestServer> {
    const server = new TestServer(await freePort(), password === undefined ? args : [...args, '--requirepass', password], password);
    // Between finding a port and taking it somebody else may: then another one is tried.
    for (let attempt = 1; !(await server.#run()); attempt++) {
      if (attempt === 5) throw new Error(`${BINARY} did not start on any of ${attempt} free ports`);
      server.at = await freePort();
    }
    return server;
  }

  get port(): number {
    return this.at;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again, on the same port. */
  async start(): Promise<void> {
    if (!(await this.#run())) throw new Error(`${BINARY} did not start again on port ${this.port}`);
  }

  /** Whether it answers; false: it ended instead. */
  async #run(): Promise<boolean> {
    const settings = ['--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.#folder, '--save', '', '--appendonly', 'no'];
    const guard = spawn('sh', ['-c', GUARD, 'sh', BINARY, ...settings, ...this.args], { stdio: ['pipe', 'ignore', 'ignore'] });
    this.#guard = guard;
    let ended = false;
    guard.once('exit', () => {
      ended = true;
      guard.stdin?.end();
    });
    const client = this.client();
    // Another server that has the port is not this one: its folder is another.
    const answers = () =>
      client.config('GET', 'dir').then(
        (reply) => String(reply).includes(basename(this.#folder)),
        () => false,
      );
    try {
      await until(async () => ended || (await answers()));
    } finally {
      client.disconnect();
    }
    if (ended) this.#guard = undefined;
    return !ended;
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

// Test processes that run side by side begin at different places.
let next = process.pid * 97;

/** A port on which nobody listens. */
export async function freePort(): Promise<number> {
  for (let tried = 0; tried < PORTS.count; tried++) {
    const port = PORTS.first + (next++ % PORTS.count);
    if (await isFree(port)) return port;
  }
  throw new Error('no port is free');
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
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

/** Servers of a test's own: redis-servers that it may stop and start, and a pretended one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import Redis, { type RedisOptions } from 'ioredis';
import { until } from './wait';

export const BINARY = process.env['OSSA_REDIS_SERVER'] ?? 'redis-server';

/**
 * The shell ends the server when its input ends: at stop(), or with the test process, however that ends. It ends with the
 * server.
 */
const GUARD = 'exec 3<&0; "$@" >/dev/null 2>&1 3<&- & server=$!; (cat <&3 >/dev/null; kill -KILL $server 2>/dev/null) & wait $server';

/** Below the range from which systems give ports to outgoing connections: a server that is started again finds its port free. */
const PORTS = { first: 20_000, count: 12_000 };

/** How a server is started, beside its port and folder. */
export interface Setup {
  password?: string;
  /** Files in its folder, which is its working directory too: arguments may name them as they are. */
  files?: Record<string, string>;
  /** The one of the files that is its configuration; it may rewrite it. */
  configFile?: string;
}

/** Arguments, or what chooses them for each try: ports among them may have been taken meanwhile. */
type Arguments = string[] | (() => Promise<string[]>);

/** A redis-server of a test's own. */
export class TestServer {
  readonly #folder = mkdtempSync(join(tmpdir(), 'ossa-test-redis-'));
  #guard: ChildProcess | undefined;
  #processId: number | undefined;

  private constructor(
    private at: number,
    private args: string[],
    private readonly setup: Setup,
  ) {
    for (const [name, text] of Object.entries(setup.files ?? {})) writeFileSync(this.path(name), text);
  }

  /** Starts one; resolves when it answers. */
  static async start(args: Arguments = [], setup: Setup = {}): Promise<TestServer> {
    const password = setup.password === undefined ? [] : ['--requirepass', setup.password];
    const choose = async () => [...(typeof args === 'function' ? await args() : args), ...password];
    const server = new TestServer(await freePort(), await choose(), setup);
    // Between finding a port and taking it somebody else may: then another one is tried.
    for (let attempt = 1; !(await server.#run()); attempt++) {
      if (attempt === 5) throw new Error(`${BINARY} did not start on any of ${attempt} free ports`);
      server.at = await freePort();
      server.args = await choose();
    }
    return server;
  }

  get port(): number {
    return this.at;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** A file in its folder. */
  path(name: string): string {
    return join(this.#folder, name);
  }

  /** The port that an argument names. */
  portOf(argument: string): number {
    return Number(this.args[this.args.indexOf(argument) + 1]);
  }

  get isRunning(): boolean {
    return this.#guard !== undefined;
  }

  /** Stops it where it is: connections stay open, nothing is answered. */
  pause(): void {
    process.kill(this.#running(), 'SIGSTOP');
  }

  /** Lets it go on. */
  resume(): void {
    process.kill(this.#running(), 'SIGCONT');
  }

  #running(): number {
    if (this.#processId === undefined || !this.isRunning) throw new Error('the server does not run');
    return this.#processId;
  }

  /** Starts it again, on the same port. */
  async start(): Promise<void> {
    if (!(await this.#run())) throw new Error(`${BINARY} did not start again on port ${this.port}`);
  }

  /** Whether it answers; false: it ended instead. */
  async #run(): Promise<boolean> {
    const { configFile } = this.setup;
    const settings = configFile === undefined ? [] : [this.path(configFile)];
    settings.push('--port', String(this.port), '--bind', '127.0.0.1', '--dir', this.#folder, '--save', '', '--appendonly', 'no');
    const guard = spawn('sh', ['-c', GUARD, 'sh', BINARY, ...settings, ...this.args], { stdio: ['pipe', 'ignore', 'ignore'] });
    this.#guard = guard;
    let ended = false;
    guard.once('exit', () => {
      ended = true;
      guard.stdin?.end();
    });
    const client = this.client();
    // Another server that has the port is not this one: its folder is another.
    // A sentinel does not tell its folder, but its file.
    const told = () => (configFile === undefined ? client.config('GET', 'dir') : client.info('server'));
    const answers = () =>
      told().then(
        (reply) => String(reply).includes(basename(this.#folder)),
        () => false,
      );
    try {
      await until(async () => ended || (await answers()));
      if (!ended) this.#processId = Number(/process_id:(\d+)/.exec(await client.info('server'))?.[1]);
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

  /** One command on a connection of its own, whatever state the server is in. */
  async call(command: string, ...args: Array<string | number>): Promise<any> {
    // Asked whether it is ready, a replica without its master would be waited for.
    const client = connectTo(this.url, this.setup.password, { enableReadyCheck: false });
    try {
      return await client.call(command, ...args);
    } finally {
      client.disconnect();
    }
  }

  /** A connection beside the package's. */
  client(): Redis {
    return connectTo(this.url, this.setup.password);
  }
}

/** A connection beside the package's; it says nothing of its own. */
export function connectTo(url: string, password?: string, options: RedisOptions = {}): Redis {
  const login = password === undefined ? {} : { password };
  const client = new Redis(url, { ...login, maxRetriesPerRequest: 1, retryStrategy: () => 50, ...options });
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

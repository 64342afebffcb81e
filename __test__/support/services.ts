/** Buses of one test that work with a service registry, and services that answer them over HTTP; closed when the test is over. */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  createOSSAEventBus,
  type DeepPartial,
  OSSAEventBus,
  type OSSAEventBusConfig,
  type ServiceCapability,
  type ServiceRegistry,
  type ServiceRegistryConfig,
} from './package';
import { Registries } from './registries';
import { TestServer } from './server';
import { until } from './wait';
import { type StoreKind, World } from './world';

/** A request that came in. */
export interface Asked {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  at: number;
}

/** What is answered: a status with what belongs to it; or the connection ends, or nothing happens at all. */
export type Reply = number | { status: number; headers?: Record<string, string>; body?: unknown } | 'close' | 'hang';

type Answer = (asked: Asked, n: number) => Reply | Promise<Reply>;

/** A service over HTTP. Well, without contracts and taking every event, unless told otherwise. */
export class Site {
  /** All that was asked, oldest first. */
  readonly asked: Asked[] = [];
  /** Most requests with events at once. */
  atOnce = 0;
  /** What it says to an event, by the number of its request. */
  events: Answer = () => 204;
  contracts: Answer = () => 404;
  health: Answer = () => 200;
  #running = 0;
  readonly #server = createServer((request, response) => void this.#take(request, response));

  /** Listens. */
  static async open(): Promise<Site> {
    const site = new Site();
    await new Promise<void>((resolve) => site.#server.listen(0, '127.0.0.1', resolve));
    return site;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The events that came in. */
  get posts(): Asked[] {
    return this.asked.filter(({ method }) => method === 'POST');
  }

  /** Their data. */
  get data(): any[] {
    return this.posts.map(({ body }) => JSON.parse(body).data);
  }

  /** Waits until so many events came in, and fails if there are more. */
  async got(count: number, timeoutMs = 15_000): Promise<any[]> {
    await until(() => this.posts.length >= count, { timeoutMs, show: () => this.data });
    expect(this.posts.length).toBe(count);
    return this.data;
  }

  close(): Promise<unknown> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const { method = '', url = '', headers } = request;
    const asked: Asked = { method, path: url, headers, body: Buffer.concat(chunks).toString(), at: Date.now() };
    this.asked.push(asked);
    if (method === 'POST') this.atOnce = Math.max(this.atOnce, ++this.#running);
    const answer = method === 'POST' ? this.events : url.endsWith('/contracts') ? this.contracts : this.health;
    const reply = await answer(asked, this.asked.filter((other) => other.method === method).length);
    if (method === 'POST') this.#running--;
    if (reply === 'hang') return;
    if (reply === 'close') {
      request.socket.destroy();
      return;
    }
    const { status, headers: more, body } = typeof reply === 'number' ? { status: reply, headers: {}, body: undefined } : reply;
    response.writeHead(status, { 'content-type': 'application/json', ...more });
    response.end(body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body));
  }
}

type Config = DeepPartial<OSSAEventBusConfig>;

/** One test's buses, registries and services. */
export class Services {
  readonly world: World;
  readonly #registries: Registries;
  readonly #buses = new Set<OSSAEventBus>();
  readonly #sites = new Set<Site>();
  readonly #servers = new Set<TestServer>();

  constructor(kind: StoreKind) {
    this.world = new World(kind);
    this.#registries = new Registries(kind);
  }

  /** A registry, like another process has it. */
  registry(over: DeepPartial<ServiceRegistryConfig> = {}): ServiceRegistry {
    return this.#registries.make(over);
  }

  /** A bus that works with `registry`, a new one unless given. */
  async bus(over: Config = {}, registry: ServiceRegistry | null = this.registry()): Promise<OSSAEventBus> {
    const bus = await createOSSAEventBus(registry, this.config(over));
    this.#buses.add(bus);
    return bus;
  }

  /** The same, not initialised. */
  make(over: Config = {}, registry: ServiceRegistry | null = this.registry()): OSSAEventBus {
    const bus = new OSSAEventBus(registry, this.config(over));
    this.#buses.add(bus);
    return bus;
  }

  /** Over the store of this test. */
  config(over: Config = {}): Config {
    return { ...over, eventBus: this.world.config(over.eventBus) };
  }

  /** Lines of the log that match. */
  logged(pattern: RegExp): string[] {
    return this.world.logs.filter((line) => pattern.test(line));
  }

  /** A service to be registered. */
  async site(): Promise<Site> {
    const site = await Site.open();
    this.#sites.add(site);
    return site;
  }

  /** A redis-server of the test's own. */
  async server(password?: string): Promise<TestServer> {
    const server = await TestServer.start([], password === undefined ? {} : { password });
    this.#servers.add(server);
    return server;
  }

  /** Ends all. */
  async end(): Promise<void> {
    await Promise.all([...this.#buses].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    await Promise.all([...this.#sites].map((site) => site.close()));
    await this.#registries.end();
    await Promise.all([...this.#servers].map((server) => server.stop()));
  }
}

/** Services for each test of the surrounding describe block. */
export function useServices(kind: StoreKind): Services {
  let current: Services | undefined;
  beforeEach(() => {
    current = new Services(kind);
  });
  afterEach(() => current?.end());
  return new Proxy({} as Services, {
    get(_, name) {
      if (current === undefined) throw new Error('the services exist within tests only');
      const value = Reflect.get(current, name, current);
      return typeof value === 'function' ? value.bind(current) : value;
    },
  });
}

/** A capability with these event types and patterns. */
export const handles = (...events: string[]): ServiceCapability => ({ name: 'work', version: '1.0.0', inputs: { events } });

/** A service as it is registered. */
export function service(name: string, site: Site | string, ...capabilities: ServiceCapability[]) {
  return { name, endpoint: typeof site === 'string' ? site : site.endpoint, version: '1.0.0', capabilities };
}

/** How the bus sends events to a service, as it tells; undefined: it does not. */
export async function routeOf(bus: OSSAEventBus, name: string) {
  return (await bus.getServiceRegistryIntegration()?.getStatus())?.routes.find((route) => route.service === name);
}

/** Waits until the bus sends events to a service. */
export const routed = (bus: OSSAEventBus, name: string) => until(() => routeOf(bus, name));

/** How a service is, as a registry has it. */
export const statusOf = async (registry: ServiceRegistry, name: string) => (await registry.health(name))?.status;

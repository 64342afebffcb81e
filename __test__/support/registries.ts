/** Registries of one test over one store, under a key prefix of their own, closed when the test is over. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type DeepPartial, ServiceRegistry, type ServiceRegistryConfig, type ServiceRegistryEvents } from './package';
import { clusterNodes, freshPrefix, redisUrl, type StoreKind } from './world';

type Config = DeepPartial<ServiceRegistryConfig>;
type Name = keyof ServiceRegistryEvents;

/** One test's view of a store. */
export class Registries {
  readonly prefix = freshPrefix();
  readonly #open = new Set<{ close(): unknown }>();

  constructor(readonly kind: StoreKind) {}

  /** A registry for this store; the parts in `over` win. That a server is lost is what tests do to it: no news for the console. */
  make(over: Config = {}): ServiceRegistry {
    const registry = new ServiceRegistry({
      logLevel: 'error',
      ...over,
      redis: { ...this.#address(), keyPrefix: this.prefix, ...over.redis },
    });
    this.#open.add(registry);
    return registry;
  }

  /** Where the store is. */
  #address(): Config['redis'] {
    if (this.kind === 'memory') return { url: `memory://${this.prefix.replaceAll(':', '-')}` };
    return this.kind === 'cluster' ? { cluster: { nodes: clusterNodes() } } : { url: redisUrl() };
  }

  /** A service that answers every request with what `answer` says. */
  async service(answer: () => { status: number; body?: unknown }): Promise<{ endpoint: string; asked: string[] }> {
    const asked: string[] = [];
    const server: Server = createServer((request, response) => {
      asked.push(String(request.url));
      const { status, body } = answer();
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body ?? {}));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.#open.add({
      close() {
        server.closeAllConnections();
        return new Promise((resolve) => server.close(resolve));
      },
    });
    return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
  }

  /** Closes all. */
  async end(): Promise<void> {
    await Promise.all([...this.#open].map((each) => each.close()));
    this.#open.clear();
  }
}

/** Registries for each test of the surrounding describe block. */
export function useRegistries(kind: StoreKind): () => Registries {
  let current: Registries | undefined;
  beforeEach(() => {
    current = new Registries(kind);
  });
  afterEach(() => current?.end());
  return () => {
    if (current === undefined) throw new Error('registries exist within tests only');
    return current;
  };
}

/** What a registry tells from now on, in order. */
export function heard(registry: ServiceRegistry, ...names: Name[]): Array<[Name, any]> {
  const events: Array<[Name, any]> = [];
  for (const name of names) registry.on(name as string, (payload) => void events.push([name, payload]));
  return events;
}

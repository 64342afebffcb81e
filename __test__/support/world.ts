/** Buses of one test over one store, under key prefixes of their own, closed when the test is over. */
import { randomBytes } from 'node:crypto';
import { type DeepPartial, type EventBusConfig, type OSSAError, type OSSAErrorCode, RedisEventBus, type RetryOptions } from './package';

/** The stores that the tests run on. */
export const stores = ['memory', 'redis'] as const;
/** The same with the Redis Cluster of this run, for tests of what a cluster might do otherwise. */
export const storesWithCluster = [...stores, 'cluster'] as const;
export type StoreKind = (typeof storesWithCluster)[number];

type Config = DeepPartial<EventBusConfig>;

/** Address of the redis-server that belongs to this run of the tests. */
export function redisUrl(): string {
  const url = process.env['OSSA_TEST_REDIS'];
  if (url === undefined) throw new Error('OSSA_TEST_REDIS is not set: run the tests by `npm test`, or as CONTRIBUTING.md says');
  return url;
}

/** The nodes of the cluster that belongs to this run of the tests; shared, so tests must leave them alone. */
export function clusterNodes(): Array<{ host: string; port: number }> {
  const nodes = process.env['OSSA_TEST_CLUSTER'];
  if (nodes === undefined) throw new Error('OSSA_TEST_CLUSTER is not set: run the tests by `npm test`, or as CONTRIBUTING.md says');
  return nodes
    .split(',')
    .map((node) => ({ host: node.slice(0, node.lastIndexOf(':')), port: Number(node.slice(node.lastIndexOf(':') + 1)) }));
}

/** One test's view of a store. */
export class World {
  /** Every key of this test begins with it. */
  readonly prefix = freshPrefix();
  /** What its buses logged. */
  readonly logs: string[] = [];
  readonly #open = new Set<RedisEventBus>();

  constructor(readonly kind: StoreKind) {}

  /** A configuration for this store; the parts in `over` win. */
  config(over: Config = {}): Config {
    const write = (level: string) => (message: string) => void this.logs.push(`${level} ${message}`);
    const logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
    return { logger, ...over, redis: { ...this.#address(over.redis), keyPrefix: this.prefix, ...over.redis } };
  }

  /** Where the store is, unless the test says so itself. */
  #address(given: Config['redis'] = {}): Config['redis'] {
    if (given.url !== undefined || given.host !== undefined || given.cluster !== undefined || given.sentinel !== undefined) return {};
    if (this.kind === 'memory') return { url: `memory://${this.prefix.replaceAll(':', '-')}` };
    return this.kind === 'cluster' ? { cluster: { nodes: clusterNodes() } } : { url: redisUrl() };
  }

  /** A bus that is not connected. */
  make(over?: Config): RedisEventBus {
    const bus = new RedisEventBus(this.config(over));
    this.#open.add(bus);
    return bus;
  }

  /** A connected bus. */
  async bus(over?: Config): Promise<RedisEventBus> {
    const bus = this.make(over);
    await bus.connect();
    return bus;
  }

  /** Disconnects all. */
  async end(): Promise<void> {
    await Promise.all([...this.#open].map((bus) => bus.disconnect({ drainTimeoutMs: 0 })));
    this.#open.clear();
  }
}

/** A world for each test of the surrounding describe block. */
export function useWorld(kind: StoreKind): World {
  let current: World | undefined;
  beforeEach(() => {
    current = new World(kind);
  });
  afterEach(() => current?.end());
  return new Proxy({} as World, {
    get(_, name) {
      if (current === undefined) throw new Error('the world exists within tests only');
      const value = Reflect.get(current, name, current);
      return typeof value === 'function' ? value.bind(current) : value;
    },
  });
}

/** A key prefix that nobody else has. */
export const freshPrefix = (): string => `test:${randomBytes(8).toString('hex')}`;

/** The error that `action` fails with; fails when it does not, or not with an OSSAError of `code`. */
export async function refusal(code: OSSAErrorCode, action: () => unknown): Promise<OSSAError> {
  let error: unknown;
  try {
    await action();
  } catch (thrown) {
    error = thrown;
  }
  if (error === undefined) throw new Error(`should be refused with ${code}, but was not`);
  expect(error).toMatchObject({ name: 'OSSAError', code });
  expect(error).toBeInstanceOf(Error);
  return error as OSSAError;
}

/** Retries that tests can wait for. */
export const quick = (maxAttempts: number, initialDelay = 10): RetryOptions => ({
  maxAttempts,
  initialDelay,
  maxDelay: initialDelay,
  backoffMultiplier: 1,
  jitter: 'none',
});

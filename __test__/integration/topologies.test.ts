/** What users run in production: Redis Cluster, Sentinel, TLS, Unix sockets, and replicas that are waited for. */
import type { DeepPartial, EventBusConfig, RedisEventBus } from '@bluefly/ossa';
import { Authority, extraName, noTls, startTls } from '../support/certificates';
import { TestCluster } from '../support/cluster';
import { masterName, TestSentinels } from '../support/sentinel';
import { freePort, TestServer } from '../support/server';
import { pause, until, within } from '../support/wait';
import { clusterNodes, quick, refusal, useWorld } from '../support/world';

jest.setTimeout(120_000);

type RedisConfig = DeepPartial<EventBusConfig['redis']>;

const world = useWorld('redis');

/** What the test started, ended in the opposite order. */
const ends: Array<() => unknown> = [];
const endLater = <T extends { stop(): unknown }>(started: T): T => {
  ends.push(() => started.stop());
  return started;
};
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** What everybody does with a bus. */
async function quickStart(bus: RedisEventBus): Promise<void> {
  const seen: unknown[] = [];
  await bus.subscribe('order.*', (event) => void seen.push(event.data), { group: 'g' });
  await bus.publish('order.created', { n: 1 });
  await bus.publishBatch([
    { eventType: 'order.paid', data: { n: 2 } },
    { eventType: 'order.sent', data: { n: 3 } },
  ]);
  await bus.publish('order.late', { n: 4 }, { delayMs: 50 });
  await until(() => seen.length === 4, { show: () => seen });

  await bus.subscribe('question', (event) => event.data + 1, { group: 'g' });
  expect(await bus.request('question', 41)).toBe(42);

  await bus.subscribe(
    'bad',
    () => {
      throw new Error('never');
    },
    { group: 'g', retry: quick(1) },
  );
  await bus.publish('bad', 1);
  await until(async () => (await bus.deadLetters.count({ eventType: 'bad' })) === 1);

  const replayed: unknown[] = [];
  for await (const event of bus.replay('order.created')) replayed.push(event.data);
  expect(replayed).toEqual([{ n: 1 }]);
}

/** Publishes until told to stop; what was answered, and when. */
function load(bus: RedisEventBus, eventTypes: string[]) {
  const resolved: Array<{ id: string; at: number }> = [];
  const rejected: unknown[] = [];
  let over = false;
  const one = (eventType: string, n: number) =>
    bus.publish(eventType, n).then(
      (id) => void resolved.push({ id, at: Date.now() }),
      (error) => void rejected.push(error),
    );
  const running = (async () => {
    for (let n = 0; !over; n++) {
      await Promise.all(eventTypes.map((eventType) => one(eventType, n)));
      await pause(5);
    }
  })();
  return {
    resolved,
    rejected,
    /** When the first publish succeeded after that time. */
    goesOn: (since: number) => until(() => resolved.find(({ at }) => at > since)?.at) as Promise<number>,
    end() {
      over = true;
      return running;
    },
  };
}

/** Every id there is of these types. */
async function storedIds(bus: RedisEventBus, eventTypes: string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const eventType of eventTypes) for await (const event of bus.replay(eventType)) ids.push(event.metadata.id);
  return ids;
}

const connected = (redis: RedisConfig, over: DeepPartial<EventBusConfig> = {}) => world.bus({ ...over, redis });
const refused = (redis: RedisConfig, code: 'ERR_CONNECTION' | 'ERR_AUTH' | 'ERR_INVALID_CONFIG', over = {}) =>
  refusal(code, () => world.make({ ...over, redis }).connect());

/** Enough of them for every master to have some. */
const eventTypes = Array.from({ length: 24 }, (_, n) => `load.${n}`);

describe('Redis Cluster', () => {
  test('the quick start', async () => {
    const bus = await connected({ cluster: { nodes: clusterNodes() } });
    await quickStart(bus);
  });

  test('getStatus() names every node', async () => {
    // One is enough to find the others.
    const bus = await connected({ cluster: { nodes: clusterNodes().slice(0, 1) } });
    const { status, redis } = await bus.getStatus();
    expect(status).toBe('healthy');
    expect(redis).toMatchObject({ connected: true, cluster: true });
    expect(redis.nodes?.map(({ port }) => port).sort()).toEqual(
      clusterNodes()
        .map(({ port }) => port)
        .sort(),
    );
    for (const node of redis.nodes ?? []) expect(node).toEqual({ host: '127.0.0.1', port: expect.any(Number), status: expect.any(String) });
  });

  test('a master is killed under load: publishing and consuming go on by themselves, and only the failover loses anything', async () => {
    const cluster = endLater(await TestCluster.start());
    const redis = { cluster: { nodes: cluster.addresses }, commandTimeoutMs: 20_000 };
    const publisher = await connected(redis);
    const consumer = await connected(redis);
    const seen = new Set<string>();
    await consumer.subscribe('load.*', (event) => void seen.add(event.metadata.id), { group: 'g' });
    const publishing = load(publisher, eventTypes);
    await until(() => publishing.resolved.length > 1000);
    const killed = Date.now();
    const { at: promoted } = await cluster.replaced(1);
    const resumed = await publishing.goesOn(promoted);
    expect(resumed - promoted).toBeLessThan(2000);
    const before = publishing.resolved.length;
    await until(() => publishing.resolved.length > before + 1000);
    await publishing.end();
    expect(publishing.rejected).toEqual([]);
    const stored = await storedIds(publisher, eventTypes);
    const there = new Set(stored);
    expect(there.size).toBe(stored.length);
    // Replication lags behind by less than a second.
    const lost = publishing.resolved.filter(({ id, at }) => !there.has(id) && !(at > killed - 1000 && at < promoted));
    expect(lost).toEqual([]);
    await until(() => stored.every((id) => seen.has(id)), { timeoutMs: 30_000, show: () => [seen.size, stored.length] });
  });

  test('with all of it gone, publishes say so in time, and disconnect() ends', async () => {
    const cluster = endLater(await TestCluster.start({ replicas: 0 }));
    const bus = await connected({ cluster: { nodes: cluster.addresses }, commandTimeoutMs: 1000, connectTimeoutMs: 1000 });
    await bus.publish('t', 1);
    await Promise.all(cluster.nodes.map((node) => node.kill()));
    const error = await within(
      10_000,
      'the refusal',
      refusal('ERR_CONNECTION', () => bus.publish('t', 2)),
    );
    expect(error.retryable).toBe(true);
    await within(15_000, 'disconnect()', bus.disconnect({ drainTimeoutMs: 500 }));
  });
});

describe('Redis Sentinel', () => {
  test('the quick start, with a password of the sentinels; a wrong one and a wrong name are told', async () => {
    const all = endLater(await TestSentinels.start({ password: 'guarded' }));
    const sentinel = { masterName, nodes: all.addresses, password: 'guarded' };
    await quickStart(await connected({ sentinel }));
    await refused({ sentinel: { ...sentinel, password: 'wrong' } }, 'ERR_AUTH');
    const error = await refused({ sentinel: { ...sentinel, masterName: 'mistaken' } }, 'ERR_CONNECTION');
    expect(error.message).toContain('mistaken');
    const dead = { host: '127.0.0.1', port: await freePort() };
    await connected({ sentinel: { ...sentinel, nodes: [dead, ...all.addresses] } });
  });

  test('the master is killed under load: publishing and consuming go on by themselves', async () => {
    const all = endLater(await TestSentinels.start());
    const redis = { sentinel: { masterName, nodes: all.addresses }, commandTimeoutMs: 20_000 };
    const bus = await connected(redis);
    const seen = new Set<string>();
    await bus.subscribe('load.*', (event) => void seen.add(event.metadata.id), { group: 'g' });
    const publishing = load(bus, eventTypes);
    await until(() => publishing.resolved.length > 1000);
    const killed = Date.now();
    const { at: promoted } = await all.replaced();
    expect((await publishing.goesOn(promoted)) - promoted).toBeLessThan(3000);
    const before = publishing.resolved.length;
    await until(() => publishing.resolved.length > before + 500);
    await publishing.end();
    expect(publishing.rejected).toEqual([]);
    const stored = await storedIds(bus, eventTypes);
    const there = new Set(stored);
    expect(there.size).toBe(stored.length);
    expect(publishing.resolved.filter(({ id, at }) => !there.has(id) && !(at > killed - 1000 && at < promoted))).toEqual([]);
    await until(() => stored.every((id) => seen.has(id)), { timeoutMs: 30_000, show: () => [seen.size, stored.length] });
  });
});

const missing = noTls();
const withTls = missing === undefined ? describe : describe.skip;
if (missing !== undefined) console.log(`The tests of TLS are skipped: ${missing}.`);

withTls('TLS', () => {
  let authority: Authority;
  beforeAll(async () => {
    authority = await Authority.make();
  });
  afterAll(() => authority.end());

  const at = (server: TestServer) => ({ host: '127.0.0.1', port: server.portOf('--tls-port') });

  test('the quick start, by tls and by rediss://', async () => {
    const server = endLater(await startTls(authority));
    const tls = { ca: authority.cert };
    await quickStart(await connected({ ...at(server), tls }));
    const bus = await connected({ url: `rediss://localhost:${at(server).port}`, tls });
    expect(await bus.getStatus()).toMatchObject({ status: 'healthy', redis: { connected: true } });
  });

  test('a server of an unknown authority is refused, and the error says what to do', async () => {
    const server = endLater(await startTls(authority));
    const error = await refused({ ...at(server), tls: true }, 'ERR_CONNECTION');
    expect(error.message).toMatch(/\bca\b/);
    expect(error.message).toContain('rejectUnauthorized');
    await connected({ ...at(server), tls: { rejectUnauthorized: false } });
  });

  test('the name counts, and can be given', async () => {
    const server = endLater(await startTls(authority));
    const tls = { ca: authority.cert };
    await connected({ ...at(server), tls: { ...tls, serverName: extraName } });
    const error = await refused({ ...at(server), tls: { ...tls, serverName: 'other.ossa.test' } }, 'ERR_CONNECTION');
    expect(error.message).toContain('serverName');
  });

  test('a client certificate is sent where it is asked for', async () => {
    const server = endLater(await startTls(authority, { clients: 'certified' }));
    const { cert, key } = await authority.sign('client');
    await quickStart(await connected({ ...at(server), tls: { ca: authority.cert, cert, key } }));
    const error = await refused({ ...at(server), tls: { ca: authority.cert } }, 'ERR_CONNECTION');
    expect(error.message).toContain('cert');
    expect(JSON.stringify([error.message, error.details, world.logs])).not.toContain('PRIVATE KEY');
  });

  test('one side alone with TLS is told in time', async () => {
    const server = endLater(await startTls(authority));
    const start = Date.now();
    const both = [
      { ...at(server), connectTimeoutMs: 3000 },
      { host: '127.0.0.1', port: server.port, tls: { ca: authority.cert }, connectTimeoutMs: 3000 },
    ];
    for (const redis of both) expect((await refused(redis, 'ERR_CONNECTION')).message).toMatch(/TLS/i);
    expect(Date.now() - start).toBeLessThan(10_000);
  });
});

describe('a Unix socket', () => {
  test('the quick start, with user, password and database', async () => {
    const server = endLater(await TestServer.start(['--unixsocket', 'redis.sock']));
    const path = server.path('redis.sock');
    await quickStart(await connected({ url: `redis+unix://${path}` }));
    await server.call('ACL', 'SETUSER', 'ossa', 'on', '>s3cret', '~*', '&*', '+@all');
    await connected({ url: `redis+unix://ossa:s3cret@${path}?db=2` });
    expect(await server.call('INFO', 'keyspace')).toContain('db2:');
  });

  test('a file that is not there is named', async () => {
    const server = endLater(await TestServer.start());
    const error = await refused({ url: `redis+unix://${server.path('redis.sock')}` }, 'ERR_CONNECTION');
    expect(error.message).toContain('redis.sock');
  });
});

describe('durability', () => {
  test('a publish resolves once a replica has the event; else it says ERR_NOT_REPLICATED and what was reached', async () => {
    const all = endLater(await TestSentinels.start({ downAfterMs: 600_000 }));
    const [master, replica] = all.servers;
    const durability = { waitReplicas: 1, waitTimeoutMs: 500 };
    const bus = await connected({ url: master.url }, { durability });
    await bus.publish('t', 'before');
    replica.pause();
    const start = Date.now();
    const error = await refusal('ERR_NOT_REPLICATED', () => bus.publish('t', 'meanwhile'));
    expect(Date.now() - start).toBeGreaterThanOrEqual(490);
    expect(Date.now() - start).toBeLessThan(3000);
    expect(error.retryable).toBe(true);
    expect(error.details).toMatchObject({ waitReplicas: 1, replicas: 0, fsync: false });
    replica.resume();
    await until(() =>
      bus.publish('t', 'after').then(
        () => true,
        () => false,
      ),
    );
    const data: unknown[] = [];
    for await (const event of bus.replay('t')) data.push(event.data);
    expect(data.slice(0, 2)).toEqual(['before', 'meanwhile']);
    expect(data.filter((one) => one === 'meanwhile')).toHaveLength(1);
  });

  test('a server that cannot wait for its disk is refused', async () => {
    const server = endLater(await TestServer.start());
    const [known] = (await server.call('COMMAND', 'INFO', 'WAITAOF')) as unknown[];
    if (known !== null) {
      console.log('This server has WAITAOF: skipped.');
      return;
    }
    const error = await refused({ url: server.url }, 'ERR_INVALID_CONFIG', { durability: { fsync: true } });
    expect(error.message).toContain('fsync');
  });
});

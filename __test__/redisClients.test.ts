/**
 * Settings of real ioredis and node-redis clients, as a ServiceRegistry takes them over. They are held against the keys of the
 * configuration, and those against servers, by buses: `redis` takes the same keys in both.
 */
import { type DeepPartial, type EventBusConfig, RedisEventBus, ServiceRegistry } from '@bluefly/ossa';
import * as ioredis6 from 'ioredis';
import * as ioredis5 from 'ioredis5';
import * as redis4 from 'redis4';
import * as redis5 from 'redis5';
import * as redis6 from 'redis6';
import { Authority, extraName, type Identity, noTls, startTls } from './support/certificates';
import { masterName, TestSentinels } from './support/sentinel';
import { TestServer } from './support/server';
import { until } from './support/wait';
import { clusterNodes, freshPrefix, redisUrl, refusal } from './support/world';

jest.setTimeout(120_000);

type Settings = DeepPartial<EventBusConfig['redis']>;
const { settingsOf } = require('../dist/redisClient') as { settingsOf(client: unknown, config?: unknown): { redis: Settings } };

const ioredisVersions = { 'ioredis 5': ioredis5, 'ioredis 6': ioredis6 };
const nodeRedisVersions = { 'node-redis 4': redis4, 'node-redis 5': redis5, 'node-redis 6': redis6 };
type Options = Record<string, any>;

/** What the test made, ended in the opposite order. */
const ends: Array<() => unknown> = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** An ioredis client that connects when it is told to. */
function ioredis(version: keyof typeof ioredisVersions, ...args: any[]): any {
  const { default: Redis } = ioredisVersions[version] as any;
  const client = new Redis(...args, { lazyConnect: true, retryStrategy: () => null });
  client.on('error', () => undefined);
  ends.push(() => client.disconnect());
  return client;
}

function ioredisCluster(version: keyof typeof ioredisVersions, nodes: unknown[], options: Options = {}): any {
  const client = new (ioredisVersions[version] as any).Cluster(nodes, { lazyConnect: true, ...options });
  client.on('error', () => undefined);
  ends.push(() => client.disconnect());
  return client;
}

/** A node-redis client that is not connected. */
function nodeRedis(version: keyof typeof nodeRedisVersions, options?: Options): any {
  const client = (nodeRedisVersions[version] as any).createClient(options);
  client.on('error', () => undefined);
  ends.push(() => client.isOpen && (client.destroy ?? client.disconnect).call(client));
  return client;
}

const nobody = { username: '', password: '' };
const local = { host: 'localhost', port: 6379, ...nobody, db: 0 };
const pem = (label: string) => `-----BEGIN ${label}-----\nAAAA\n-----END ${label}-----\n`;
const [ca, cert, key] = [pem('CERTIFICATE'), pem('CERTIFICATE'), pem('PRIVATE KEY')];

describe.each(Object.keys(ioredisVersions) as Array<keyof typeof ioredisVersions>)('%s', (version) => {
  test.each<[string, any[], Settings]>([
    ['nothing', [], local],
    ['a port', [7000], { ...local, port: 7000 }],
    ['a port and a host', [7000, 'h'], { ...local, host: 'h', port: 7000 }],
    ['a port as text', [{ port: '7000' }], { ...local, port: 7000 }],
    ['an IPv6 address', [{ port: 7000, host: '::1' }], { ...local, host: '::1', port: 7000 }],
    ['redis://', ['redis://h:7000/3'], { ...local, host: 'h', port: 7000, db: 3 }],
    ['redis:// without a port', ['redis://h'], { ...local, host: 'h' }],
    ['redis:// with a password', ['redis://:p%40@h'], { ...local, host: 'h', password: 'p@' }],
    ['redis:// with a user', ['redis://u%3A:p@h'], { ...local, host: 'h', username: 'u:', password: 'p' }],
    ['redis:// with an IPv6 address', ['redis://[::1]:7000'], { ...local, host: '::1', port: 7000 }],
    ['redis:// and options', ['redis://h', { db: 4, password: 'p' }], { ...local, host: 'h', db: 4, password: 'p' }],
    ['rediss://', ['rediss://h:7000'], { ...local, host: 'h', port: 7000, tls: true }],
    ['rediss:// and tls', ['rediss://h', { tls: { servername: 's' } }], { ...local, host: 'h', tls: { serverName: 's' } }],
    ['user and password', [{ username: 'u', password: 'p' }], { ...local, username: 'u', password: 'p' }],
    ['a socket', ['/run/redis.sock'], { url: 'redis+unix:///run/redis.sock', ...nobody, db: 0 }],
    [
      'a socket with odd characters',
      [{ path: '/a b%?@', password: 'p', db: 2 }],
      { url: 'redis+unix:///a b%25%3F%40', username: '', password: 'p', db: 2 },
    ],
    ['tls: {}', [{ tls: {} }], { ...local, tls: true }],
    ['a server whose certificate is its own', [{ tls: { rejectUnauthorized: false } }], { ...local, tls: { rejectUnauthorized: false } }],
    ['certificates', [{ tls: { ca, cert, key } }], { ...local, tls: { ca, cert, key } }],
    [
      'certificates in Buffers',
      [{ tls: { ca: [Buffer.from(ca), ca], cert: Buffer.from(cert), key: [Buffer.from(key)] } }],
      { ...local, tls: { ca: `${ca}\n${ca}`, cert, key } },
    ],
    ['what holds of TLS anyway', [{ tls: { minVersion: 'TLSv1.2', rejectUnauthorized: true, ca: undefined } }], { ...local, tls: true }],
    ['a keyPrefix, which is the client’s own', [{ keyPrefix: 'k:' }], local],
  ])('%s', (_, args, expected) => {
    expect(settingsOf(ioredis(version, ...args)).redis).toEqual(expected);
  });

  test('Sentinels', () => {
    const sentinels = [{ host: 'a', port: 1 }, { host: 'b' }];
    const nodes = [
      { host: 'a', port: 1 },
      { host: 'b', port: 26379 },
    ];
    expect(settingsOf(ioredis(version, { sentinels, name: 'm', db: 2, password: 'p' })).redis).toEqual({
      ...{ sentinel: { masterName: 'm', nodes, ...nobody }, username: '', password: 'p', db: 2 },
    });
    const login = { sentinelUsername: 'su', sentinelPassword: 'sp' };
    const encrypted = {
      tls: { ca, rejectUnauthorized: false },
      enableTLSForSentinelMode: true,
      sentinelTLS: { rejectUnauthorized: false, ca },
    };
    expect(settingsOf(ioredis(version, { sentinels, name: 'm', ...login, ...encrypted })).redis).toEqual({
      ...{ sentinel: { masterName: 'm', nodes, username: 'su', password: 'sp' }, ...nobody, db: 0 },
      tls: { ca, rejectUnauthorized: false },
    });
    // As ioredis has it, tls alone encrypts nothing there.
    expect(settingsOf(ioredis(version, { sentinels, name: 'm', tls: {} })).redis).not.toHaveProperty('tls');
  });

  test('a cluster', () => {
    const given = [{ host: 'a', port: 1 }, { host: 'b' }, 'redis://c:3', 4, '5', { host: '::1', port: '6' }];
    const nodes = [
      { host: 'a', port: 1 },
      { host: 'b', port: 6379 },
      { host: 'c', port: 3 },
      { host: '127.0.0.1', port: 4 },
      { host: '127.0.0.1', port: 5 },
      { host: '::1', port: 6 },
    ];
    expect(settingsOf(ioredisCluster(version, given)).redis).toEqual({ cluster: { nodes }, ...nobody, db: 0 });
    const redisOptions = { username: 'u', password: 'p', tls: { servername: 's' } };
    expect(settingsOf(ioredisCluster(version, given, { redisOptions, scaleReads: 'slave', keyPrefix: 'k' })).redis).toEqual({
      ...{ cluster: { nodes }, username: 'u', password: 'p', db: 0, tls: { serverName: 's' } },
    });
    const own = [{ host: 'a', port: 1, password: 'p' }, 'redis://:p@b:2'];
    expect(settingsOf(ioredisCluster(version, own)).redis).toMatchObject({ password: 'p' });
  });

  const sentinels = [{ host: 'a', port: 1 }];
  test.each<[string, RegExp, () => unknown]>([
    ['a key with a passphrase', /options\.tls\.passphrase/, () => ioredis(version, { tls: { key, cert, passphrase: 'hunter2' } })],
    ['a check of the name of its own', /options\.tls\.checkServerIdentity/, () => ioredis(version, { tls: { checkServerIdentity() {} } })],
    ['ciphers', /options\.tls\.ciphers/, () => ioredis(version, { tls: { ciphers: 'x' } })],
    ['a newer TLS only', /options\.tls\.minVersion/, () => ioredis(version, { tls: { minVersion: 'TLSv1.3' } })],
    ['two certificates', /options\.tls\.cert/, () => ioredis(version, { tls: { cert: [cert, cert], key } })],
    ['an unknown profile', /options\.tls/, () => ioredis(version, { tls: 'Nope' })],
    ['TLS over a socket', /TLS over a Unix socket/, () => ioredis(version, { path: '/s', tls: {} })],
    ['a password that is a function', /options\.password is a function/, () => ioredis(version, { password: () => 'hunter2' })],
    ['a connector of its own', /options\.Connector/, () => ioredis(version, { Connector: class {} })],
    ['a port that is none', /options\.port/, () => ioredis(version, { port: 'hunter2' })],
    ['a replica', /options\.role/, () => ioredis(version, { sentinels, name: 'm', role: 'slave' })],
    ['translated addresses', /options\.natMap/, () => ioredis(version, { sentinels, name: 'm', natMap: { a: { host: 'b', port: 1 } } })],
    [
      'TLS to the master alone',
      /options\.sentinelTLS differ/,
      () => ioredis(version, { sentinels, name: 'm', tls: {}, enableTLSForSentinelMode: true }),
    ],
    ['TLS to the Sentinels alone', /options\.sentinelTLS differ/, () => ioredis(version, { sentinels, name: 'm', sentinelTLS: {} })],
    [
      'nodes with different passwords',
      /different users or passwords/,
      () => ioredisCluster(version, [{ host: 'a', password: 'hunter2' }, { host: 'b' }]),
    ],
    ['nodes of which one has TLS', /different TLS/, () => ioredisCluster(version, [{ host: 'a', tls: {} }, { host: 'b' }])],
    ['rediss:// that the cluster does not heed', /startupNodes\[0\] is rediss/, () => ioredisCluster(version, ['rediss://a'])],
    ['a node that is no address', /startupNodes\[0\]/, () => ioredisCluster(version, ['http://hunter2@a'])],
    ['translated addresses of a cluster', /options\.natMap/, () => ioredisCluster(version, ['a'], { natMap: {} })],
    ['SRV records', /options\.useSRVRecords/, () => ioredisCluster(version, [{ host: 'a' }], { useSRVRecords: true })],
    ['a pipeline', /neither/, () => ioredis(version).pipeline()],
  ])('%s is refused', async (_, message, make) => {
    await refusedWith(message, make());
  });

  test('a client in any state is looked at and left alone', async () => {
    const { host, port } = settingsOf(ioredis(version, redisUrl())).redis;
    const client = ioredis(version, redisUrl());
    const check = () => {
      const before = client.status;
      expect(settingsOf(client).redis).toMatchObject({ host, port });
      expect(client.status).toBe(before);
      return before;
    };
    expect(check()).toBe('wait');
    const connecting = client.connect();
    expect(check()).toBe('connecting');
    await connecting;
    expect(check()).toBe('ready');
    await client.quit();
    await until(() => client.status === 'end');
    expect(check()).toBe('end');
  });
});

describe.each(Object.keys(nodeRedisVersions) as Array<keyof typeof nodeRedisVersions>)('%s', (version) => {
  const major = Number(version.at(-1));

  test.each<[string, Options | undefined, Settings]>([
    ['nothing', undefined, local],
    ['no options', {}, local],
    ['redis://', { url: 'redis://h:7000/3' }, { ...local, host: 'h', port: 7000, db: 3 }],
    ['redis:// without a port', { url: 'redis://h' }, { ...local, host: 'h' }],
    ['redis:// with a password', { url: 'redis://:p%40@h' }, { ...local, host: 'h', password: 'p@' }],
    ['redis:// with a user', { url: 'redis://u%3A:p@h' }, { ...local, host: 'h', username: 'u:', password: 'p' }],
    ['redis:// with an IPv6 address', { url: 'redis://[::1]:7000' }, { ...local, host: '::1', port: 7000 }],
    ['redis:// and options', { url: 'redis://h', database: 4, password: 'p' }, { ...local, host: 'h', db: 4, password: 'p' }],
    ['rediss://', { url: 'rediss://h:7000' }, { ...local, host: 'h', port: 7000, tls: true }],
    ['rediss:// and a name', { url: 'rediss://h', socket: { servername: 's' } }, { ...local, host: 'h', tls: { serverName: 's' } }],
    ['host and port', { socket: { host: 'h', port: 7000 } }, { ...local, host: 'h', port: 7000 }],
    ['an IPv6 address', { socket: { host: '::1' } }, { ...local, host: '::1' }],
    ['user and password', { username: 'u', password: 'p' }, { ...local, username: 'u', password: 'p' }],
    ['a socket', { socket: { path: '/run/redis.sock' } }, { url: 'redis+unix:///run/redis.sock', ...nobody, db: 0 }],
    [
      'TLS',
      { socket: { tls: true, ca, cert, key: Buffer.from(key), connectTimeout: 5, reconnectStrategy: false, keepAlive: 1, noDelay: true } },
      { ...local, tls: { ca, cert, key } },
    ],
    [
      'a server whose certificate is its own',
      { socket: { tls: true, rejectUnauthorized: false } },
      { ...local, tls: { rejectUnauthorized: false } },
    ],
    ['no TLS', { socket: { tls: false } }, local],
  ])('%s', (_, options, expected) => {
    expect(settingsOf(nodeRedis(version, options)).redis).toEqual(expected);
  });

  const lib = nodeRedisVersions[version] as any;
  const credentials = async () => ({ username: 'u', password: 'hunter2' });
  test.each<[string, RegExp, () => unknown]>([
    ['ciphers', /options\.socket\.ciphers/, () => nodeRedis(version, { socket: { tls: true, ciphers: 'x' } })],
    ['a key with a passphrase', /options\.socket\.passphrase/, () => nodeRedis(version, { socket: { tls: true, passphrase: 'hunter2' } })],
    ['TLS over a socket', /TLS over a Unix socket/, () => nodeRedis(version, { socket: { path: '/s', tls: true } })],
    ['a lookup of its own', /options\.socket\.lookup/, () => nodeRedis(version, { socket: { lookup() {} } })],
    ['a local address', /options\.socket\.localAddress/, () => nodeRedis(version, { socket: { localAddress: '127.0.0.1' } })],
    ['a password that is a function', /options\.password is a function/, () => nodeRedis(version, { password: credentials })],
    [
      'a credentialsProvider',
      /options\.credentialsProvider/,
      () => nodeRedis(version, { credentialsProvider: { type: 'async-credentials-provider', credentials } }),
    ],
    [
      'credentials that change',
      /options\.credentialsProvider/,
      () => nodeRedis(version, { username: 'u', credentialsProvider: { type: 'streaming-credentials-provider', subscribe: credentials } }),
    ],
    ['a transaction', /neither/, () => nodeRedis(version).multi()],
  ])('%s is refused', async (_, message, make) => {
    await refusedWith(message, make());
  });

  if (major === 4) {
    test('a cluster is refused', () => refusedWith(/cluster of node-redis 4/, lib.createCluster({ rootNodes: [{ url: 'redis://a' }] })));
  } else {
    test('a Sentinel client and a pool are refused', async () => {
      const node = { host: 'a', port: 1 };
      await refusedWith(/Sentinel client of node-redis/, lib.createSentinel({ name: 'm', sentinelRootNodes: [node] }));
      await refusedWith(/pool of node-redis/, lib.createClientPool({ socket: node }));
    });

    test('a cluster', () => {
      const rootNodes = [{ url: 'redis://a:1' }, { socket: { host: 'b', port: 2 } }, { url: 'redis://[::1]' }];
      const nodes = [
        { host: 'a', port: 1 },
        { host: 'b', port: 2 },
        { host: '::1', port: 6379 },
      ];
      const of = (options: Options) => settingsOf(lib.createCluster(options)).redis;
      expect(of({ rootNodes })).toEqual({ cluster: { nodes }, ...nobody, db: 0 });
      const defaults = { username: 'u', password: 'p', socket: { connectTimeout: 5 } };
      expect(of({ rootNodes, defaults, useReplicas: true })).toEqual({ cluster: { nodes }, username: 'u', password: 'p', db: 0 });
      expect(of({ rootNodes: [{ url: 'redis://u:p@a' }], defaults })).toMatchObject({ username: 'u', password: 'p' });
      const encrypted = { socket: { tls: true, servername: 's' } };
      expect(of({ rootNodes: [{ url: 'rediss://a' }], defaults: encrypted })).toMatchObject({ tls: { serverName: 's' } });
    });

    test.each<[string, RegExp, Options]>([
      ['different passwords', /different users, passwords/, { rootNodes: [{ url: 'redis://:hunter2@a' }, { url: 'redis://b' }] }],
      ['TLS of some nodes', /different users, passwords/, { rootNodes: [{ url: 'redis://a' }], defaults: { socket: { tls: true } } }],
      ['translated addresses', /nodeAddressMap/, { rootNodes: [{ url: 'redis://a' }], nodeAddressMap: {} }],
      ['no nodes', /rootNodes is empty/, { rootNodes: [] }],
      [
        'credentials that are asked for',
        /credentialsProvider/,
        { rootNodes: [{ url: 'redis://a' }], defaults: { credentialsProvider: { type: 'async-credentials-provider', credentials } } },
      ],
    ])('a cluster with %s is refused', async (_, message, options) => {
      await refusedWith(message, lib.createCluster(options));
    });
  }

  test('a client in any state is looked at and left alone', async () => {
    const { host, port } = settingsOf(ioredis('ioredis 6', redisUrl())).redis;
    const client = nodeRedis(version, { url: redisUrl() });
    const check = () => {
      const before = [client.isOpen, client.isReady];
      expect(settingsOf(client).redis).toMatchObject({ host, port });
      expect([client.isOpen, client.isReady]).toEqual(before);
      return before;
    };
    expect(check()).toEqual([false, false]);
    const connecting = client.connect();
    expect(check()).toEqual([true, false]);
    await connecting;
    expect(check()).toEqual([true, true]);
    await client.quit();
    expect(check()).toEqual([false, false]);
  });
});

test.each<[string, unknown]>([
  ['a number', 5],
  ['a URL', 'redis://:hunter2@h'],
  ['an empty object', {}],
  ['a configuration', { host: 'h', port: 1, password: 'hunter2' }],
  ['options alone', { options: { host: 'h', port: 1, password: 'hunter2' } }],
  ['a class', ioredis6.default],
  [
    'what throws when it is looked at',
    new Proxy(
      {},
      {
        get() {
          throw new Error('hunter2');
        },
      },
    ),
  ],
])('%s in place of a client is refused', (_, client) => refusedWith(/neither an ioredis nor a node-redis client/, client));

/** Refused by the registry; the message says what to pass, and holds no secret. */
async function refusedWith(message: RegExp, client: unknown): Promise<void> {
  const error = await refusal('ERR_INVALID_ARGUMENT', () => new ServiceRegistry({}, client as object));
  expect(error.details).toEqual({ argument: 'redisClient' });
  expect(error.message).toMatch(message);
  expect(error.message).toMatch(/pass an ioredis client \(new Redis\(…\)/);
  expect(JSON.stringify([error.message, error.stack, error.cause])).not.toContain('hunter2');
}

describe('beside a configuration', () => {
  const client = () => ioredis('ioredis 6', 7000, 'h', { password: 'p', db: 2 });

  test('what it says beside the address is added', () => {
    const redis = { keyPrefix: 'k', db: 3, password: undefined, commandTimeoutMs: 5 };
    expect(settingsOf(client(), { serviceTtlSeconds: 5, redis })).toEqual({
      serviceTtlSeconds: 5,
      redis: { host: 'h', port: 7000, username: '', password: 'p', db: 3, keyPrefix: 'k', commandTimeoutMs: 5 },
    });
  });

  test.each<[string, Settings]>([
    ['url', { url: 'redis://x' }],
    ['host', { host: 'x' }],
    ['port', { port: 1 }],
    ['cluster', { cluster: { nodes: [{ host: 'x', port: 1 }] } }],
    ['sentinel', { sentinel: { masterName: 'm', nodes: [] } }],
  ])('%s is another server, to which nothing of the client belongs', (_, redis) => {
    expect(settingsOf(client(), { redis })).toEqual({ redis });
  });

  test.each<[unknown, string]>([
    [5, 'config'],
    [[], 'config'],
    [{ redis: 5 }, 'redis'],
    [{ redis: [] }, 'redis'],
    [{ redis: { nope: 1 } }, 'redis.nope'],
    [{ nope: 1 }, 'nope'],
  ])('%p is refused as it is without a client', async (config, path) => {
    expect((await refusal('ERR_INVALID_CONFIG', () => new ServiceRegistry(config as object, client()))).details).toMatchObject({ path });
  });

  test('a client without a password has none, whatever the environment says', () => {
    process.env['REDIS_PASSWORD'] = 'of another server';
    try {
      expect(settingsOf(ioredis('ioredis 6')).redis).toMatchObject({ username: '', password: '' });
    } finally {
      delete process.env['REDIS_PASSWORD'];
    }
  });
});

describe('the settings lead to the server of the client', () => {
  const all = [...Object.keys(ioredisVersions), ...Object.keys(nodeRedisVersions)];

  /** A client of that version, by options that all of them know. */
  interface Wanted {
    url?: string;
    path?: string;
    username?: string;
    password?: string;
    db?: number;
    tls?: Options;
  }
  function make(version: string, { url, path, db, tls, ...login }: Wanted): any {
    if (version in ioredisVersions) {
      const options = {
        ...login,
        ...(db === undefined ? {} : { db }),
        ...(tls === undefined ? {} : { tls }),
        ...(path === undefined ? {} : { path }),
      };
      return ioredis(version as never, ...(url === undefined ? [] : [url]), options);
    }
    const socket = { ...tls, ...(path === undefined ? {} : { path }) };
    return nodeRedis(version as never, { url, ...login, database: db, socket });
  }

  /** A bus with those settings leaves its keys where the client sees them. */
  async function sees(client: any, keys: (prefix: string) => Promise<string[]>): Promise<void> {
    const keyPrefix = freshPrefix();
    const bus = new RedisEventBus({ redis: { ...settingsOf(client).redis, keyPrefix } });
    try {
      await bus.connect();
      await bus.publish('t', 1);
      expect((await keys(keyPrefix)).length).toBeGreaterThan(0);
    } finally {
      await bus.disconnect({ drainTimeoutMs: 0 });
    }
  }
  const seesItself = async (client: any) => {
    await client.connect();
    await sees(client, (prefix) => client.keys(`${prefix}*`));
  };

  test.each(all)('%s: a URL, a user and a database', async (version) => {
    const server = await TestServer.start();
    ends.push(() => server.stop());
    await server.call('ACL', 'SETUSER', 'it', 'on', '>se@cret', '~*', '&*', '+@all');
    await server.call('ACL', 'SETUSER', 'default', 'off');
    await seesItself(make(version, { url: server.url.replace('//', '//it:se%40cret@'), db: 3 }));
    await seesItself(make(version, { url: `${server.url}/2`, username: 'it', password: 'se@cret' }));
  });

  test.each(all)('%s: a Unix socket', async (version) => {
    const server = await TestServer.start(['--unixsocket', 'redis.sock']);
    ends.push(() => server.stop());
    await seesItself(make(version, { path: server.path('redis.sock'), db: 1 }));
  });

  const missing = noTls();
  (missing === undefined ? describe : describe.skip)('over TLS', () => {
    let authority: Authority;
    let server: TestServer;
    let identity: Identity;
    beforeAll(async () => {
      authority = await Authority.make();
      server = await startTls(authority, { clients: 'certified' });
      identity = await authority.sign('client');
    });
    afterAll(async () => {
      await server.stop();
      authority.end();
    });

    test.each(all)('%s: certificates and the name of the server', async (version) => {
      const tls = { ca: authority.cert, ...identity, servername: extraName };
      await seesItself(make(version, { url: `rediss://127.0.0.1:${server.portOf('--tls-port')}`, tls }));
    });
  });

  test.each(Object.keys(ioredisVersions) as Array<keyof typeof ioredisVersions>)('%s: a cluster', async (version) => {
    const client = ioredisCluster(version, clusterNodes().slice(0, 2));
    await client.connect();
    await sees(client, async (prefix) => (await Promise.all(client.nodes('master').map((node: any) => node.keys(`${prefix}*`)))).flat());
  });

  test.each(['node-redis 5', 'node-redis 6'] as const)('%s: a cluster', async (version) => {
    const [{ host, port }] = clusterNodes();
    const client = (nodeRedisVersions[version] as any).createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }] });
    ends.push(() => client.destroy());
    await client.connect();
    await sees(client, async (prefix) => {
      const nodes = await Promise.all(client.masters.map((master: unknown) => client.nodeClient(master)));
      return (await Promise.all(nodes.map((node: any) => node.keys(`${prefix}*`)))).flat();
    });
  });

  test.each(Object.keys(ioredisVersions) as Array<keyof typeof ioredisVersions>)('%s: Sentinels', async (version) => {
    const sentinels = await TestSentinels.start({ replicas: 0, password: 'sp' });
    ends.push(() => sentinels.stop());
    await seesItself(ioredis(version, { sentinels: sentinels.addresses, name: masterName, sentinelPassword: 'sp' }));
  });
});

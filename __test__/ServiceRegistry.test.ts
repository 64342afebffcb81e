/** The service registry, as far as this version has it. */
import { EventEmitter } from 'node:events';
import { createOSSAEventBus, DEFAULT_SERVICE_REGISTRY_CONFIG, ServiceRegistry } from '@bluefly/ossa/services/ServiceRegistry';
import Redis from 'ioredis';
import { refusal } from './support/world';

const calls: Array<[string, (registry: ServiceRegistry) => unknown]> = [
  ['register', (registry) => registry.register({} as any)],
  ['discover', (registry) => registry.discover()],
  ['health', (registry) => registry.health('s')],
  ['unregister', (registry) => registry.unregister('s')],
  ['updateService', (registry) => registry.updateService('s', {})],
  ['startHealthMonitoring', (registry) => registry.startHealthMonitoring()],
  ['getAllServices', (registry) => registry.getAllServices()],
  ['getStats', (registry) => registry.getStats()],
];

test.each(calls)('%s is not in this version: ERR_DISABLED, and ERR_CLOSED after close', async (_, call) => {
  const registry = new ServiceRegistry();
  expect((await refusal('ERR_DISABLED', () => call(registry))).message).toMatch(/Until then/);
  await registry.close();
  await refusal('ERR_CLOSED', () => call(registry));
});

test('it can be made, passed to a bus, closed twice and disposed of', async () => {
  const registry = new ServiceRegistry({ redis: { url: 'memory://' } });
  const bus = await createOSSAEventBus(registry, { eventBus: { redis: { url: 'memory://' } } });
  await bus.shutdown();
  registry.stopHealthMonitoring();
  await Promise.all([registry.close(), registry.close()]);
  await registry[Symbol.asyncDispose]();
  expect(registry).toBeInstanceOf(EventEmitter);
});

test('its defaults name a Redis and the times of health checks', () => {
  expect(DEFAULT_SERVICE_REGISTRY_CONFIG).toMatchObject({
    redis: { host: 'localhost', port: 6379 },
    healthCheck: { intervalMs: expect.any(Number), timeoutMs: expect.any(Number), failureThreshold: expect.any(Number) },
    serviceTtlSeconds: expect.any(Number),
  });
});

test.each([
  ['redis.port', 0],
  ['redis.hots', 'localhost'],
  ['healthCheck.intervalMs', -1],
  ['healthCheck.timeoutMs', 'long'],
  ['healthCheck.failureThreshold', 0],
  ['healthCheck.successThreshold', 1.5],
  ['serviceTtlSeconds', 0],
  ['ttl', 5],
])('the configuration %s: %p is refused with its path', async (path, value) => {
  const config = path.split('.').reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
  const error = await refusal('ERR_INVALID_CONFIG', () => new ServiceRegistry(config as any));
  expect(error.details).toMatchObject({ path });
});

describe('redisClient', () => {
  test('an ioredis client is taken for its settings and left alone', () => {
    const client = new Redis({ host: 'localhost', port: 7777, password: 'p', db: 3, lazyConnect: true });
    new ServiceRegistry(undefined, client);
    new ServiceRegistry({ serviceTtlSeconds: 5 }, client);
    expect(client.status).toBe('wait');
    client.disconnect();
  });

  test('the settings of a node-redis client as well', () => {
    new ServiceRegistry(undefined, { options: { socket: { host: 'localhost', port: 7777 }, username: 'u', password: 'p', database: 1 } });
    new ServiceRegistry(undefined, { options: { url: 'redis://localhost:7777/2' } });
    new ServiceRegistry(undefined, { options: { path: '/tmp/redis.sock' } });
  });

  test.each([5, 'redis://localhost', {}, { options: {} }, { options: { host: 'h', port: 'x' } }])(
    '%p is refused, and the message says what to pass',
    async (client) => {
      const error = await refusal('ERR_INVALID_ARGUMENT', () => new ServiceRegistry(undefined, client as any));
      expect(error.details).toMatchObject({ argument: 'redisClient' });
      expect(error.message).toMatch(/ioredis client/);
    },
  );
});

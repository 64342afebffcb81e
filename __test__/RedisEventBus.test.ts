/** The core bus end to end, on the built package. */
import { DEFAULT_EVENT_BUS_CONFIG, EventBus, type EventPayload, OSSAError, RedisEventBus } from '@bluefly/ossa';
import * as services from '@bluefly/ossa/services/EventBus';
import { gate, until } from './support/wait';
import { freshPrefix, refusal, stores, useWorld } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  test('what one bus publishes another one handles', async () => {
    const [a, b] = [await world.bus(), await world.bus()];
    const got: unknown[] = [];
    await b.subscribe('user.created', (event) => void got.push(event.data));
    const id = await a.publish('user.created', { userId: 'user-123' });
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    await until(() => got.length === 1);
    expect(got).toEqual([{ userId: 'user-123' }]);
  });

  test('members of a group share the events, and every group gets all', async () => {
    const [a, b] = [await world.bus(), await world.bus()];
    const shared: Array<[string, number]> = [];
    const own: number[] = [];
    // Neither goes on before both have some: with five places, one alone cannot take them all.
    const { opened, open } = gate();
    const share = (name: string) => (event: EventPayload) => {
      shared.push([name, event.data]);
      if (new Set(shared.map(([who]) => who)).size === 2) open();
      return opened;
    };
    await a.subscribe('t', share('a'), { group: 'g1', maxUnacknowledged: 5 });
    await b.subscribe('t', share('b'), { group: 'g1', maxUnacknowledged: 5 });
    await b.subscribe('t', (event) => void own.push(event.data), { group: 'g2' });
    const all = Array.from({ length: 300 }, (_, n) => n);
    for (const n of all) await a.publish('t', n);
    await until(() => shared.length >= 300 && own.length >= 300);
    expect(shared.map(([, n]) => n).sort((x, y) => x - y)).toEqual(all);
    expect(new Set(shared.map(([who]) => who))).toEqual(new Set(['a', 'b']));
    expect(own.sort((x, y) => x - y)).toEqual(all);
  });

  test('buses with different key prefixes do not see each other', async () => {
    const here = await world.bus();
    const elsewhere = await world.bus({ redis: { keyPrefix: freshPrefix(), ...(kind === 'memory' ? { url: 'memory://' } : {}) } });
    const got: unknown[] = [];
    await here.subscribe('**', (event) => void got.push(event.data));
    await elsewhere.publish('t', 'elsewhere');
    await here.publish('t', 'here');
    await until(() => got.length > 0);
    expect(got).toEqual(['here']);
    expect((await elsewhere.getStream('t'))?.stats.messageCount).toBe(1);
  });

  test('connect is idempotent, at once and later', async () => {
    const bus = world.make();
    await Promise.all([bus.connect(), bus.connect()]);
    await bus.connect();
    await bus.publish('t', 1);
  });

  test('two disconnects are one, and what comes after says ERR_CLOSED', async () => {
    const bus = await world.bus();
    await Promise.all([bus.disconnect(), bus.disconnect()]);
    await bus.disconnect();
    for (const call of [
      () => bus.connect(),
      () => bus.publish('t', 1),
      () => bus.publishBatch([{ eventType: 't', data: 1 }]),
      () => bus.subscribe('t', () => 1),
      () => bus.unsubscribe('t'),
      () => bus.getStatus(),
      () => bus.getStream('t'),
      () => bus.getMetrics(),
      () => bus.deadLetters.list(),
      () => bus.deadLetters.count(),
      () => bus.deadLetters.redrive({ group: 'g' }),
      () => bus.deadLetters.purge({ group: 'g' }),
    ]) {
      const error = await refusal('ERR_CLOSED', call);
      expect(error.message).toMatch(/make a new one/);
    }
  });

  test('before connect every call says ERR_NOT_INITIALIZED and what to do', async () => {
    const bus = world.make();
    for (const call of [
      () => bus.publish('t', 1),
      () => bus.subscribe('t', () => 1),
      () => bus.unsubscribe('t'),
      () => bus.getStatus(),
      () => bus.getStream('t'),
      () => bus.getMetrics(),
      () => bus.deadLetters.count(),
    ]) {
      const error = await refusal('ERR_NOT_INITIALIZED', call);
      expect(error.message).toMatch(/connect\(\)/);
    }
  });

  test('disconnect without connect is done at once', async () => {
    const bus = world.make();
    await bus.disconnect();
    await refusal('ERR_CLOSED', () => bus.connect());
  });

  test('getStatus shows the store, the subscriptions and the streams', async () => {
    const bus = await world.bus();
    await bus.publish('a', 1);
    await bus.subscribe('b', () => undefined);
    const before = Date.now();
    const status = await until(async () => {
      const seen = await bus.getStatus();
      return seen.streams >= 2 ? seen : undefined;
    });
    expect(status).toMatchObject({ status: 'healthy', redis: { connected: true }, subscriptions: 1, streams: 2 });
    expect(status?.lastHealthCheck).toBeInstanceOf(Date);
    expect(status?.lastHealthCheck.getTime()).toBeGreaterThanOrEqual(before - 1000);
    expect(status?.metrics).toMatchObject({ eventsPublished: 1 });
  });

  test('getMetrics counts what was published, consumed and failed', async () => {
    const bus = await world.bus();
    for (let n = 0; n < 10; n++) await bus.publish('t', n);
    await bus.subscribe(
      't',
      (event) => {
        if (event.data === 3) throw new Error('no');
      },
      { errorStrategy: 'dlq' },
    );
    await until(
      () => {
        const { eventsConsumed, eventsFailed, eventsInDLQ } = bus.getMetrics();
        return eventsConsumed === 9 && eventsFailed === 1 && eventsInDLQ === 1;
      },
      { show: () => bus.getMetrics() },
    );
    const metrics = bus.getMetrics();
    expect(metrics).toMatchObject({ eventsPublished: 10, eventsInFlight: 0, eventsInDLQ: 1, errorRate: 10 });
    expect(metrics.peakEventsPerSecond).toBeGreaterThan(0);
    expect(metrics.currentThroughput).toBeGreaterThan(0);
    expect(metrics.avgProcessingTime).toBeGreaterThanOrEqual(0);
    for (const value of Object.values(metrics)) expect(Number.isFinite(value)).toBe(true);
  });

  test('getStream tells what is in a stream and how far its groups are', async () => {
    const bus = await world.bus();
    expect(await bus.getStream('t')).toBeNull();
    const before = Date.now();
    await bus.publish('t', 1);
    await bus.publish('t', 2);
    await bus.subscribe('t', () => new Promise(() => undefined), { group: 'held', maxUnacknowledged: 1 });
    const held = () => bus.getStream('t').then((stream) => stream?.stats.groups.find((group) => group.name === 'held'));
    await until(async () => (await held())?.pending === 1);
    const stream = await bus.getStream('t');
    expect(stream).toMatchObject({ name: 't', stats: { messageCount: 2, consumerGroups: 1, activeConsumers: 1 } });
    expect(await held()).toMatchObject({ name: 'held', pending: 1, lag: 1, consumers: 1 });
    expect(stream?.stats.firstMessage).toBeInstanceOf(Date);
    expect(stream?.stats.firstMessage?.getTime()).toBeGreaterThanOrEqual(before - 5000);
    expect(stream?.stats.lastMessage?.getTime()).toBeGreaterThanOrEqual(stream?.stats.firstMessage?.getTime() as number);
    expect(stream?.stats.sizeBytes).toBeGreaterThan(0);
  });

  test('it can be disposed of', async () => {
    const bus = await world.bus();
    await bus[Symbol.asyncDispose]();
    await refusal('ERR_CLOSED', () => bus.publish('t', 1));
  });
});

test('memory:// is private to its bus, memory://name is shared', async () => {
  const [a, b] = [new RedisEventBus({ redis: { url: 'memory://' } }), new RedisEventBus({ redis: { url: 'memory://' } })];
  const name = freshPrefix().replace(':', '-');
  const [c, d] = [new RedisEventBus({ redis: { url: `memory://${name}` } }), new RedisEventBus({ redis: { url: `memory://${name}` } })];
  await Promise.all([a, b, c, d].map((bus) => bus.connect()));
  await a.publish('t', 1);
  await c.publish('t', 1);
  expect(await b.getStream('t')).toBeNull();
  expect((await d.getStream('t'))?.stats.messageCount).toBe(1);
  await Promise.all([a, b, c, d].map((bus) => bus.disconnect()));
});

test('both entry points name the same things', () => {
  expect(services.RedisEventBus).toBe(RedisEventBus);
  expect(services.OSSAError).toBe(OSSAError);
  expect(new RedisEventBus({ redis: { url: 'memory://' } })).toBeInstanceOf(EventBus);
});

test('the defaults are those of the contract', () => {
  expect(DEFAULT_EVENT_BUS_CONFIG).toMatchObject({
    redis: { host: 'localhost', port: 6379, keyPrefix: 'ossa:eventbus' },
    performance: { batchSize: 100, batchTimeout: 1000, connectionPoolSize: 10, pipelineSize: 100 },
    monitoring: { enabled: true, metricsInterval: 30000, tracing: true, healthCheckInterval: 15000 },
    defaults: { ttl: 3600, priority: 'normal', retry: { maxAttempts: 3, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000 } },
    deadLetterQueue: { enabled: true, retention: 604800 },
  });
});

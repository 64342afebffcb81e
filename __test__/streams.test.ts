/** Streams with a bound and a retention of their own, groups that end: as users of both stores see them. */
import type { RedisEventBus } from './support/package';
import { until } from './support/wait';
import { refusal, stores, useWorld } from './support/world';

const config = { maxLength: 10, retention: 'count', retentionValue: 3 } as const;
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => from + n);

/** Publishes numbers side by side; how many were stored, and the errors of the others. */
async function publishAll(bus: RedisEventBus, eventType: string, data: number[]) {
  const results = await Promise.allSettled(data.map((n) => bus.publish(eventType, n)));
  const errors = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  return { stored: results.length - errors.length, errors };
}

const group = async (bus: RedisEventBus, eventType: string, name: string) =>
  (await bus.getStream(eventType))?.stats.groups.find((found) => found.name === name);
const groups = async (bus: RedisEventBus, eventType: string) => (await bus.getStream(eventType))?.stats.groups.map(({ name }) => name);

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  describe('createStream', () => {
    test('answers the stream with its configuration, empty, and getStream does the same elsewhere', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const stream = await bus.createStream('orders', { ...config, partitioning: 'hash', partitions: 4 });
      expect(stream).toEqual({
        name: 'orders',
        config: { ...config, partitioning: 'hash', partitions: 4 },
        stats: expect.objectContaining({
          messageCount: 0,
          firstMessage: null,
          lastMessage: null,
          consumerGroups: 0,
          activeConsumers: 0,
          groups: [],
        }),
      });
      expect((await other.getStream('orders'))?.config).toEqual(stream.config);
    });

    test('subscribers that are there get its groups at once', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      await bus.subscribe('orders.*', () => undefined, { group: 'g' });
      const stream = await other.createStream('orders.eu', { ...config, partitioning: 'round-robin', partitions: 3 });
      expect(stream.stats.groups).toEqual([{ name: 'g', pending: 0, lag: 0, consumers: expect.any(Number) }]);
    });

    test.each([
      [{ maxLength: 5, retention: 'time', retentionValue: 0.5 }, {}],
      [{ maxLength: 5, retention: 'both', retentionValue: 60, partitioning: 'none' }, {}],
      [{ maxLength: 1, retention: 'count', retentionValue: 0, partitions: 1 }, { partitioning: 'none' }],
    ] as const)('%j', async (given, more) => {
      const bus = await world.bus();
      const stream = await bus.createStream('t', given);
      expect(stream.config).toEqual({ partitioning: 'none', partitions: 1, ...given, ...more });
    });

    test('on a name that exists changes the retention, not the number of partitions', async () => {
      const bus = await world.bus();
      await bus.publish('t', 1);
      const stream = await bus.createStream('t', config);
      expect(stream).toMatchObject({ config, stats: { messageCount: 1 } });
      expect((await bus.createStream('t', { ...config, maxLength: 11 })).config.maxLength).toBe(11);
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.createStream('t', { ...config, partitioning: 'hash', partitions: 2 }));
      expect(error.details).toMatchObject({ argument: 'config.partitions' });
    });

    const wrong: Array<[string, unknown]> = [
      ['config', null],
      ['config', undefined],
      ['config', 'x'],
      ['config', []],
      ['config.maxLength', { ...config, maxLength: 0 }],
      ['config.maxLength', { ...config, maxLength: 1.5 }],
      ['config.maxLength', { ...config, maxLength: Number.NaN }],
      ['config.maxLength', { ...config, maxLength: 10n }],
      ['config.maxLength', { retention: 'count', retentionValue: 1 }],
      ['config.retention', { ...config, retention: 'size' }],
      ['config.retention', { maxLength: 1, retentionValue: 1 }],
      ['config.retentionValue', { ...config, retentionValue: -1 }],
      ['config.retentionValue', { ...config, retention: 'time', retentionValue: 0 }],
      ['config.retentionValue', { maxLength: 1, retention: 'both' }],
      ['config.partitioning', { ...config, partitioning: 'range' }],
      ['config.partitions', { ...config, partitions: 2 }],
      ['config.partitions', { ...config, partitioning: 'hash', partitions: 257 }],
      ['config.maxLenght', { ...config, maxLenght: 1 }],
    ];
    test.each(wrong)('%s is refused in %p', async (argument, given) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.createStream('t', given as any));
      expect(error.details).toMatchObject({ argument });
      expect(await bus.getStream('t')).toBeNull();
    });

    test.each(['', 'a b', 'a.*', '**', 5, null])('the name %p is refused', async (name) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.createStream(name as any, config));
      expect(error.details).toMatchObject({ argument: 'name' });
    });

    test('no more acknowledged events are kept than it says', async () => {
      const bus = await world.bus();
      await bus.createStream('t', { ...config, maxLength: 1000 });
      await bus.subscribe('t', () => undefined);
      await publishAll(bus, 't', numbers(50));
      await until(async () => (await bus.getStream('t'))?.stats.messageCount === 3, { timeoutMs: 20_000 });
      expect(await group(bus, 't', 'default')).toMatchObject({ pending: 0, lag: 0 });
    });

    test('acknowledged events are kept as long as it says, not until their ttl', async () => {
      const bus = await world.bus({ defaults: { ttl: 0.2 } });
      await bus.createStream('long', { maxLength: 1000, retention: 'time', retentionValue: 3600 });
      await bus.createStream('short', { maxLength: 1000, retention: 'time', retentionValue: 0.2 });
      const handled = new Set<string>();
      for (const type of ['long', 'short', 'plain']) await bus.subscribe(type, ({ metadata }) => void handled.add(metadata.type));
      await bus.publish('long', 1);
      await bus.publish('short', 1, { ttl: 3600 });
      await bus.publish('plain', 1);
      await until(() => handled.size === 3);
      for (const type of ['short', 'plain'])
        await until(async () => (await bus.getStream(type))?.stats.messageCount === 0, { timeoutMs: 20_000 });
      expect((await bus.getStream('long'))?.stats.messageCount).toBe(1);
    });
  });

  describe('a bound', () => {
    test('of createStream: publish is refused at it, until acknowledged events can go', async () => {
      const bus = await world.bus();
      await bus.createStream('t', config);
      const waiting: Array<() => void> = [];
      const subscription = await bus.subscribe('t', () => new Promise<void>((resolve) => void waiting.push(resolve)), { group: 'g' });
      const { stored, errors } = await publishAll(bus, 't', numbers(15));
      expect(stored).toBe(10);
      for (const error of errors)
        expect(error).toMatchObject({
          name: 'OSSAError',
          code: 'ERR_STREAM_FULL',
          retryable: true,
          details: { eventType: 't', limit: 10 },
        });
      await until(() => waiting.length === 10);
      waiting.splice(0, 4).forEach((resolve) => void resolve());
      await until(async () => (await group(bus, 't', 'g'))?.pending === 6);
      expect((await publishAll(bus, 't', numbers(6, 100))).stored).toBe(4);
      await until(() => waiting.length === 10);
      waiting.splice(0).forEach((resolve) => void resolve());
      await subscription.close();
    });

    test('of the configuration holds for types without one of their own', async () => {
      const bus = await world.bus({ limits: { maxStreamLength: 5 } });
      await bus.createStream('own', config);
      await bus.subscribe('own', () => new Promise(() => undefined), { consumerTimeout: 60_000 });
      expect((await publishAll(bus, 'own', numbers(12))).stored).toBe(10);
      const { stored, errors } = await publishAll(bus, 'any', numbers(7));
      expect([stored, errors[0].details]).toEqual([5, { eventType: 'any', limit: 5 }]);
      expect((await bus.getStream('any'))?.config.maxLength).toBe(5);
    });

    test('never keeps back a stream whose consumers keep up', async () => {
      const bus = await world.bus({ limits: { maxStreamLength: 50 } });
      let handled = 0;
      await bus.subscribe('t', () => void handled++);
      for (let round = 0; round < 20; round++) {
        expect((await publishAll(bus, 't', numbers(40))).errors).toEqual([]);
        await until(async () => handled === (round + 1) * 40 && (await group(bus, 't', 'default'))?.pending === 0);
      }
      expect((await bus.getStream('t'))?.stats.messageCount).toBeLessThanOrEqual(50);
    });
  });

  test('getStream sums over partitions and lanes', async () => {
    const bus = await world.bus();
    await bus.createStream('t', { maxLength: 1000, retention: 'count', retentionValue: 1000, partitioning: 'round-robin', partitions: 4 });
    let seen = 0;
    const hold = async () => {
      seen++;
      await new Promise(() => undefined);
    };
    await bus.subscribe('t', hold, { group: 'g', maxUnacknowledged: 100 });
    const before = Date.now();
    await Promise.all(numbers(40).map((n) => bus.publish('t', n, { priority: n % 2 === 0 ? 'high' : 'normal' })));
    await until(() => seen === 40);
    const stream = await bus.getStream('t');
    expect(stream?.stats).toMatchObject({ messageCount: 40, consumerGroups: 1, activeConsumers: 1 });
    expect(stream?.stats.groups).toEqual([{ name: 'g', pending: 40, lag: 0, consumers: 1 }]);
    const [first, last] = [stream?.stats.firstMessage?.getTime() ?? 0, stream?.stats.lastMessage?.getTime() ?? 0];
    expect(Math.abs(first - before)).toBeLessThan(5000);
    expect(last).toBeGreaterThanOrEqual(first);
    expect(stream?.stats.sizeBytes).toBeGreaterThan(0);
  });

  describe('deleteGroup', () => {
    test('resolves with whether there was one, and the stream is kept for it no longer', async () => {
      const bus = await world.bus({ limits: { keepAcknowledged: 0 } });
      const other = await world.bus();
      await (await other.subscribe('t', () => undefined, { group: 'left' })).close();
      await other.disconnect();
      await bus.subscribe('t', () => undefined, { group: 'g' });
      await publishAll(bus, 't', numbers(20));
      expect(await group(bus, 't', 'left')).toMatchObject({ lag: 20 });
      // Until then it counts as just left: its consumer may still have a lease.
      await until(async () => bus.deleteGroup('t', 'left').catch(() => false), { timeoutMs: 15_000 });
      expect(await groups(bus, 't')).toEqual(['g']);
      expect(await bus.deleteGroup('t', 'left')).toBe(false);
      await until(async () => (await bus.getStream('t'))?.stats.messageCount === 0, { timeoutMs: 20_000 });
      await bus.publish('t', 1);
      expect(await groups(bus, 't')).toEqual(['g']);
    });

    test('is refused while it has live consumers', async () => {
      const bus = await world.bus();
      const subscription = await bus.subscribe('t', () => undefined, { group: 'g' });
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.deleteGroup('t', 'g'));
      expect(error.message).toContain(subscription.consumer);
      expect(error.details).toMatchObject({ argument: 'group' });
      expect(await groups(bus, 't')).toEqual(['g']);
    });

    test('of a type that a pattern covers names the pattern', async () => {
      const bus = await world.bus();
      await bus.publish('orders.eu', 1);
      await bus.subscribe('orders.*', () => undefined, { group: 'g' });
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.deleteGroup('orders.eu', 'g'));
      expect(error.details).toMatchObject({ argument: 'eventTypeOrPattern', pattern: 'orders.*' });
    });

    test.each<[unknown, unknown, string]>([
      ['', 'g', 'eventTypeOrPattern'],
      ['a.b*', 'g', 'eventTypeOrPattern'],
      [5, 'g', 'eventTypeOrPattern'],
      ['t', '', 'group'],
      ['t', '~retry', 'group'],
      ['t', undefined, 'group'],
    ])('(%p, %p) is refused', async (eventType, name, argument) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.deleteGroup(eventType as any, name as any));
      expect(error.details).toMatchObject({ argument });
    });
  });

  describe('an ephemeral group', () => {
    test('begins with what comes, and is gone when its last subscription is closed', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      await bus.publish('t', 'old');
      const got: unknown[] = [];
      const options = { group: 'e', ephemeral: true };
      const one = await bus.subscribe('t', ({ data }) => void got.push(data), options);
      const two = await other.subscribe('t', ({ data }) => void got.push(data), options);
      await bus.publish('t', 'new');
      await until(() => got.length === 1);
      expect(got).toEqual(['new']);
      await one.close();
      expect(await groups(bus, 't')).toEqual(['e']);
      await two.close();
      expect(await groups(bus, 't')).toEqual([]);
      await bus.publish('t', 'unseen');
      expect(await groups(bus, 't')).toEqual([]);
      await bus.subscribe('t', ({ data }) => void got.push(data), options);
      await bus.publish('t', 'again');
      await until(() => got.length === 2);
      expect(got).toEqual(['new', 'again']);
    });

    test('of a pattern is gone when its bus is disconnected', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      await bus.publish('a.b', 1);
      await other.subscribe('a.*', () => undefined, { group: 'e', ephemeral: true });
      await bus.publish('a.c', 1);
      for (const type of ['a.b', 'a.c']) expect(await groups(bus, type)).toEqual(['e']);
      await other.disconnect();
      for (const type of ['a.b', 'a.c']) expect(await groups(bus, type)).toEqual([]);
    });

    test('outlasts one of two subscriptions of a bus', async () => {
      const bus = await world.bus();
      const options = { group: 'e', ephemeral: true };
      const one = await bus.subscribe('t', () => undefined, options);
      let seen = 0;
      await bus.subscribe('t', () => void seen++, options);
      await one.close();
      await bus.publish('t', 1);
      await until(() => seen === 1);
      expect(await groups(bus, 't')).toEqual(['e']);
    });

    test('and a durable one of that name on one type do not go together', async () => {
      const bus = await world.bus();
      await bus.subscribe('t', () => undefined, { group: 'g', startFrom: 'latest' });
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => undefined, { group: 'g', ephemeral: true }));
      expect(error.message).toContain('ephemeral');
    });
  });
});

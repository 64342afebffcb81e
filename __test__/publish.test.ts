/** publish() and publishBatch(), end to end. */
import type { EventPayload, OSSAError, PublishOptions, RedisEventBus } from '@bluefly/ossa';
import { pause, until } from './support/wait';
import { refusal, stores, useWorld } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  /** Publishes, and answers what a handler on another bus is given. */
  async function through(data: unknown, options?: PublishOptions): Promise<EventPayload> {
    const [publisher, consumer] = [await world.bus(), await world.bus()];
    const got: EventPayload[] = [];
    await consumer.subscribe('t', (event) => void got.push(event));
    const id = await publisher.publish('t', data, options);
    await until(() => got.length === 1);
    expect(got[0].metadata.id).toBe(id);
    return got[0];
  }

  async function collect(bus: RedisEventBus, eventType = 't'): Promise<EventPayload[]> {
    const got: EventPayload[] = [];
    await bus.subscribe(eventType, (event) => void got.push(event), { group: 'collect' });
    return got;
  }

  describe('metadata', () => {
    test('says what the publisher said', async () => {
      const options: PublishOptions = {
        ttl: 60,
        tags: ['a', 'b'],
        headers: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'x-ü': 'ö' },
        correlationId: 'corr',
        causationId: 'cause',
        source: 'billing',
        target: 'mail',
        version: '2.1.0',
        retry: { maxAttempts: 7, jitter: 'none' },
        priority: 'normal',
      };
      const { metadata } = await through({}, options);
      expect(metadata).toMatchObject({
        type: 't',
        source: 'billing',
        target: 'mail',
        correlationId: 'corr',
        causationId: 'cause',
        version: '2.1.0',
        priority: 'normal',
        ttl: 60,
        tags: ['a', 'b'],
        headers: options.headers,
        attempt: 1,
      });
      expect(metadata.retry).toEqual({ maxAttempts: 7, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000, jitter: 'none' });
    });

    test('has the defaults where he said nothing, and no other keys', async () => {
      const before = Date.now();
      const { metadata } = await through({});
      expect(metadata.timestamp).toBeInstanceOf(Date);
      expect(metadata.timestamp.getTime()).toBeGreaterThanOrEqual(before);
      expect(metadata.timestamp.getTime()).toBeLessThanOrEqual(Date.now());
      const { id, timestamp, source, ...rest } = metadata;
      expect(id).toMatch(/^[0-9a-f-]{36}$/);
      expect(source).not.toBe('');
      expect(rest).toEqual({ type: 't', version: '1.0.0', priority: 'normal', ttl: 3600, attempt: 1 });
    });

    test('SERVICE_NAME is the source unless given', async () => {
      process.env['SERVICE_NAME'] = 'orders';
      try {
        const bus = await world.bus();
        const got = await collect(bus);
        await bus.publish('t', 1);
        await bus.publish('t', 2, { source: 'other' });
        await until(() => got.length === 2);
        expect(got.map((event) => event.metadata.source)).toEqual(['orders', 'other']);
      } finally {
        delete process.env['SERVICE_NAME'];
      }
    });

    test('an option that is undefined is as if left out', async () => {
      const { metadata } = await through(1, { ttl: undefined, tags: undefined, retry: { maxAttempts: undefined }, signal: undefined });
      expect(metadata.ttl).toBe(3600);
      expect(metadata).not.toHaveProperty('tags');
    });
  });

  describe('data', () => {
    test.each<[string, unknown, unknown?]>([
      ['null', null],
      ['undefined, stored as null', undefined, null],
      ['false', false],
      ['zero', 0],
      ['the empty string', ''],
      ['the empty object', {}],
      ['the empty array', []],
      ['numbers as JSON has them', [1.5, -0, 1e300, Number.MAX_SAFE_INTEGER], [1.5, 0, 1e300, Number.MAX_SAFE_INTEGER]],
      ['what has no number, stored as null', [NaN, Infinity], [null, null]],
      ['a Date as its ISO string', { at: new Date(0) }, { at: '1970-01-01T00:00:00.000Z' }],
      ['an object by its toJSON', { toJSON: () => 'its own form' }, 'its own form'],
      ['text with line breaks, tabs and quotes', 'a\tb\nc\r\0"\\\u2028'],
      ['all of Unicode', 'ü💥\u{10ffff}語'],
      ['lone surrogates', { '\ud800': '\udfff and \ud83d' }],
      ['arrays with holes and undefined, as null', [1, undefined, 3], [1, null, 3]],
      ['keys that are undefined, left out', { a: undefined, b: 1 }, { b: 1 }],
    ])('%s', async (_, data, expected = data) => {
      expect((await through(data)).data).toEqual(expected);
    });

    test('the key __proto__ is data like any other and changes no prototype', async () => {
      const sent = JSON.parse('{"__proto__": {"admin": true}, "constructor": {"prototype": 1}, "n": 1}');
      const { data } = await through(sent);
      expect(JSON.stringify(data)).toBe(JSON.stringify(sent));
      expect(Object.getPrototypeOf(data)).toBe(Object.prototype);
      expect(Object.hasOwn(data, '__proto__')).toBe(true);
      expect(({} as { admin?: boolean }).admin).toBeUndefined();
    });

    test('is what it was when publish was called', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      const data = { n: 1 };
      const published = bus.publish('t', data);
      data.n = 2;
      await published;
      await until(() => got.length === 1);
      expect(got[0].data).toEqual({ n: 1 });
    });

    test('of nearly maxPayloadBytes is taken, with more bytes than that refused, counted in UTF-8', async () => {
      const bus = await world.bus({ limits: { maxPayloadBytes: 1000 } });
      const got = await collect(bus);
      await bus.publish('t', 'x'.repeat(998));
      await bus.publish('t', 'ü'.repeat(499));
      for (const data of ['x'.repeat(999), 'ü'.repeat(500), ['x'.repeat(999)]]) {
        const error = await refusal('ERR_PAYLOAD_TOO_LARGE', () => bus.publish('t', data));
        expect(error).toMatchObject({ retryable: false, details: { limit: 1000 } });
      }
      await until(() => got.length === 2);
    });

    test('of a megabyte goes through', async () => {
      const text = 'x'.repeat((1 << 20) - 2);
      expect((await through(text)).data).toBe(text);
    });
  });

  describe('order', () => {
    test('events of one type come in the order of the calls, awaited or not', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      const all = Array.from({ length: 2000 }, (_, n) => n);
      await Promise.all(all.map((n) => bus.publish('t', n)));
      await until(() => got.length === 2000);
      expect(got.map((event) => event.data)).toEqual(all);
    });

    test('ids of later events are greater', async () => {
      const bus = await world.bus();
      const ids = await Promise.all(Array.from({ length: 500 }, () => bus.publish('t', 1)));
      expect([...ids].sort()).toEqual(ids);
      expect(new Set(ids).size).toBe(500);
    });
  });

  describe('publishBatch', () => {
    test('resolves with the ids in the order of the events', async () => {
      const bus = await world.bus();
      const got = await collect(bus, '**');
      const ids = await bus.publishBatch(
        Array.from({ length: 20 }, (_, n) => ({ eventType: `t${n % 3}`, data: n, options: { tags: [`${n}`] } })),
      );
      await until(() => got.length === 20);
      const byId = new Map(got.map((event) => [event.metadata.id, event]));
      expect(ids.map((id) => byId.get(id)?.data)).toEqual(Array.from({ length: 20 }, (_, n) => n));
      expect(ids.map((id) => byId.get(id)?.metadata.tags)).toEqual(Array.from({ length: 20 }, (_, n) => [`${n}`]));
    });

    test('of nothing is nothing', async () => {
      expect(await (await world.bus()).publishBatch([])).toEqual([]);
    });

    test('where some are wrong, the others are published and the error tells of each', async () => {
      const bus = await world.bus();
      const got = await collect(bus, '**');
      const error = await refusal('ERR_INVALID_ARGUMENT', () =>
        bus.publishBatch([
          { eventType: 'a', data: 0 },
          { eventType: 'a*', data: 1 },
          { eventType: 'a', data: 2, options: { ttl: -1 } },
          { eventType: 'a', data: 3n },
          { eventType: 'a', data: 4 },
        ]),
      );
      expect(error.message).toMatch(/3 of 5/);
      const results = error.details?.['results'] as Array<{ id?: string; error?: OSSAError }>;
      expect(results.map((result) => result.error?.code)).toEqual([
        undefined,
        'ERR_INVALID_ARGUMENT',
        'ERR_INVALID_ARGUMENT',
        'ERR_NOT_SERIALIZABLE',
        undefined,
      ]);
      await until(() => got.length === 2);
      expect(got.map((event) => event.metadata.id)).toEqual([results[0].id, results[4].id]);
    });
  });

  describe('later', () => {
    test('delayMs: not before, and what is published after it does not wait for it', async () => {
      const bus = await world.bus();
      const times = new Map<string, number>();
      await bus.subscribe('t', (event) => void times.set(event.data, Date.now()));
      const start = Date.now();
      await bus.publish('t', 'late', { delayMs: 300 });
      await bus.publish('t', 'in an hour', { delayMs: 3_600_000 });
      await bus.publish('t', 'now');
      await until(() => times.has('now') && times.has('late'));
      expect((times.get('late') as number) - start).toBeGreaterThanOrEqual(295);
      expect(times.size).toBe(2);
    });

    test('deliverAt: a time to come, or one that was', async () => {
      const bus = await world.bus();
      const times = new Map<string, number>();
      await bus.subscribe('t', (event) => void times.set(event.data, Date.now()));
      const due = Date.now() + 300;
      await bus.publish('t', 'later', { deliverAt: new Date(due) });
      await bus.publish('t', 'in an hour', { deliverAt: new Date(due + 3_600_000) });
      await bus.publish('t', 'past', { deliverAt: new Date(0) });
      await until(() => times.has('past') && times.has('later'));
      expect(times.get('later')).toBeGreaterThanOrEqual(due - 5);
      expect(times.size).toBe(2);
    });

    test('delayed events come in the order in which they are due', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      await Promise.all([400, 100, 300, 200].map((delayMs) => bus.publish('t', delayMs, { delayMs })));
      await until(() => got.length === 4);
      expect(got.map((event) => event.data)).toEqual([100, 200, 300, 400]);
    });

    test('a delayed event outlives the bus that published it', async () => {
      const reader = await world.bus();
      const got = await collect(reader);
      const writer = await world.bus();
      await writer.publish('t', 'left', { delayMs: 400 });
      await writer.disconnect();
      await until(() => got.length === 1);
    });
  });

  describe('idempotencyKey', () => {
    test('a second publish with it answers the first id and stores nothing', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      const got = await collect(b);
      const first = await a.publish('t', 1, { idempotencyKey: 'order-1' });
      expect(await a.publish('t', 2, { idempotencyKey: 'order-1' })).toBe(first);
      expect(await b.publish('t', 3, { idempotencyKey: 'order-1' })).toBe(first);
      expect(await b.publish('t', 4, { idempotencyKey: 'order-2' })).not.toBe(first);
      await until(() => got.length === 2);
      expect(got.map((event) => event.data)).toEqual([1, 4]);
      expect((await a.getStream('t'))?.stats.messageCount).toBe(2);
    });

    test('at once from two buses: one event, one id', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      const ids = await Promise.all(Array.from({ length: 40 }, (_, n) => (n % 2 ? a : b).publish('t', n, { idempotencyKey: 'k' })));
      expect(new Set(ids).size).toBe(1);
      expect((await a.getStream('t'))?.stats.messageCount).toBe(1);
    });

    test('belongs to its event type', async () => {
      const bus = await world.bus();
      const a = await bus.publish('a', 1, { idempotencyKey: 'k' });
      expect(await bus.publish('b', 1, { idempotencyKey: 'k' })).not.toBe(a);
    });

    test('holds for idempotencyWindowMs', async () => {
      const bus = await world.bus();
      const first = await bus.publish('t', 1, { idempotencyKey: 'k', idempotencyWindowMs: 100 });
      await until(async () => (await bus.publish('t', 2, { idempotencyKey: 'k', idempotencyWindowMs: 100 })) !== first, { everyMs: 30 });
      expect((await bus.getStream('t'))?.stats.messageCount).toBe(2);
    });

    test('counts for delayed events as well', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      const first = await bus.publish('t', 1, { idempotencyKey: 'k', delayMs: 150 });
      expect(await bus.publish('t', 2, { idempotencyKey: 'k', delayMs: 150 })).toBe(first);
      await bus.publish('t', 'end', { delayMs: 300 });
      await until(() => got.some((event) => event.data === 'end'));
      expect(got.map((event) => event.data)).toEqual([1, 'end']);
    });
  });

  describe('ttl', () => {
    test('of the publisher: over before a group got it, it is dropped and announced', async () => {
      const bus = await world.bus();
      const expired: unknown[] = [];
      bus.on('event:expired', (event) => void expired.push(event));
      const got: unknown[] = [];
      const subscription = await bus.subscribe('t', (event) => void got.push(event.data), { group: 'g' });
      await subscription.close();
      const id = await bus.publish('t', 'short', { ttl: 0.05 });
      await bus.publish('t', 'long');
      await pause(100);
      await bus.subscribe('t', (event) => void got.push(event.data), { group: 'g' });
      await until(() => got.length > 0 && expired.length > 0);
      expect(got).toEqual(['long']);
      expect(expired[0]).toMatchObject({ eventType: 't', eventId: id, group: 'g', deadLettered: false });
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test('by default: over before an existing group got it, it is a dead letter', async () => {
      const bus = await world.bus({ defaults: { ttl: 0.05 } });
      const subscription = await bus.subscribe('t', () => undefined, { group: 'g' });
      await subscription.close();
      await bus.publish('t', 'forgotten');
      await pause(100);
      await bus.subscribe('t', () => undefined, { group: 'g' });
      await until(async () => (await bus.deadLetters.count({ eventType: 't' })) === 1);
      const { items } = await bus.deadLetters.list();
      expect(items[0]).toMatchObject({ eventType: 't', group: 'g', reason: 'expired', attempts: 0, event: { data: 'forgotten' } });
    });

    test('0 never expires', async () => {
      const bus = await world.bus({ defaults: { ttl: 0.05 } });
      await bus.publish('t', 'kept', { ttl: 0 });
      await pause(100);
      const got = await collect(bus);
      await until(() => got.length === 1);
      expect(got[0].metadata.ttl).toBe(0);
    });

    test('of a delayed event counts from when it is due', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      // Counted from the publish, the ttl would be over; from when it is due, there is a second left.
      await bus.publish('t', 1, { delayMs: 1200, ttl: 1 });
      await until(() => got.length === 1);
    });
  });

  describe('signal', () => {
    test('aborted before the call: ERR_ABORTED, nothing is published', async () => {
      const bus = await world.bus();
      const reason = new Error('changed my mind');
      const error = await refusal('ERR_ABORTED', () => bus.publish('t', 1, { signal: AbortSignal.abort(reason) }));
      expect(error.cause).toBe(reason);
      expect(await bus.getStream('t')).toBeNull();
    });

    test('aborted right after the call: ERR_ABORTED, and the calls around it are not touched', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      const controller = new AbortController();
      const before = bus.publish('t', 'before');
      const published = bus.publish('t', 'aborted', { signal: controller.signal });
      const after = bus.publish('t', 'after');
      controller.abort();
      await refusal('ERR_ABORTED', () => published);
      await Promise.all([before, after]);
      await until(() => got.length === 2);
      expect(got.map((event) => event.data)).toEqual(['before', 'after']);
    });

    test('aborted after it resolved: nothing changes', async () => {
      const bus = await world.bus();
      const got = await collect(bus);
      const controller = new AbortController();
      await bus.publish('t', 1, { signal: controller.signal });
      controller.abort();
      await until(() => got.length === 1);
    });
  });

  test('more than maxPendingPublishes at once are refused with ERR_BACKPRESSURE, and the rest are published', async () => {
    const bus = await world.bus({ limits: { maxPendingPublishes: 50 } });
    const settled = await Promise.allSettled(Array.from({ length: 200 }, (_, n) => bus.publish('t', n)));
    const refused = settled.flatMap((item) => (item.status === 'rejected' ? [item.reason as OSSAError] : []));
    expect(refused.length).toBe(150);
    for (const error of refused) expect(error).toMatchObject({ code: 'ERR_BACKPRESSURE', retryable: true });
    expect((await bus.getStream('t'))?.stats.messageCount).toBe(50);
    await bus.publish('t', 'again');
  });
});

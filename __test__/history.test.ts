/** replay() and explain(): looking back, without taking anything. */
import type { EventExplanation, EventPayload, RedisEventBus } from '@bluefly/ossa';
import { connectTo } from './support/server';
import { type Gate, gate, until } from './support/wait';
import { quick, redisUrl, refusal, stores, useWorld } from './support/world';

type Query = Parameters<RedisEventBus['replay']>[1];

async function all(bus: RedisEventBus, eventType = 't', query?: Query): Promise<EventPayload[]> {
  const events: EventPayload[] = [];
  for await (const event of bus.replay(eventType, query)) events.push(event);
  return events;
}

const dataOf = (events: EventPayload[]) => events.map((event) => event.data);
const firstOf = (bus: RedisEventBus, eventType: unknown, query?: unknown) =>
  bus
    .replay(eventType as string, query as Query)
    [Symbol.asyncIterator]()
    .next();
const batch = (count: number, eventType = 't', from = 0) => Array.from({ length: count }, (_, n) => ({ eventType, data: from + n }));

describe.each(stores)('replay on %s', (kind) => {
  const world = useWorld(kind);

  test('every event in the order of publishing, as often as it is asked for', async () => {
    const bus = await world.bus();
    await bus.publishBatch(batch(2500));
    const replay = bus.replay('t');
    for (let times = 0; times < 2; times++) {
      let next = 0;
      for await (const event of replay) expect(event.data).toBe(next++);
      expect(next).toBe(2500);
    }
  });

  test('an event comes with its metadata; attempt is 0, as it is no delivery', async () => {
    const bus = await world.bus();
    const id = await bus.publish('t', { k: [1] }, { tags: ['x'], correlationId: 'c', headers: { h: '1' } });
    const [event] = await all(bus);
    expect(event.data).toEqual({ k: [1] });
    expect(event.metadata).toMatchObject({ id, type: 't', tags: ['x'], correlationId: 'c', headers: { h: '1' }, attempt: 0 });
    expect(event.metadata.timestamp).toBeInstanceOf(Date);
  });

  test('nothing is consumed: a group gets what was replayed, and what it settled is still there', async () => {
    const bus = await world.bus();
    await bus.publishBatch(batch(20));
    expect((await all(bus)).length).toBe(20);
    expect((await bus.getStream('t'))?.stats.consumerGroups).toBe(0);
    const got: unknown[] = [];
    await bus.subscribe('t', ({ data }) => void got.push(data), { group: 'g' });
    await until(() => got.length === 20);
    expect((await all(bus)).length).toBe(20);
  });

  test('from and to are times of the entries, both included', async () => {
    const bus = await world.bus();
    const times: Date[] = [];
    for (let n = 0; n < 3; n++) {
      await bus.publish('t', n);
      const last = (await bus.getStream('t'))?.stats.lastMessage as Date;
      times.push(last);
      await until(() => Date.now() > last.getTime() + 5, { everyMs: 1 });
    }
    expect(dataOf(await all(bus, 't', { from: times[1] }))).toEqual([1, 2]);
    expect(dataOf(await all(bus, 't', { to: times[1] }))).toEqual([0, 1]);
    expect(dataOf(await all(bus, 't', { from: times[1], to: times[1] }))).toEqual([1]);
    expect(dataOf(await all(bus, 't', { from: new Date(times[2].getTime() + 1) }))).toEqual([]);
    expect(dataOf(await all(bus, 't', { to: new Date(times[0].getTime() - 1) }))).toEqual([]);
    expect(dataOf(await all(bus, 't', { from: new Date(-1e12), to: new Date(8.64e15) }))).toEqual([0, 1, 2]);
  });

  test.each([1, 2, 16, 17, 99, 100, 101, 1000])('limit %d', async (limit) => {
    const bus = await world.bus();
    await bus.publishBatch(batch(100));
    expect(dataOf(await all(bus, 't', { limit }))).toEqual(Array.from({ length: Math.min(limit, 100) }, (_, n) => n));
  });

  test('a type never published has no events, and none is made', async () => {
    const bus = await world.bus();
    expect(await all(bus)).toEqual([]);
    expect(await bus.getStream('t')).toBeNull();
  });

  test('a loop that is left asks for no more, and what is open does not hold up disconnect()', async () => {
    const bus = await world.bus();
    await bus.publishBatch(batch(5000));
    let seen = 0;
    for await (const _ of bus.replay('t')) if (++seen === 3) break;
    const left = bus.replay('t')[Symbol.asyncIterator]();
    await left.next();
    expect(await left.return?.()).toEqual({ done: true, value: undefined });
    expect(await left.next()).toEqual({ done: true, value: undefined });
    const open = bus.replay('t')[Symbol.asyncIterator]();
    expect((await open.next()).value?.data).toBe(0);
    await bus.disconnect();
    await refusal('ERR_CLOSED', () => open.next());
    expect(await open.next()).toEqual({ done: true, value: undefined });
  });

  test('a next() on its way while the bus is closed is answered', async () => {
    const bus = await world.bus();
    await bus.publishBatch(batch(50));
    const asked = bus.replay('t')[Symbol.asyncIterator]().next();
    const outcome = asked.then(
      ({ value }) => value?.data,
      (error) => error.code,
    );
    await bus.disconnect();
    expect([0, 'ERR_CLOSED']).toContain(await outcome);
  });

  test('what is published while it runs does not keep it from ending', async () => {
    const bus = await world.bus();
    await bus.publishBatch(batch(100));
    let seen = 0;
    for await (const _ of bus.replay('t')) {
      seen++;
      await bus.publish('t', 'later');
    }
    expect(seen).toBe(100);
  });

  test('large events come in small pages', async () => {
    const bus = await world.bus();
    const large = 'x'.repeat(400_000);
    await bus.publishBatch(Array.from({ length: 40 }, (_, n) => ({ eventType: 't', data: { n, large: n % 3 === 0 ? large : '' } })));
    const events = await all(bus);
    expect(events.map((event) => event.data.n)).toEqual(Array.from({ length: 40 }, (_, n) => n));
    expect(events[39].data.large.length).toBe(large.length);
  });

  test('a redriven event comes once', async () => {
    const bus = await world.bus();
    let fails = true;
    let handled = 0;
    await bus.subscribe(
      't',
      () => {
        if (fails) throw new Error('no');
        handled++;
      },
      { group: 'g', errorStrategy: 'dlq' },
    );
    await bus.publishBatch(batch(3));
    await until(async () => (await bus.deadLetters.count()) === 3);
    fails = false;
    expect(await bus.deadLetters.redrive({ eventType: 't' })).toBe(3);
    await until(() => handled === 3);
    expect((await bus.getStream('t'))?.stats.messageCount).toBe(6);
    expect(dataOf(await all(bus))).toEqual([0, 1, 2]);
    expect(dataOf(await all(bus, 't', { limit: 2 }))).toEqual([0, 1]);
  });

  describe('is refused', () => {
    const wrong: Array<[string, unknown, unknown, string]> = [
      ['no type', undefined, undefined, 'eventType'],
      ['a number as type', 5, undefined, 'eventType'],
      ['a pattern', 'a.*', undefined, 'eventType'],
      ['another pattern', '**', undefined, 'eventType'],
      ['an empty type', '', undefined, 'eventType'],
      ['a query that is none', 't', 5, 'query'],
      ['a list as query', 't', [], 'query'],
      ['an unknown key', 't', { form: new Date() }, 'form'],
      ['a number as from', 't', { from: 5 }, 'from'],
      ['null as from', 't', { from: null }, 'from'],
      ['a text as to', 't', { to: '2020-01-01' }, 'to'],
      ['a Date that is none', 't', { to: new Date(Number.NaN) }, 'to'],
      ['from after to', 't', { from: new Date(2), to: new Date(1) }, 'from'],
      ...[0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '1', null, 1n, {}].map((limit): [string, unknown, unknown, string] => [
        `limit ${String(limit)}`,
        't',
        { limit },
        'limit',
      ]),
    ];
    test.each(wrong)('%s', async (_, eventType, query, argument) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => firstOf(bus, eventType, query));
      expect(error.details).toMatchObject({ argument });
    });

    test('before connect() and after disconnect(), by the first next()', async () => {
      const bus = world.make();
      const early = bus.replay('t')[Symbol.asyncIterator]();
      await refusal('ERR_NOT_INITIALIZED', () => early.next());
      await bus.connect();
      await bus.disconnect();
      await refusal('ERR_CLOSED', () => firstOf(bus, 't'));
    });
  });
});

describe('replay over what other programs wrote', () => {
  const world = useWorld('redis');

  test('their entries are left out, with a line in the log', async () => {
    const bus = await world.bus({ logLevel: 'debug' });
    const client = connectTo(redisUrl());
    try {
      await bus.publishBatch(batch(2));
      const [stream] = (await client.keys(`${world.prefix}:*stream:t:0`)) as [string];
      const [[, fields]] = (await client.xrange(stream, '-', '+', 'COUNT', 1)) as [[string, string[]]];
      await client.xadd(stream, '*', 'a', 'b');
      await client.xadd(stream, '*', 'meta', '{"v":99}', 'data', '1');
      await client.xadd(stream, '*', ...fields.map((field) => (field === '0' ? '{not JSON' : field)));
      await bus.publish('t', 2);
      expect(dataOf(await all(bus))).toEqual([0, 1, 2]);
      expect(dataOf(await all(bus, 't', { limit: 3 }))).toEqual([0, 1, 2]);
      const lines = world.logs.filter((line) => line.startsWith('debug replay of'));
      expect(lines.some((line) => line.includes('left out 2 entries'))).toBe(true);
      expect(lines.some((line) => line.includes('left out an entry') && line.includes('JSON'))).toBe(true);
    } finally {
      client.disconnect();
    }
  });
});

describe.each(stores)('explain on %s', (kind) => {
  const world = useWorld(kind);

  const groupOf = (told: EventExplanation | null, name = 'g') => told?.groups.find((group) => group.name === name);

  /** A group whose handler does as `handler` says; its first delivery is under way when this resolves. */
  async function group(bus: RedisEventBus, handler: () => unknown, options: object = {}, name = 'g'): Promise<void> {
    await bus.subscribe('t', handler, { group: name, ...options });
  }

  /** A group that exists, with no one reading: its bus is gone, so no read of it is on its way. */
  async function idleGroup(name = 'g'): Promise<void> {
    const other = await world.bus();
    await other.subscribe('t', () => undefined, { group: name });
    await other.disconnect();
  }

  test('stored, for no group', async () => {
    const bus = await world.bus();
    const id = await bus.publish('t', { n: 1 }, { tags: ['x'] });
    const told = await bus.explain('t', id);
    expect(told).toMatchObject({
      state: 'stored',
      groups: [],
      event: { data: { n: 1 }, metadata: { id, type: 't', tags: ['x'], attempt: 0 } },
    });
    expect(told?.streamId).toMatch(/^\d+-\d+$/);
    expect(told?.event.metadata.timestamp).toBeInstanceOf(Date);
    expect(await bus.explain('t', id.toUpperCase())).toEqual(told);
  });

  test('not delivered', async () => {
    const bus = await world.bus();
    await idleGroup();
    const id = await bus.publish('t', 1);
    const told = await bus.explain('t', id);
    expect(told?.state).toBe('stored');
    expect(told?.groups).toEqual([{ name: 'g', state: 'not-delivered', attempts: 0 }]);
  });

  test('held, then acknowledged', async () => {
    const bus = await world.bus();
    const started = gate();
    const done: Gate = gate();
    const subscription = await bus.subscribe(
      't',
      async () => {
        started.open();
        await done.opened;
      },
      { group: 'g' },
    );
    const id = await bus.publish('t', 1);
    await started.opened;
    expect(groupOf(await bus.explain('t', id))).toEqual({ name: 'g', state: 'held', consumer: subscription.consumer, attempts: 1 });
    done.open();
    const told = await until(async () => {
      const now = await bus.explain('t', id);
      return groupOf(now)?.state === 'acknowledged' ? now : undefined;
    });
    expect(told).toMatchObject({ state: 'stored', groups: [{ name: 'g', attempts: 0 }] });
  });

  test('waiting for its retry', async () => {
    const bus = await world.bus();
    await group(
      bus,
      () => {
        throw new Error('too bad');
      },
      { retry: quick(3, 60_000) },
    );
    const before = Date.now();
    const id = await bus.publish('t', 1);
    const told = await until(async () => {
      const found = groupOf(await bus.explain('t', id));
      return found?.state === 'retry-due' ? found : undefined;
    });
    expect(told).toMatchObject({ name: 'g', attempts: 1, lastError: 'too bad' });
    expect(told?.consumer).toBeUndefined();
    expect(told?.nextRetryAt).toBeInstanceOf(Date);
    expect(Math.abs(Number(told?.nextRetryAt) - before - 60_000)).toBeLessThan(15_000);
  });

  test('dead-lettered for one group, acknowledged by the other; redriven and delivered again', async () => {
    const bus = await world.bus();
    const done = gate();
    const started = gate();
    let calls = 0;
    await group(
      bus,
      async () => {
        if (++calls <= 2) throw new Error('too bad');
        started.open();
        await done.opened;
      },
      { retry: quick(1) },
    );
    let others = 0;
    await group(bus, () => void others++, {}, 'h');
    const id = await bus.publish('t', 1);
    await until(async () => (await bus.deadLetters.count()) === 1);
    await until(async () => groupOf(await bus.explain('t', id), 'h')?.state === 'acknowledged');
    const dead = await bus.explain('t', id);
    expect(dead).toMatchObject({
      state: 'stored',
      groups: [
        { name: 'g', state: 'dead-lettered', attempts: 2, lastError: 'too bad' },
        { name: 'h', state: 'acknowledged', attempts: 0 },
      ],
    });
    expect(await bus.deadLetters.redrive({ eventType: 't' })).toBe(1);
    await started.opened;
    const again = await bus.explain('t', id);
    expect(again?.streamId).toBe(dead?.streamId);
    expect(groupOf(again)).toMatchObject({ state: 'held', attempts: 1 });
    expect(groupOf(again, 'h')).toMatchObject({ state: 'acknowledged' });
    done.open();
    await until(async () => groupOf(await bus.explain('t', id))?.state === 'acknowledged');
    expect(others).toBe(1);
  });

  test('redriven while nobody reads: not delivered, for that group', async () => {
    const [bus, other] = [await world.bus(), await world.bus()];
    await other.subscribe(
      't',
      () => {
        throw new Error('no');
      },
      { group: 'g', errorStrategy: 'dlq' },
    );
    const id = await bus.publish('t', 1);
    await until(async () => (await bus.deadLetters.count()) === 1);
    await other.disconnect();
    await bus.deadLetters.redrive({ group: 'g' });
    expect(groupOf(await bus.explain('t', id))).toEqual({ name: 'g', state: 'not-delivered', attempts: 0 });
  });

  test('delayed, then stored', async () => {
    const bus = await world.bus();
    await idleGroup();
    const late = await bus.publish('t', 'late', { delayMs: 600_000 });
    const told = await bus.explain('t', late);
    expect(told).toMatchObject({ state: 'delayed', event: { data: 'late', metadata: { id: late } } });
    expect(told?.groups).toEqual([{ name: 'g', state: 'not-delivered', attempts: 0 }]);
    expect(told?.streamId).toBeUndefined();
    const soon = await bus.publish('t', 'soon', { delayMs: 20 });
    const moved = await until(async () => {
      const now = await bus.explain('t', soon);
      return now?.state === 'stored' ? now : undefined;
    });
    expect(moved).toMatchObject({ event: { data: 'soon' }, groups: [{ name: 'g', state: 'not-delivered' }] });
  });

  test('expired: its default ttl was over before the group got it', async () => {
    const bus = await world.bus({ defaults: { ttl: 0.05 } });
    await idleGroup();
    const id = await bus.publish('t', 1);
    await until(async () => (await bus.explain('t', id))?.state === 'expired');
    await until(async () => (await bus.deadLetters.count()) === 1, { timeoutMs: 25_000 });
    const told = await bus.explain('t', id);
    expect(told?.state).toBe('expired');
    expect(groupOf(told)).toMatchObject({ state: 'dead-lettered', attempts: 0 });
    expect(groupOf(told)?.lastError).toContain('ttl');
  });

  test('expired: in the stream, with no group or one that never got it, by a ttl of its own', async () => {
    const bus = await world.bus();
    // Upkeep may be first to come by, and remove it: then with the next.
    const expires = async () => {
      const id = await bus.publish('t', 1, { ttl: 0.02 });
      const told = await until(async () => {
        const now = await bus.explain('t', id);
        return now?.state === 'stored' ? undefined : { now };
      });
      return told?.now?.state === 'expired' ? told.now : undefined;
    };
    expect((await until(expires))?.groups).toEqual([]);
    await idleGroup();
    expect((await until(expires))?.groups).toMatchObject([{ name: 'g', attempts: 0 }]);
  });

  test('trimmed: gone from the stream, but a dead letter has it', async () => {
    const bus = await world.bus({ limits: { keepAcknowledged: 0 } });
    await group(
      bus,
      () => {
        throw new Error('no');
      },
      { errorStrategy: 'dlq' },
    );
    const id = await bus.publish('t', { n: 1 });
    const told = await until(
      async () => {
        const now = await bus.explain('t', id);
        return now?.state === 'trimmed' ? now : undefined;
      },
      { timeoutMs: 25_000 },
    );
    expect(told).toEqual({
      event: expect.objectContaining({ data: { n: 1 }, metadata: expect.objectContaining({ id, attempt: 0 }) }),
      state: 'trimmed',
      groups: [{ name: 'g', state: 'dead-lettered', attempts: 1, lastError: 'no' }],
    });
  });

  test('among many others', async () => {
    const bus = await world.bus();
    const ids = await bus.publishBatch(batch(5000));
    for (const n of [0, 1, 2500, 4999]) expect((await bus.explain('t', ids[n]))?.event.data).toBe(n);
  });

  test('what is not there is null: another type, an id of nobody, a trimmed event', async () => {
    const bus = await world.bus();
    const id = await bus.publish('t', 1);
    expect(await bus.explain('other', id)).toBeNull();
    const last = id.endsWith('0') ? '1' : '0';
    expect(await bus.explain('t', id.slice(0, -1) + last)).toBeNull();
    expect(await bus.explain('t', '018bcfe5-6800-7000-8000-000000000000')).toBeNull();
  });

  const wrong: Array<[string, unknown, unknown, string]> = [
    ['no type', undefined, '018bcfe5-6800-7000-8000-000000000000', 'eventType'],
    ['a pattern', 'a.*', '018bcfe5-6800-7000-8000-000000000000', 'eventType'],
    ['no id', 't', undefined, 'eventId'],
    ['a number', 't', 5, 'eventId'],
    ['an empty text', 't', '', 'eventId'],
    ['a stream id', 't', '1700000000000-0', 'eventId'],
    ['a UUIDv4', 't', '018bcfe5-6800-4000-8000-000000000000', 'eventId'],
    ['not only hex', 't', '018bcfe5-6800-7000-8000-00000000000g', 'eventId'],
    ['a lone surrogate', 't', '018bcfe5-6800-7000-8000-00000000000\ud800', 'eventId'],
  ];
  test.each(wrong)('is refused: %s', async (_, eventType, eventId, argument) => {
    const bus = await world.bus();
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.explain(eventType as string, eventId as string));
    expect(error.details).toMatchObject({ argument });
  });

  test('is refused before connect() and after disconnect()', async () => {
    const bus = world.make();
    await refusal('ERR_NOT_INITIALIZED', () => bus.explain('t', 'x'));
    await bus.connect();
    await bus.disconnect();
    await refusal('ERR_CLOSED', () => bus.explain('t', 'x'));
  });
});

/** What becomes of deliveries: retries, dead letters, nack, timeouts, several handlers. */
import type { DeadLetter, DeliveryContext, RedisEventBus, SubscriptionOptions } from '@bluefly/ossa';
import { gate, pause, until } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  const pendingOf = async (bus: RedisEventBus, group = 'g', eventType = 't') =>
    (await bus.getStream(eventType))?.stats.groups.find((found) => found.name === group)?.pending;

  /** The dead letters, once there are `count`. */
  async function letters(bus: RedisEventBus, count = 1): Promise<DeadLetter[]> {
    await until(async () => (await bus.deadLetters.count()) >= count);
    const { items } = await bus.deadLetters.list();
    expect(items.length).toBe(count);
    return items;
  }

  /** A handler that fails as often as said, and what it saw. */
  async function failing(bus: RedisEventBus, times: number, options: SubscriptionOptions = {}) {
    const calls: Array<{ at: number; attempt: number; redelivered: boolean; context: number }> = [];
    await bus.subscribe(
      't',
      (event, context) => {
        calls.push({ at: Date.now(), attempt: event.metadata.attempt, redelivered: context.redelivered, context: context.attempt });
        if (calls.length <= times) throw new Error(`failure ${calls.length}`);
      },
      { group: 'g', ...options },
    );
    return calls;
  }

  describe('retry', () => {
    test('a failed delivery comes again, as another attempt of the same event', async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 2, { retry: quick(5) });
      await bus.publish('t', 1);
      await until(() => calls.length === 3);
      expect(calls.map((call) => call.attempt)).toEqual([1, 2, 3]);
      expect(calls.map((call) => call.context)).toEqual([1, 2, 3]);
      expect(calls.map((call) => call.redelivered)).toEqual([false, true, true]);
      await until(async () => (await pendingOf(bus)) === 0);
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test('backs off: delays grow by the multiplier up to maxDelay', async () => {
      const bus = await world.bus();
      const delays: number[] = [];
      bus.on('event:retried', ({ delayMs }) => void delays.push(delayMs));
      const calls = await failing(bus, 4, {
        retry: { maxAttempts: 4, initialDelay: 50, backoffMultiplier: 3, maxDelay: 300, jitter: 'none' },
      });
      await bus.publish('t', 1);
      await until(() => calls.length === 5 && delays.length === 4);
      expect(delays).toEqual([50, 150, 300, 300]);
      const gaps = calls.slice(1).map((call, i) => call.at - calls[i].at);
      for (const [i, wanted] of delays.entries()) expect(gaps[i]).toBeGreaterThanOrEqual(wanted - 5);
    });

    test("'equal' jitter keeps at least half of the delay", async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 1, { retry: { initialDelay: 200, jitter: 'equal' } });
      await bus.publish('t', 1);
      await until(() => calls.length === 2);
      expect(calls[1].at - calls[0].at).toBeGreaterThanOrEqual(95);
    });

    test('after the last attempt it is a dead letter that tells all', async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 9, { retry: quick(2) });
      const before = Date.now();
      const id = await bus.publish('t', { k: 1 }, { tags: ['x'], correlationId: 'c' });
      const [letter] = await letters(bus);
      expect(calls.length).toBe(3);
      expect(letter).toMatchObject({
        eventType: 't',
        group: 'g',
        reason: 'max-attempts',
        error: 'failure 3',
        attempts: 3,
        event: { metadata: { id, type: 't', tags: ['x'], correlationId: 'c' }, data: { k: 1 } },
      });
      expect(letter.id).toEqual(expect.any(String));
      expect(letter.failedAt).toBeInstanceOf(Date);
      expect(letter.failedAt.getTime()).toBeGreaterThanOrEqual(before - 1000);
      expect(letter.event.metadata.timestamp).toBeInstanceOf(Date);
      await until(async () => (await pendingOf(bus)) === 0);
    });

    test('maxAttempts 0 never retries', async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 9, { retry: { maxAttempts: 0 } });
      await bus.publish('t', 1);
      expect((await letters(bus))[0]).toMatchObject({ reason: 'max-attempts', attempts: 1 });
      expect(calls.length).toBe(1);
    });

    test('settings: publish over subscription over defaults, key by key', async () => {
      const bus = await world.bus({ defaults: { retry: quick(1) } });
      const calls = await failing(bus, 99);
      await bus.publish('t', 'defaults');
      await letters(bus, 1);
      expect(calls.length).toBe(2);
      await bus.publish('t', 'publish', { retry: { maxAttempts: 3 } });
      await letters(bus, 2);
      expect(calls.length).toBe(2 + 4);
      await bus.subscribe(
        'u',
        () => {
          calls.push(calls[0]);
          throw new Error('u');
        },
        { group: 'g', retry: { maxAttempts: 2 } },
      );
      await bus.publish('u', 'subscription');
      await letters(bus, 3);
      expect(calls.length).toBe(6 + 3);
    });

    test('one group that fails does not concern the others', async () => {
      const bus = await world.bus();
      await failing(bus, 99, { group: 'bad', retry: quick(2) });
      const calls: unknown[] = [];
      await bus.subscribe('t', (event) => void calls.push(event.metadata.attempt), { group: 'good' });
      await bus.publish('t', 1);
      expect((await letters(bus))[0].group).toBe('bad');
      await until(async () => calls.length > 0 && (await pendingOf(bus, 'good')) === 0);
      expect(calls).toEqual([1]);
    });

    test('a waiting retry takes no place: others are handled meanwhile', async () => {
      const bus = await world.bus();
      const got: unknown[] = [];
      await bus.subscribe(
        't',
        (event) => {
          if (event.data === 'bad' && event.metadata.attempt === 1) throw new Error('once');
          got.push(event.data);
        },
        { group: 'g', maxUnacknowledged: 1, retry: quick(1, 3_600_000) },
      );
      await bus.publish('t', 'bad');
      for (let n = 0; n < 20; n++) await bus.publish('t', n);
      await until(() => got.length >= 20);
      expect(got).toEqual(Array.from({ length: 20 }, (_, n) => n));
      // It still waits.
      await until(async () => (await pendingOf(bus)) === 1);
    });

    test('retries outlive their bus: another one takes them over', async () => {
      const first = await world.bus();
      const calls = await failing(first, 99, { retry: quick(9, 150) });
      await first.publish('t', 1);
      await until(() => first.getMetrics().eventsFailed >= 1);
      const second = await world.bus();
      await first.disconnect();
      const attempts: number[] = [];
      await second.subscribe('t', (event) => void attempts.push(event.metadata.attempt), { group: 'g', retry: quick(9, 150) });
      await until(() => attempts.length === 1);
      // On a slow machine the first bus may have tried more than once.
      expect(attempts).toEqual([calls.length + 1]);
    });

    test.each<[string, unknown, string | RegExp]>([
      ['an Error', new Error('an error'), 'an error'],
      ['a string', 'a string', 'a string'],
      ['undefined', undefined, 'undefined'],
      ['null', null, 'null'],
      ['a number', 42, '42'],
      ['a symbol', Symbol('mine'), /mine/],
      ['an object without a prototype', Object.create(null), /.+/],
      ['an object whose message throws', { get message() { throw new Error('inner'); } }, /.+/], // biome-ignore format: one line a case
      ['a revoked proxy', revoked(), /.+/],
      ['a text with lone surrogates', 'a\ud800b', /^a.b$/],
      ['an error with a very long message', new Error('x'.repeat(100_000)), /^x+…$/],
    ])('a handler that throws %s has failed', async (_, thrown, expected) => {
      const bus = await world.bus();
      const throwing = [
        () => {
          throw thrown;
        },
        () => Promise.reject(thrown),
      ];
      for (const handler of throwing) await bus.subscribe(`t.${throwing.indexOf(handler)}`, handler, { errorStrategy: 'dlq' });
      await bus.publish('t.0', 1);
      await bus.publish('t.1', 1);
      for (const letter of await letters(bus, 2))
        expect(letter.error).toEqual(typeof expected === 'string' ? expected : expect.stringMatching(expected));
    });
  });

  describe('errorStrategy', () => {
    test("'dlq': a dead letter at once", async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 9, { errorStrategy: 'dlq' });
      await bus.publish('t', 1);
      expect((await letters(bus))[0]).toMatchObject({ reason: 'handler', error: 'failure 1', attempts: 1 });
      expect(calls.length).toBe(1);
    });

    test("'ignore': it counts as done", async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 9, { errorStrategy: 'ignore', retry: quick(5) });
      await bus.publish('t', 1);
      await until(async () => calls.length === 1 && (await pendingOf(bus)) === 0);
      await bus.publish('t', 2);
      await until(() => calls.length === 2);
      expect(calls.map((call) => call.attempt)).toEqual([1, 1]);
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test("'ignore' never redelivers, whatever the handler says by nack", async () => {
      const bus = await world.bus();
      let calls = 0;
      await bus.subscribe(
        't',
        async (_, context) => {
          calls++;
          await context.nack({ delayMs: 0 });
        },
        { group: 'g', errorStrategy: 'ignore' },
      );
      await bus.publish('t', 1);
      await until(async () => calls === 1 && (await pendingOf(bus)) === 0);
      await pause(100);
      expect(calls).toBe(1);
    });

    test('without a dead letter queue what would go there is dropped and said', async () => {
      const bus = await world.bus({ deadLetterQueue: { enabled: false } });
      await failing(bus, 9, { errorStrategy: 'dlq' });
      await bus.publish('t', 1);
      await until(() => world.logs.some((line) => /deadLetterQueue.enabled/.test(line)));
      await until(async () => (await pendingOf(bus)) === 0);
      expect(await bus.deadLetters.count()).toBe(0);
    });
  });

  describe('nack', () => {
    test('with delayMs: not before that', async () => {
      const bus = await world.bus();
      const times: number[] = [];
      await bus.subscribe(
        't',
        async (_, context) => {
          times.push(Date.now());
          if (times.length === 1) await context.nack({ delayMs: 200 });
        },
        { group: 'g', retry: quick(3) },
      );
      await bus.publish('t', 1);
      await until(() => times.length === 2);
      expect(times[1] - times[0]).toBeGreaterThanOrEqual(195);
    });

    test('with deadLetter and reason: at once, with that reason as its error', async () => {
      const bus = await world.bus();
      let calls = 0;
      await bus.subscribe(
        't',
        (_, context) => {
          calls++;
          return context.nack({ deadLetter: true, reason: 'not for us' });
        },
        { group: 'g' },
      );
      await bus.publish('t', 1);
      expect((await letters(bus))[0]).toMatchObject({ reason: 'handler', error: 'not for us', attempts: 1 });
      expect(calls).toBe(1);
    });

    test('counts as an attempt, and the last one is a dead letter', async () => {
      const bus = await world.bus();
      let calls = 0;
      await bus.subscribe(
        't',
        (_, context) => {
          calls++;
          return context.nack({ delayMs: 0 });
        },
        { group: 'g', retry: quick(2) },
      );
      await bus.publish('t', 1);
      expect((await letters(bus))[0]).toMatchObject({ reason: 'max-attempts', attempts: 3 });
      expect(calls).toBe(3);
    });

    test('resolves once it is stored; a second one is the same, an ack after it is refused', async () => {
      const bus = await world.bus();
      let checked = false;
      await bus.subscribe(
        't',
        async (_, context) => {
          await Promise.all([context.nack({ deadLetter: true }), context.nack()]);
          expect(await bus.deadLetters.count()).toBe(1);
          await refusal('ERR_INVALID_ARGUMENT', () => context.ack());
          checked = true;
        },
        { group: 'g' },
      );
      await bus.publish('t', 1);
      await until(() => checked);
    });

    test("overrides errorStrategy 'dlq'", async () => {
      const bus = await world.bus();
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (event, context) => {
          attempts.push(event.metadata.attempt);
          if (attempts.length === 1) await context.nack({ delayMs: 10 });
        },
        { group: 'g', errorStrategy: 'dlq' },
      );
      await bus.publish('t', 1);
      await until(() => attempts.length === 2);
      expect(attempts).toEqual([1, 2]);
    });
  });

  describe('consumerTimeout', () => {
    test('a handler past it has failed, is told by its signal, and another takes its place', async () => {
      const bus = await world.bus();
      const seen: Array<{ data: unknown; attempt: number; context: DeliveryContext }> = [];
      const { opened, open } = gate();
      await bus.subscribe(
        't',
        async (event, context) => {
          seen.push({ data: event.data, attempt: event.metadata.attempt, context });
          if (event.data === 'hangs' && event.metadata.attempt === 1) await opened;
        },
        { group: 'g', concurrency: 1, maxUnacknowledged: 1, consumerTimeout: 80, retry: quick(3, 1000) },
      );
      await bus.publish('t', 'hangs');
      await bus.publish('t', 'behind it');
      await until(() => seen.length === 3, { show: () => seen });
      expect(seen.map(({ data, attempt }) => [data, attempt])).toEqual([
        ['hangs', 1],
        ['behind it', 1],
        ['hangs', 2],
      ]);
      expect(seen[0].context.signal.aborted).toBe(true);
      expect(seen[0].context.signal.reason).toMatchObject({ code: 'ERR_HANDLER_TIMEOUT' });
      open();
    });

    test('the dead letter says that it was the timeout', async () => {
      const bus = await world.bus();
      await bus.subscribe('t', () => new Promise(() => undefined), { group: 'g', consumerTimeout: 50, retry: quick(1) });
      await bus.publish('t', 1);
      const [letter] = await letters(bus);
      expect(letter).toMatchObject({ reason: 'max-attempts', attempts: 2 });
      expect(letter.error).toMatch(/consumerTimeout \(50 ms\)/);
    });

    test('a late success still acknowledges, and the retry does not come', async () => {
      const bus = await world.bus();
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (event) => {
          attempts.push(event.metadata.attempt);
          await pause(200);
        },
        { group: 'g', consumerTimeout: 50, retry: quick(3, 2000) },
      );
      await bus.publish('t', 1);
      await until(async () => attempts.length === 1 && (await pendingOf(bus)) === 0);
      await pause(2100);
      expect(attempts).toEqual([1]);
    });

    test('extend() gives more time, as often as it is asked for', async () => {
      const bus = await world.bus();
      const seen: Array<[number, boolean]> = [];
      await bus.subscribe(
        't',
        async (event, context) => {
          // Six times 250 ms is more than any one extension gives.
          for (let n = 0; n < 6; n++) {
            context.extend(1000);
            await pause(250);
          }
          seen.push([event.metadata.attempt, context.signal.aborted]);
        },
        { group: 'g', consumerTimeout: 300, retry: quick(3) },
      );
      await bus.publish('t', 1);
      await until(() => seen.length === 1);
      expect(seen).toEqual([[1, false]]);
      await until(async () => (await pendingOf(bus)) === 0);
    });

    test('the time starts when the handler is called, not when the event was taken', async () => {
      const bus = await world.bus();
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (event) => {
          attempts.push(event.metadata.attempt);
          await pause(150);
        },
        { group: 'g', concurrency: 1, maxUnacknowledged: 10, consumerTimeout: 1000, retry: quick(3) },
      );
      for (let n = 0; n < 8; n++) await bus.publish('t', n);
      await until(async () => attempts.length >= 8 && (await pendingOf(bus)) === 0);
      expect(attempts).toEqual(Array(8).fill(1));
    });

    test('handlers that never end do not keep disconnect', async () => {
      const bus = await world.bus();
      let calls = 0;
      await bus.subscribe(
        't',
        () => {
          calls++;
          return new Promise(() => undefined);
        },
        { group: 'g', consumerTimeout: 50, errorStrategy: 'dlq' },
      );
      await bus.publish('t', 1);
      await until(async () => calls === 1 && (await bus.deadLetters.count()) === 1);
      const start = Date.now();
      await bus.disconnect();
      // Not the ten seconds that handlers have which still count.
      expect(Date.now() - start).toBeLessThan(9000);
    });
  });

  describe('several handlers of one group on one bus', () => {
    test('are called by priority, highest first', async () => {
      const bus = await world.bus();
      const calls: string[] = [];
      for (const [name, priority] of [
        ['low', -1],
        ['none', undefined],
        ['high', 10],
        ['higher', 11],
      ] as const) {
        await bus.subscribe('t', () => void calls.push(name), { group: 'g', priority });
      }
      await bus.publish('t', 1);
      await until(() => calls.length === 4);
      expect(calls).toEqual(['higher', 'high', 'none', 'low']);
    });

    test('a retry calls only those that failed', async () => {
      const bus = await world.bus();
      const calls: string[] = [];
      const fails = new Map([['a', 0], ['b', 2], ['c', 1]]); // biome-ignore format: one line
      for (const name of fails.keys()) {
        await bus.subscribe(
          't',
          (event) => {
            calls.push(`${name}${event.metadata.attempt}`);
            if (event.metadata.attempt <= (fails.get(name) as number)) throw new Error(name);
          },
          { group: 'g', retry: quick(5) },
        );
      }
      await bus.publish('t', 1);
      await until(async () => calls.length >= 6 && (await pendingOf(bus)) === 0);
      expect([...calls].sort()).toEqual(['a1', 'b1', 'b2', 'b3', 'c1', 'c2']);
    });

    test('the delivery succeeds when all have', async () => {
      const bus = await world.bus();
      const { opened, open } = gate();
      let calls = 0;
      await bus.subscribe('t', () => void calls++, { group: 'g' });
      await bus.subscribe(
        't',
        () => {
          calls++;
          return opened;
        },
        { group: 'g' },
      );
      await bus.publish('t', 1);
      await until(() => calls === 2);
      expect(await pendingOf(bus)).toBe(1);
      open();
      await until(async () => (await pendingOf(bus)) === 0);
    });

    test('one dead letter for the event, when the last of them gives up', async () => {
      const bus = await world.bus();
      const throwing = (name: string) => () => {
        throw new Error(name);
      };
      await bus.subscribe('t', throwing('a'), { group: 'g', retry: quick(1) });
      await bus.subscribe('t', throwing('b'), { group: 'g', retry: quick(1) });
      await bus.publish('t', 1);
      expect((await letters(bus))[0].attempts).toBe(2);
    });
  });

  describe('dead letters', () => {
    /** `count` dead letters of each type and group. */
    async function make(bus: RedisEventBus, types: string[], groups: string[], count: number) {
      for (const group of groups) {
        for (const type of types) {
          await bus.subscribe(
            type,
            () => {
              throw new Error('no');
            },
            { group, errorStrategy: 'dlq' },
          );
        }
      }
      for (const type of types) for (let n = 0; n < count; n++) await bus.publish(type, n);
      await until(async () => (await bus.deadLetters.count()) === types.length * groups.length * count);
      for (const type of types) await bus.unsubscribe(type);
    }

    test('list and count by type, group and time', async () => {
      const bus = await world.bus();
      await make(bus, ['a', 'b'], ['g', 'h'], 3);
      expect(await bus.deadLetters.count()).toBe(12);
      expect(await bus.deadLetters.count({ eventType: 'a' })).toBe(6);
      expect(await bus.deadLetters.count({ group: 'h' })).toBe(6);
      expect(await bus.deadLetters.count({ eventType: 'a', group: 'h' })).toBe(3);
      expect(await bus.deadLetters.count({ eventType: 'unknown' })).toBe(0);
      const { items, cursor } = await bus.deadLetters.list({ eventType: 'b', group: 'g' });
      expect(items.map((item) => [item.eventType, item.group, item.event.data])).toEqual([0, 1, 2].map((n) => ['b', 'g', n]));
      expect(cursor).toBeUndefined();
      const hour = 3_600_000;
      expect((await bus.deadLetters.list({ from: new Date(Date.now() - hour) })).items.length).toBe(12);
      expect((await bus.deadLetters.list({ from: new Date(Date.now() + hour) })).items).toEqual([]);
      expect((await bus.deadLetters.list({ to: new Date(Date.now() - hour) })).items).toEqual([]);
    });

    test('are listed page by page, each once', async () => {
      const bus = await world.bus();
      await make(bus, ['a', 'b', 'c'], ['g'], 7);
      const seen: string[] = [];
      let cursor: string | undefined;
      let pages = 0;
      do {
        const page = await bus.deadLetters.list({ limit: 4, cursor });
        expect(page.items.length).toBeLessThanOrEqual(4);
        seen.push(...page.items.map((item) => item.event.metadata.id));
        cursor = page.cursor;
        pages++;
      } while (cursor !== undefined && pages < 50);
      expect(seen.length).toBe(21);
      expect(new Set(seen).size).toBe(21);
    });

    test('redrive by id: back to the group that failed it, and to no other, from attempt 1', async () => {
      const bus = await world.bus();
      let works = false;
      const calls: Array<[string, number]> = [];
      await bus.subscribe(
        't',
        (event) => {
          calls.push(['bad', event.metadata.attempt]);
          if (!works) throw new Error('not yet');
        },
        { group: 'bad', retry: quick(1) },
      );
      await bus.subscribe('t', (event) => void calls.push(['good', event.metadata.attempt]), { group: 'good' });
      const id = await bus.publish('t', { k: 1 });
      const [letter] = await letters(bus);
      await until(async () => calls.some(([group]) => group === 'good') && (await pendingOf(bus, 'good')) === 0);
      works = true;
      calls.length = 0;
      expect(await bus.deadLetters.redrive({ ids: [letter.id] })).toBe(1);
      await until(() => calls.length === 1);
      expect(await bus.deadLetters.count()).toBe(0);
      expect(await bus.deadLetters.redrive({ ids: [letter.id] })).toBe(0);
      await until(async () => (await pendingOf(bus, 'good')) === 0 && (await pendingOf(bus, 'bad')) === 0);
      expect(calls).toEqual([['bad', 1]]);
      expect(id).toBe(letter.event.metadata.id);
    });

    test('a redriven event that fails again is a dead letter again, with its own count', async () => {
      const bus = await world.bus();
      const calls = await failing(bus, 99, { retry: quick(1) });
      await bus.publish('t', 1);
      await letters(bus);
      await bus.deadLetters.redrive({ eventType: 't' });
      await until(() => calls.length === 4);
      const [letter] = await letters(bus);
      expect(letter).toMatchObject({ attempts: 2, error: 'failure 4' });
      expect(calls.map((call) => call.attempt)).toEqual([1, 2, 1, 2]);
    });

    test('redrive and purge by type and group, and say how many', async () => {
      const bus = await world.bus();
      await make(bus, ['a', 'b'], ['g', 'h'], 2);
      expect(await bus.deadLetters.purge({ eventType: 'a', group: 'g' })).toBe(2);
      expect(await bus.deadLetters.purge({ eventType: 'a', group: 'g' })).toBe(0);
      expect(await bus.deadLetters.redrive({ group: 'h' })).toBe(4);
      expect(await bus.deadLetters.count()).toBe(2);
      expect(await bus.deadLetters.purge({ eventType: 'b' })).toBe(2);
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test('redriven while the group has no members: they wait for it', async () => {
      const bus = await world.bus();
      await make(bus, ['a'], ['g'], 2);
      expect(await bus.deadLetters.redrive({ group: 'g' })).toBe(2);
      const got: unknown[] = [];
      await bus.subscribe('a', (event) => void got.push([event.data, event.metadata.attempt]), { group: 'g', errorStrategy: 'dlq' });
      await until(() => got.length === 2);
      expect(got).toEqual([[0, 1], [1, 1]]); // biome-ignore format: one line
    });

    test('an empty redrive or purge is refused: it would concern everything', async () => {
      const bus = await world.bus();
      await make(bus, ['a'], ['g'], 1);
      for (const call of [() => bus.deadLetters.redrive({}), () => bus.deadLetters.purge({})]) await refusal('ERR_INVALID_ARGUMENT', call);
      expect(await bus.deadLetters.count()).toBe(1);
    });

    test('the retention of the queue: older ones are deleted', async () => {
      const bus = await world.bus({ deadLetterQueue: { retention: 0.1 } });
      await failing(bus, 99, { errorStrategy: 'dlq' });
      await bus.publish('t', 1);
      await until(() => bus.getMetrics().eventsFailed === 1);
      await until(async () => (await bus.deadLetters.count()) === 0, { timeoutMs: 20_000, everyMs: 100 });
    });
  });
});

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

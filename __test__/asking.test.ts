/** Asking back: waitForAck, request(), transient. */
import type { DeliveryContext, EventPayload, PublishOptions, RedisEventBus } from '@bluefly/ossa';
import { gate, pause, until, within } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

type RequestOptions = PublishOptions & { timeoutMs?: number };

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);
  const pair = () => Promise.all([world.bus(), world.bus()]);
  const pendingOf = async (bus: RedisEventBus) => (await bus.getStream('t'))?.stats.groups.reduce((sum, group) => sum + group.pending, 0);

  describe('waitForAck', () => {
    test('resolves with the id once the event is acknowledged, not before', async () => {
      const [publisher, consumer] = await pair();
      const hold = gate();
      let seen: EventPayload | undefined;
      await consumer.subscribe('t', async (event) => {
        seen = event;
        await hold.opened;
      });
      let done = false;
      const publishing = publisher.publish('t', 1, { waitForAck: true }).finally(() => (done = true));
      await until(() => seen !== undefined);
      await until(async () => (await pendingOf(publisher)) === 1);
      expect(done).toBe(false);
      hold.open();
      expect(await publishing).toBe(seen?.metadata.id);
      expect(Object.keys(seen?.metadata ?? {})).not.toContain('ackTo');
      await until(async () => (await pendingOf(publisher)) === 0);
    });

    test('the first group to acknowledge is enough, and retries before it do not matter', async () => {
      const [publisher, consumer] = await pair();
      const never = gate();
      await consumer.subscribe('t', () => never.opened, { group: 'slow' });
      let calls = 0;
      await consumer.subscribe(
        't',
        () => {
          if (++calls < 3) throw new Error('not yet');
        },
        { group: 'quick', retry: quick(5) },
      );
      await within(8_000, 'the acknowledgement', publisher.publish('t', 1, { waitForAck: true }));
      expect(calls).toBe(3);
      never.open();
    });

    test('a dead letter is ERR_REMOTE with its reason', async () => {
      const [publisher, consumer] = await pair();
      await consumer.subscribe('t', (_: unknown, context: DeliveryContext) => context.nack({ deadLetter: true, reason: 'no paper' }), {
        autoAck: false,
        group: 'printers',
      });
      const error = await refusal('ERR_REMOTE', () => publisher.publish('t', 1, { waitForAck: true }));
      expect(error.message).toContain('no paper');
      expect(error.details).toMatchObject({ error: 'no paper', reason: 'handler', group: 'printers' });
    });

    test('ERR_ACK_TIMEOUT after ackTimeoutMs; the event stays published', async () => {
      const [publisher, consumer] = await pair();
      const error = await refusal('ERR_ACK_TIMEOUT', () => publisher.publish('t', 'late', { waitForAck: true, ackTimeoutMs: 100 }));
      expect(error.details).toMatchObject({ timeoutMs: 100 });
      const got: unknown[] = [];
      await consumer.subscribe('t', ({ data }) => void got.push(data));
      await until(() => got.length === 1);
    });

    test('many at once, in a batch too', async () => {
      const [publisher, consumer] = await pair();
      await consumer.subscribe('t', () => undefined);
      const events = Array.from({ length: 300 }, (_, n) => ({ eventType: 't', data: n, options: { waitForAck: true } }));
      const ids = await publisher.publishBatch(events);
      expect(new Set(ids).size).toBe(300);
      await until(async () => (await pendingOf(publisher)) === 0);
    });

    test.each<[string, Record<string, unknown>, string]>([
      ['ackTimeoutMs alone', { ackTimeoutMs: 5 }, 'options.ackTimeoutMs'],
      ['ackTimeoutMs 0', { waitForAck: true, ackTimeoutMs: 0 }, 'options.ackTimeoutMs'],
      ['ackTimeoutMs NaN', { waitForAck: true, ackTimeoutMs: Number.NaN }, 'options.ackTimeoutMs'],
      ['waitForAck as text', { waitForAck: 'yes' }, 'options.waitForAck'],
    ])('%s is refused', async (_, options, argument) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, options));
      expect(error.details).toMatchObject({ argument });
    });
  });

  describe('request()', () => {
    test.each<[string, unknown, unknown]>([
      ['an object', { sum: 3, list: [1, { a: null }] }, { sum: 3, list: [1, { a: null }] }],
      ['undefined', undefined, null],
      ['null', null, null],
      ['text', 'a\t"b"\n€', 'a\t"b"\n€'],
      ['a number', 0, 0],
      ['a Date', new Date(5), new Date(5).toISOString()],
    ])('answers %s', async (_, returned, wanted) => {
      const [asker, answerer] = await pair();
      await answerer.subscribe('t', () => returned);
      expect(await asker.request('t', 1)).toEqual(wanted);
    });

    test('the handler sees an event like any other, whose ttl is the timeout', async () => {
      const [asker, answerer] = await pair();
      let seen: EventPayload | undefined;
      await answerer.subscribe('t', async (event) => {
        seen = event;
        await pause(1);
        return event.data.a + event.data.b;
      });
      expect(await asker.request<number>('t', { a: 1, b: 2 }, { timeoutMs: 20_000, correlationId: 'c', tags: ['x'] })).toBe(3);
      expect(seen?.metadata).toMatchObject({ type: 't', ttl: 20, correlationId: 'c', tags: ['x'], attempt: 1 });
      expect(Object.keys(seen?.metadata ?? {})).not.toContain('replyTo');
      await until(async () => (await pendingOf(asker)) === 0);
    });

    test('each request gets its own answer', async () => {
      const [asker, answerer] = await pair();
      await answerer.subscribe('t', async ({ data }) => {
        await pause((data * 7) % 11);
        return data * 2;
      });
      const numbers = Array.from({ length: 500 }, (_, n) => n);
      expect(await Promise.all(numbers.map((n) => asker.request('t', n)))).toEqual(numbers.map((n) => n * 2));
    });

    test('a retry answers; after the last attempt it is ERR_REMOTE with what the handler said', async () => {
      const [asker, answerer] = await pair();
      let calls = 0;
      await answerer.subscribe(
        't',
        ({ data }) => {
          calls++;
          if (data === 'never' || calls < 3) throw new Error(`no: ${data}`);
          return 'yes';
        },
        { retry: quick(2), group: 'g' },
      );
      expect(await asker.request('t', 'later')).toBe('yes');
      expect(calls).toBe(3);
      const error = await refusal('ERR_REMOTE', () => asker.request('t', 'never'));
      expect(error.message).toContain('no: never');
      expect(error.details).toMatchObject({ error: 'no: never', reason: 'max-attempts', group: 'g' });
      expect(calls).toBe(6);
    });

    test.each<[string, object]>([
      ['dlq', { errorStrategy: 'dlq' }],
      ['ignore', { errorStrategy: 'ignore' }],
    ])("errorStrategy '%s' answers ERR_REMOTE at once", async (_, options) => {
      const [asker, answerer] = await pair();
      await answerer.subscribe(
        't',
        () => {
          throw new Error('broken');
        },
        options,
      );
      const error = await refusal('ERR_REMOTE', () => asker.request('t', 1));
      expect(error.message).toContain('broken');
    });

    test.each<[string, unknown, string]>([
      ['a BigInt', { a: 1n }, 'BigInt'],
      ['a function', () => 1, 'function'],
      ['too much', 'x'.repeat(2000), 'maxPayloadBytes'],
    ])('a handler that returns %s answers ERR_REMOTE that says so, and its event is done', async (_, returned, text) => {
      const asker = await world.bus();
      const answerer = await world.bus({ limits: { maxPayloadBytes: 1000 } });
      let calls = 0;
      await answerer.subscribe('t', () => {
        calls++;
        return returned;
      });
      const error = await refusal('ERR_REMOTE', () => asker.request('t', 1));
      expect(error.message).toContain(text);
      await until(async () => (await pendingOf(asker)) === 0);
      expect(calls).toBe(1);
    });

    test('with autoAck: false the answer is what the handler returns, whether it acknowledged before or after', async () => {
      const [asker, answerer] = await pair();
      await answerer.subscribe(
        't',
        async ({ data }, context) => {
          if (data === 'before') await context.ack();
          else setTimeout(() => void context.ack(), 5);
          return `${data}: done`;
        },
        { autoAck: false },
      );
      expect(await asker.request('t', 'before')).toBe('before: done');
      expect(await asker.request('t', 'after')).toBe('after: done');
      await until(async () => (await pendingOf(asker)) === 0);
    });

    test('a handler that acknowledged by hand and then threw answers ERR_REMOTE', async () => {
      const [asker, answerer] = await pair();
      await answerer.subscribe(
        't',
        async (_, context) => {
          await context.ack();
          throw new Error('after all');
        },
        { autoAck: false },
      );
      expect((await refusal('ERR_REMOTE', () => asker.request('t', 1))).message).toContain('after all');
    });

    test('a loop answers null when it asks for the next event', async () => {
      const [asker, answerer] = await pair();
      const subscription = await answerer.subscribe('t');
      const loop = (async () => {
        for await (const event of subscription) if (event.data === 'last') break;
      })();
      expect(await asker.request('t', 'first')).toBeNull();
      await asker.publish('t', 'last');
      await loop;
    });

    test('the first answer of two groups wins; a bus can ask itself', async () => {
      const bus = await world.bus();
      const never = gate();
      await bus.subscribe('t', () => never.opened.then(() => 'slow'), { group: 'slow' });
      await bus.subscribe('t', () => 'quick', { group: 'quick' });
      expect(await bus.request('t', 1)).toBe('quick');
      never.open();
    });

    test('ERR_REQUEST_TIMEOUT when nobody answers; the event is not handled later', async () => {
      const [asker, answerer] = await pair();
      const error = await refusal('ERR_REQUEST_TIMEOUT', () => asker.request('t', 'too late', { timeoutMs: 150 }));
      expect(error.details).toMatchObject({ timeoutMs: 150 });
      await pause(50);
      const got: unknown[] = [];
      await answerer.subscribe('t', ({ data }) => void got.push(data));
      await asker.publish('t', 'next');
      await until(() => got.length > 0);
      expect(got).toEqual(['next']);
    });

    test('aborting its signal is ERR_ABORTED', async () => {
      const bus = await world.bus();
      const controller = new AbortController();
      const asking = refusal('ERR_ABORTED', () => bus.request('t', 1, { signal: controller.signal }));
      await until(async () => ((await bus.getStream('t'))?.stats.messageCount ?? 0) === 1);
      controller.abort('enough');
      expect((await asking).cause).toBe('enough');
      await refusal('ERR_ABORTED', () => bus.request('t', 1, { signal: controller.signal }));
    });

    test('disconnecting while it waits is ERR_CLOSED, for waitForAck too', async () => {
      const bus = await world.bus();
      const waiting = [
        refusal('ERR_CLOSED', () => bus.request('t', 1)),
        refusal('ERR_CLOSED', () => bus.publish('t', 1, { waitForAck: true })),
      ];
      await until(async () => ((await bus.getStream('t'))?.stats.messageCount ?? 0) === 2);
      await bus.disconnect();
      await within(5_000, 'the refusals', Promise.all(waiting));
      await refusal('ERR_CLOSED', () => bus.request('t', 1));
    });

    test('waiting requests count as pending publishes', async () => {
      const bus = await world.bus({ limits: { maxPendingPublishes: 2 } });
      const waiting = [1, 2].map((n) => bus.request('t', n, { timeoutMs: 400 }).catch((error) => error.code));
      await until(async () => ((await bus.getStream('t'))?.stats.messageCount ?? 0) === 2);
      await refusal('ERR_BACKPRESSURE', () => bus.request('t', 3));
      expect(await Promise.all(waiting)).toEqual(['ERR_REQUEST_TIMEOUT', 'ERR_REQUEST_TIMEOUT']);
      await bus.publish('t', 4);
    });

    test.each<[string, Record<string, unknown>]>([
      ['ttl', { ttl: 5 }],
      ['delayMs', { delayMs: 5 }],
      ['deliverAt', { deliverAt: new Date() }],
      ['waitForAck', { waitForAck: true }],
      ['ackTimeoutMs', { ackTimeoutMs: 5 }],
      ['transient', { transient: true }],
      ['idempotencyKey', { idempotencyKey: 'k' }],
      ['timeoutMs', { timeoutMs: 0 }],
      ['timeoutMs', { timeoutMs: Number.NaN }],
      ['timeoutMs', { timeoutMs: '5' }],
      ['qos', { qos: 1 }],
    ])('the option %s is refused', async (key, options) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.request('t', 1, options as RequestOptions));
      expect(error.details).toMatchObject({ argument: `options.${key}` });
    });

    test('what publish refuses, request refuses', async () => {
      const bus = await world.bus();
      await refusal('ERR_INVALID_ARGUMENT', () => bus.request('a b', 1));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.request('t', 1, 5 as any));
      await refusal('ERR_NOT_SERIALIZABLE', () => bus.request('t', 1n));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { timeoutMs: 5 } as any));
      await refusal('ERR_NOT_INITIALIZED', () => world.make().request('t', 1));
    });
  });

  describe('transient', () => {
    const transient = { transient: true };

    test('reaches every subscription of this moment, members of one group alike, and is not stored', async () => {
      const [publisher, other] = await pair();
      const got: Array<[string, EventPayload, DeliveryContext]> = [];
      const take = (who: string) => (event: EventPayload, context: DeliveryContext) => void got.push([who, event, context]);
      await publisher.subscribe('t.a', take('own'));
      await other.subscribe('t.a', take('member'));
      await other.subscribe('t.*', take('pattern'), { group: 'g' });
      await other.subscribe('t.b', take('other type'));
      const id = await publisher.publish('t.a', { n: 1 }, { ...transient, tags: ['x'] });
      await until(() => got.length === 3);
      expect(got.map(([who]) => who).sort()).toEqual(['member', 'own', 'pattern']);
      for (const [, { metadata, data }, context] of got) {
        expect(metadata).toMatchObject({ id, type: 't.a', tags: ['x'], attempt: 1 });
        expect(data).toEqual({ n: 1 });
        expect([context.streamId, context.attempt, context.redelivered]).toEqual(['0-0', 1, false]);
      }
      expect((await publisher.getStream('t.a'))?.stats.messageCount ?? 0).toBe(0);
      await other.subscribe('t.a', take('late'), { group: 'late' });
      await publisher.publish('t.a', 2);
      await until(() => got.some(([who]) => who === 'late'));
      expect(got.filter(([who]) => who === 'late').map(([, event]) => event.data)).toEqual([2]);
    });

    test('is delivered once, whatever the handler does; ack() and nack() resolve', async () => {
      const bus = await world.bus();
      const calls: unknown[] = [];
      const settled: string[] = [];
      await bus.subscribe(
        't',
        async ({ data }, context) => {
          calls.push(data);
          if (data === 'throw') throw new Error('no');
          if (data === 'ack') await context.ack().then(() => settled.push('ack'));
          else await context.nack().then(() => settled.push('nack'));
        },
        { autoAck: false, retry: quick(5) },
      );
      for (const data of ['throw', 'ack', 'nack']) await bus.publish('t', data, transient);
      await until(() => settled.length === 2);
      // Whatever were delivered again would come before this one is handled.
      await bus.publish('t', 'ack');
      await until(() => settled.length === 3);
      expect(calls).toEqual(['throw', 'ack', 'nack', 'ack']);
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test('without a subscription it goes nowhere, and resolves', async () => {
      const bus = await world.bus();
      expect(await bus.publish('t', 1, transient)).toMatch(/^[0-9a-f-]{36}$/);
      expect(await bus.getStream('t')).toBeNull();
    });

    test('events of a type come in the order in which they were published', async () => {
      const [publisher, other] = await pair();
      const got: unknown[] = [];
      await other.subscribe('t', ({ data }) => void got.push(data));
      const sent = Array.from({ length: 500 }, (_, i) => i);
      const publishing: Array<Promise<string>> = [];
      for (const i of sent) {
        publishing.push(publisher.publish('t', i, transient));
        // Every event crosses on its own.
        await new Promise(setImmediate);
      }
      await Promise.all(publishing);
      await until(() => got.length === sent.length);
      expect(got).toEqual(sent);
    });

    test('a subscription that was closed gets none', async () => {
      const [publisher, other] = await pair();
      const got: string[] = [];
      const closed = await other.subscribe('t', () => void got.push('closed'));
      await other.subscribe('t', () => void got.push('open'), { group: 'g' });
      await closed.close();
      await publisher.publish('t', 1, transient);
      await until(() => got.length > 0);
      expect(got).toEqual(['open']);
    });

    test.each<[string, PublishOptions]>([
      ['delayMs', { delayMs: 5 }],
      ['deliverAt', { deliverAt: new Date(Date.now() + 1000) }],
      ['idempotencyKey', { idempotencyKey: 'k' }],
      ['waitForAck', { waitForAck: true }],
      ['partitionKey', { partitionKey: 'k' }],
      ['ttl', { ttl: 5 }],
      ['retry', { retry: { maxAttempts: 1 } }],
    ])('together with %s it is refused', async (key, options) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { ...transient, ...options }));
      expect(error.details).toMatchObject({ argument: `options.${key}` });
    });
  });
});

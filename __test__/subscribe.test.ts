/** subscribe() and what it answers, end to end. */
import type { DeliveryContext, EventPayload, RedisEventBus, Subscription, SubscriptionOptions } from '@bluefly/ossa';
import { gate, pause, until, within } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  /** Subscribes, and answers what comes. */
  async function collect(
    bus: RedisEventBus,
    pattern = 't',
    options?: SubscriptionOptions,
  ): Promise<{ got: unknown[]; subscription: Subscription }> {
    const got: unknown[] = [];
    return { got, subscription: await bus.subscribe(pattern, (event) => void got.push(event.data), options) };
  }

  const pendingOf = async (bus: RedisEventBus, group: string, eventType = 't') =>
    (await bus.getStream(eventType))?.stats.groups.find((found) => found.name === group)?.pending;

  describe('the handler', () => {
    test('is told where the event stands', async () => {
      const bus = await world.bus();
      const seen: Array<[EventPayload, DeliveryContext]> = [];
      const subscription = await bus.subscribe('t', (...args) => void seen.push(args), { group: 'g' });
      await bus.publish('t', 1);
      await until(() => seen.length === 1);
      const [, context] = seen[0];
      expect(context).toMatchObject({ group: 'g', attempt: 1, redelivered: false });
      expect(context.streamId).toMatch(/^\d+-\d+$/);
      expect(context.signal).toBeInstanceOf(AbortSignal);
      expect(context.signal.aborted).toBe(false);
      expect(subscription).toMatchObject({ eventType: 't', group: 'g' });
      expect(subscription.consumer).toMatch(new RegExp(String(process.pid)));
    });

    test('is not called before subscribe has resolved', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 50; n++) await bus.publish('t', n);
      let subscribed = false;
      const early: boolean[] = [];
      await bus.subscribe('t', () => void early.push(!subscribed));
      subscribed = true;
      await until(() => early.length === 50);
      expect(early).not.toContain(true);
    });
  });

  describe('group', () => {
    test("is 'default' unless given", async () => {
      expect((await collect(await world.bus())).subscription.group).toBe('default');
    });

    test('is SERVICE_NAME where that is set', async () => {
      process.env['SERVICE_NAME'] = 'orders';
      try {
        expect((await collect(await world.bus())).subscription.group).toBe('orders');
      } finally {
        delete process.env['SERVICE_NAME'];
      }
    });

    test('goes on where it was, however often its members come and go', async () => {
      const bus = await world.bus();
      const seen: unknown[] = [];
      for (let round = 0; round < 3; round++) {
        await bus.publish('t', round);
        const { got, subscription } = await collect(bus, 't', { group: 'g' });
        await until(() => got.length === 1);
        await subscription.close();
        seen.push(...got);
      }
      expect(seen).toEqual([0, 1, 2]);
    });

    test('members that disagree on what belongs to the group are refused, here and on another bus', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      await collect(a, 't', { group: 'g', startFrom: 'latest' });
      for (const bus of [a, b]) {
        const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, { group: 'g', startFrom: 'beginning' }));
        expect(error.message).toMatch(/group 'g'/);
        await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, { group: 'g', startFrom: 'latest', autoAck: false }));
      }
      await collect(b, 't', { group: 'g', startFrom: 'latest' });
    });
  });

  describe('startFrom', () => {
    test("'beginning' by default: what is kept comes first", async () => {
      const bus = await world.bus();
      for (const n of [1, 2, 3]) await bus.publish('t', n);
      const { got } = await collect(bus);
      await bus.publish('t', 4);
      await until(() => got.length === 4);
      expect(got).toEqual([1, 2, 3, 4]);
    });

    test("'latest': only what comes after subscribe", async () => {
      const bus = await world.bus();
      await bus.publish('t', 'before');
      const { got } = await collect(bus, 't', { startFrom: 'latest' });
      await bus.publish('t', 'after');
      await until(() => got.length > 0);
      expect(got).toEqual(['after']);
    });

    test("'latest' concerns what exists at subscribe: a type that comes later is read from its first event", async () => {
      const bus = await world.bus();
      await bus.publish('t.old', 'before');
      const { got } = await collect(bus, 't.*', { startFrom: 'latest' });
      await bus.publish('t.new', 'first');
      await until(() => got.length > 0);
      expect(got).toEqual(['first']);
    });

    test("'timestamp': from that time on", async () => {
      const bus = await world.bus();
      await bus.publish('t', 'before');
      await pause(30);
      const startTimestamp = new Date();
      await pause(30);
      await bus.publish('t', 'after');
      const { got } = await collect(bus, 't', { startFrom: 'timestamp', startTimestamp });
      await until(() => got.length > 0);
      expect(got).toEqual(['after']);
    });

    test('says nothing for a group that exists', async () => {
      const bus = await world.bus();
      const { got, subscription } = await collect(bus, 't', { startFrom: 'latest' });
      await subscription.close();
      await bus.publish('t', 'meanwhile');
      const again = await collect(bus, 't', { startFrom: 'latest' });
      await until(() => again.got.length > 0);
      expect(got).toEqual([]);
      expect(again.got).toEqual(['meanwhile']);
    });
  });

  describe('wildcards', () => {
    test.each([
      ['a.*', ['a.b', 'a.c'], ['a', 'a.b.c', 'b.a', 'ab']],
      ['a.**', ['a', 'a.b', 'a.b.c'], ['ab', 'b.a']],
      ['**.z', ['z', 'a.z', 'a.b.z'], ['z.a']],
      ['*', ['a', 'z'], ['a.b']],
      ['**', ['a', 'a.b', 'a.b.c'], []],
      ['a.*.c.**', ['a.b.c', 'a.b.c.d.e'], ['a.c', 'a.b']],
    ])('%s', async (pattern, yes, no) => {
      const bus = await world.bus();
      const got: string[] = [];
      // Half of the types exist before, half come after.
      const all = [...yes, ...no];
      for (const type of all.filter((_, n) => n % 2 === 0)) await bus.publish(type, type);
      await bus.subscribe(pattern, (event) => void got.push(event.metadata.type));
      for (const type of all.filter((_, n) => n % 2 === 1)) await bus.publish(type, type);
      await until(() => got.length >= yes.length, { show: () => got });
      // What does not match would have come by the time that a later event of a matching type has.
      await bus.publish(yes[0], 'last');
      await until(() => got.length > yes.length);
      expect([...got].sort()).toEqual([...yes, yes[0]].sort());
    });

    test('types first seen later are joined at once', async () => {
      const [publisher, consumer] = [await world.bus(), await world.bus()];
      const times: number[] = [];
      await consumer.subscribe('new.**', () => void times.push(Date.now()));
      for (let n = 1; n <= 3; n++) {
        const start = Date.now();
        await publisher.publish(`new.${n}`, n);
        await until(() => times.length === n);
        // Who is not told of a type finds it by looking every five seconds.
        if (n > 1) expect((times.at(-1) as number) - start).toBeLessThan(3000);
      }
    });

    test('a durable wildcard group misses nothing of types that appear while it is away', async () => {
      const consumer = await world.bus();
      await collect(consumer, 'new.**', { group: 'away' });
      const publisher = await world.bus();
      await consumer.disconnect();
      for (let n = 0; n < 5; n++) await publisher.publish(`new.${n}`, n);
      const { got } = await collect(await world.bus(), 'new.**', { group: 'away' });
      await until(() => got.length === 5);
      expect([...got].sort()).toEqual([0, 1, 2, 3, 4]);
    });

    test('several patterns of one group that match one event: each handler is called once', async () => {
      const bus = await world.bus();
      const calls: string[] = [];
      await bus.subscribe('a.*', () => void calls.push('a.*'));
      await bus.subscribe('**', () => void calls.push('**'));
      await bus.subscribe('a.b', () => void calls.push('a.b'));
      await bus.publish('a.b', 1);
      await until(() => calls.length === 3);
      await until(async () => (await pendingOf(bus, 'default', 'a.b')) === 0);
      expect([...calls].sort()).toEqual(['**', 'a.*', 'a.b']);
    });

    test('match the events that the bus itself publishes', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      const got: unknown[] = [];
      await b.subscribe('system.*', (event) => void got.push(event.metadata.type));
      await a.disconnect();
      await until(() => got.length === 1);
      expect(got).toEqual(['system.shutdown']);
    });
  });

  describe('how many at once', () => {
    /** Subscribes with a handler that waits; answers how many run, and lets them go on. */
    async function held(bus: RedisEventBus, options: SubscriptionOptions) {
      const { opened, open } = gate();
      const seen = { running: 0, most: 0, done: 0 };
      await bus.subscribe(
        't',
        async () => {
          seen.running++;
          seen.most = Math.max(seen.most, seen.running);
          await opened;
          seen.running--;
          seen.done++;
        },
        options,
      );
      return { seen, open };
    }

    test('concurrency bounds the handlers that run', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 40; n++) await bus.publish('t', n);
      const { seen, open } = await held(bus, { concurrency: 3, maxUnacknowledged: 10, group: 'g' });
      await until(() => seen.running === 3);
      await until(async () => ((await pendingOf(bus, 'g')) ?? 0) >= 10);
      expect(seen.running).toBe(3);
      open();
      await until(() => seen.done === 40);
      expect(seen.most).toBe(3);
    });

    test('maxUnacknowledged bounds what is taken', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 60; n++) await bus.publish('t', n);
      const { seen, open } = await held(bus, { maxUnacknowledged: 7, group: 'g' });
      await until(() => seen.running === 7);
      // Seven run, and no more than one batch beside them is taken.
      await pause(200);
      expect(seen.running).toBe(7);
      expect(await pendingOf(bus, 'g')).toBeLessThanOrEqual(14);
      open();
      await until(() => seen.done === 60);
      expect(seen.most).toBe(7);
    });

    test('a hundred run in parallel unless told otherwise', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 150; n++) await bus.publish('t', n);
      const { seen, open } = await held(bus, {});
      await until(() => seen.running === 100);
      open();
      await until(() => seen.done === 150);
      expect(seen.most).toBe(100);
    });

    test('concurrency 1 is one after the other, in order', async () => {
      const bus = await world.bus();
      const got: unknown[] = [];
      let running = 0;
      for (let n = 0; n < 30; n++) await bus.publish('t', n);
      await bus.subscribe(
        't',
        async (event) => {
          expect(++running).toBe(1);
          await pause(1);
          running--;
          got.push(event.data);
        },
        { concurrency: 1 },
      );
      await until(() => got.length === 30);
      expect(got).toEqual(Array.from({ length: 30 }, (_, n) => n));
    });

    test('a full subscription does not hold up others of its group and bus', async () => {
      const bus = await world.bus();
      const { opened, open } = gate();
      await bus.subscribe('slow', () => opened, { maxUnacknowledged: 1 });
      const { got } = await collect(bus, 'quick');
      for (let n = 0; n < 5; n++) await bus.publish('slow', n);
      for (let n = 0; n < 50; n++) await bus.publish('quick', n);
      await until(() => got.length === 50);
      open();
    });
  });

  describe('pause and resume', () => {
    test('while paused nothing is delivered, and nothing is lost', async () => {
      const bus = await world.bus();
      const { got, subscription } = await collect(bus);
      await bus.publish('t', 1);
      await until(() => got.length === 1);
      subscription.pause();
      subscription.pause();
      await bus.publish('t', 2);
      await pause(200);
      expect(got).toEqual([1]);
      subscription.resume();
      await until(() => got.length === 2);
      expect(got).toEqual([1, 2]);
    });

    test('a paused subscription lets other members of its group have the events', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      const first = await collect(a, 't', { group: 'g' });
      first.subscription.pause();
      const second = await collect(b, 't', { group: 'g' });
      for (let n = 0; n < 50; n++) await a.publish('t', n);
      await until(() => second.got.length === 50);
      expect(first.got).toEqual([]);
    });

    test('what was taken and not started goes back at once, and does not count as a delivery', async () => {
      const [a, b] = [await world.bus(), await world.bus()];
      const { opened, open } = gate();
      for (let n = 0; n < 20; n++) await a.publish('t', n);
      let calls = 0;
      const handler = () => {
        calls++;
        return opened;
      };
      const subscription = await a.subscribe('t', handler, { group: 'g', concurrency: 1, maxUnacknowledged: 20 });
      await until(async () => calls === 1 && (await pendingOf(a, 'g')) === 20);
      subscription.pause();
      const attempts: number[] = [];
      await b.subscribe('t', (event) => void attempts.push(event.metadata.attempt), { group: 'g' });
      await until(() => attempts.length === 19);
      expect(new Set(attempts)).toEqual(new Set([1]));
      open();
    });

    test('other subscriptions of the bus go on', async () => {
      const bus = await world.bus();
      const { subscription } = await collect(bus, 'a');
      const { got } = await collect(bus, 'b');
      subscription.pause();
      await bus.publish('a', 1);
      await bus.publish('b', 1);
      await until(() => got.length === 1);
    });
  });

  describe('closing', () => {
    test('waits for the handlers under way and delivers nothing more', async () => {
      const bus = await world.bus();
      const { opened, open } = gate();
      const seen: unknown[] = [];
      const subscription = await bus.subscribe(
        't',
        async (event) => {
          seen.push(event.data);
          await opened;
        },
        { group: 'g', concurrency: 1, maxUnacknowledged: 10 },
      );
      for (let n = 0; n < 5; n++) await bus.publish('t', n);
      await until(async () => seen.length === 1 && (await pendingOf(bus, 'g')) === 5);
      let closed = false;
      const closing = subscription.close().then(() => {
        closed = true;
      });
      await pause(50);
      expect(closed).toBe(false);
      open();
      await closing;
      expect(seen).toEqual([0]);
      // The first was acknowledged, the others wait for whoever comes.
      const { got } = await collect(bus, 't', { group: 'g' });
      await until(() => got.length === 4);
      expect([...got].sort()).toEqual([1, 2, 3, 4]);
    });

    test('is idempotent, and disposing is closing', async () => {
      const bus = await world.bus();
      const { subscription } = await collect(bus);
      await Promise.all([subscription.close(), subscription.close()]);
      await subscription[Symbol.asyncDispose]();
      expect((await bus.getStatus()).subscriptions).toBe(0);
    });

    test('aborts the signal of handlers under way, and hands back after drainTimeoutMs what they did not finish', async () => {
      const bus = await world.bus();
      let aborted: unknown;
      let called = false;
      const subscription = await bus.subscribe(
        't',
        (_, context) => {
          called = true;
          context.signal.addEventListener('abort', () => {
            aborted = context.signal.reason;
          });
          return new Promise(() => undefined);
        },
        { group: 'g' },
      );
      await bus.publish('t', 1);
      await until(() => called);
      const start = Date.now();
      await subscription.close({ drainTimeoutMs: 100 });
      // Not the ten seconds of the default.
      expect(Date.now() - start).toBeLessThan(9000);
      expect(aborted).toMatchObject({ code: 'ERR_CLOSED' });
      const { got } = await collect(bus, 't', { group: 'g' });
      await until(() => got.length === 1);
    });

    test('by a signal', async () => {
      const bus = await world.bus();
      const controller = new AbortController();
      const { got } = await collect(bus, 't', { group: 'g', signal: controller.signal });
      await bus.publish('t', 1);
      await until(() => got.length === 1);
      controller.abort();
      await until(async () => (await bus.getStatus()).subscriptions === 0);
      await bus.publish('t', 2);
      const after = await collect(bus, 't', { group: 'g' });
      await until(() => after.got.length === 1);
      expect(got).toEqual([1]);
    });

    test('a signal that is aborted already: ERR_ABORTED and no subscription', async () => {
      const bus = await world.bus();
      await refusal('ERR_ABORTED', () => bus.subscribe('t', () => 1, { signal: AbortSignal.abort() }));
      expect((await bus.getStatus()).subscriptions).toBe(0);
    });

    test('unsubscribe closes those of a type, or of one handler', async () => {
      const bus = await world.bus();
      const [one, two] = [() => undefined, () => undefined];
      await bus.subscribe('a', one);
      await bus.subscribe('a', two);
      await bus.subscribe('b', one);
      await bus.subscribe('*', one);
      const count = async () => (await bus.getStatus()).subscriptions;
      await bus.unsubscribe('a', one);
      expect(await count()).toBe(3);
      await bus.unsubscribe('a');
      expect(await count()).toBe(2);
      await bus.unsubscribe('unknown');
      await bus.unsubscribe('*');
      await bus.unsubscribe('b', one);
      expect(await count()).toBe(0);
    });

    test('from inside the handler does not wait for itself, and the event is acknowledged', async () => {
      const bus = await world.bus();
      let done = false;
      const subscription: Subscription = await bus.subscribe(
        't',
        async () => {
          await within(9000, 'close() from inside the handler', subscription.close());
          done = true;
        },
        { group: 'g' },
      );
      await bus.publish('t', 1);
      await until(() => done);
      await until(async () => (await pendingOf(bus, 'g')) === 0);
      await until(async () => (await bus.getStatus()).subscriptions === 0);
      expect((await bus.getStream('t'))?.stats.groups[0].lag).toBe(0);
    });
  });

  describe('autoAck: false', () => {
    test('an event is pending until it is acknowledged by hand', async () => {
      const bus = await world.bus();
      const contexts: DeliveryContext[] = [];
      await bus.subscribe('t', (_, context) => void contexts.push(context), { group: 'g', autoAck: false });
      await bus.publish('t', 1);
      await until(() => contexts.length === 1);
      expect(await pendingOf(bus, 'g')).toBe(1);
      await contexts[0].ack();
      expect(await pendingOf(bus, 'g')).toBe(0);
      await contexts[0].ack();
      await refusal('ERR_INVALID_ARGUMENT', () => contexts[0].nack());
    });

    test('nack by hand brings it back', async () => {
      const bus = await world.bus();
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (event, context) => {
          attempts.push(event.metadata.attempt);
          if (attempts.length < 3) await context.nack({ delayMs: 10 });
          else await context.ack();
        },
        { group: 'g', autoAck: false, retry: quick(5) },
      );
      await bus.publish('t', 1);
      await until(() => attempts.length === 3);
      await until(async () => (await pendingOf(bus, 'g')) === 0);
      expect(attempts).toEqual([1, 2, 3]);
    });

    test('a handler that throws has failed, acknowledged or not is another matter', async () => {
      const bus = await world.bus();
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (event, context) => {
          attempts.push(event.metadata.attempt);
          if (attempts.length === 1) throw new Error('first');
          await context.ack();
          throw new Error('too late');
        },
        { group: 'g', autoAck: false, retry: quick(5) },
      );
      await bus.publish('t', 1);
      await until(() => attempts.length === 2);
      await until(async () => (await pendingOf(bus, 'g')) === 0);
      expect(await bus.deadLetters.count()).toBe(0);
    });

    test('neither ack nor nack until consumerTimeout: it failed', async () => {
      const bus = await world.bus();
      let calls = 0;
      await bus.subscribe('t', () => void calls++, { group: 'g', autoAck: false, consumerTimeout: 60, retry: quick(1) });
      await bus.publish('t', 1);
      await until(async () => (await bus.deadLetters.count({ group: 'g' })) === 1);
      expect(calls).toBe(2);
    });
  });

  describe('without a handler', () => {
    test('it is iterated over; an event is acknowledged when the next one is asked for', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 3; n++) await bus.publish('t', n);
      const subscription = await bus.subscribe('t', null, { group: 'g' });
      const got: unknown[] = [];
      for await (const event of subscription) {
        got.push(event.data);
        expect(event.metadata.attempt).toBe(1);
        if (got.length === 3) break;
      }
      expect(got).toEqual([0, 1, 2]);
      // Leaving the loop closed the subscription and handed the last event back.
      expect((await bus.getStatus()).subscriptions).toBe(0);
      const again: unknown[] = [];
      for await (const event of await bus.subscribe('t', undefined, { group: 'g' })) {
        again.push(event.data);
        break;
      }
      expect(again).toEqual([2]);
    });

    test('what was acknowledged by hand stays so when the loop is left', async () => {
      const bus = await world.bus();
      await bus.publish('t', 1);
      for await (const event of await bus.subscribe('t', null, { group: 'g' })) {
        await event.ack();
        break;
      }
      expect(await pendingOf(bus, 'g')).toBe(0);
      const { got } = await collect(bus, 't', { group: 'g' });
      await bus.publish('t', 2);
      await until(() => got.length > 0);
      expect(got).toEqual([2]);
    });

    test('nack() in the loop brings the event back', async () => {
      const bus = await world.bus();
      await bus.publish('t', 1);
      const attempts: number[] = [];
      for await (const event of await bus.subscribe('t', null, { group: 'g', retry: quick(3) })) {
        attempts.push(event.metadata.attempt);
        if (attempts.length === 2) break;
        await event.nack({ delayMs: 10 });
      }
      expect(attempts).toEqual([1, 2]);
    });

    test('closing the subscription ends the loop', async () => {
      const bus = await world.bus();
      const subscription = await bus.subscribe('t', null, { group: 'g' });
      const loop = (async () => {
        for await (const _ of subscription);
        return 'ended';
      })();
      await subscription.close();
      expect(await within(10_000, 'the loop', loop)).toBe('ended');
    });

    test('a subscription with a handler cannot be iterated over', async () => {
      const { subscription } = await collect(await world.bus());
      await refusal('ERR_INVALID_ARGUMENT', () => subscription[Symbol.asyncIterator]());
    });
  });

  test('members that come and go hand over what they hold: nothing lost, nothing twice', async () => {
    const publisher = await world.bus();
    const seen = new Map<number, number>();
    const all = 600;
    let done = false;
    const publishing = (async () => {
      for (let n = 0; n < all; n++) {
        await publisher.publish('t', n);
        if (n % 20 === 0) await pause(1);
      }
      done = true;
    })();
    while (!done || seen.size < all) {
      const bus = await world.bus();
      await bus.subscribe(
        't',
        async (event) => {
          await pause(2);
          seen.set(event.data, (seen.get(event.data) ?? 0) + 1);
        },
        { group: 'g', concurrency: 5 },
      );
      const before = seen.size;
      await until(() => seen.size >= Math.min(before + 60, all) || (done && seen.size === all));
      await bus.disconnect();
    }
    await publishing;
    expect(seen.size).toBe(all);
    expect(Math.max(...seen.values())).toBe(1);
    expect(await pendingOf(publisher, 'g')).toBe(0);
  });
});

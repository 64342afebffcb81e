/** Lifecycle events, what listeners may do, and how a bus ends. */
import type { DeepPartial, EventBusConfig, RedisEventBus } from '@bluefly/ossa';
import { gate, pause, until, within } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  type Seen = Array<Record<string, any>>;

  /** What is emitted under `name` from now on. */
  function hear(bus: RedisEventBus, name: string): Seen {
    const seen: Seen = [];
    bus.on(name, (...args) => void seen.push(...args));
    return seen;
  }

  const fail = () => {
    throw new Error('no');
  };

  describe('lifecycle events', () => {
    test('event:published names the event, on the bus that published it', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const [seen, notSeen] = [hear(bus, 'event:published'), hear(other, 'event:published')];
      const id = await bus.publish('t', 1);
      await until(() => seen.length === 1);
      expect(seen[0]).toMatchObject({ eventType: 't', eventId: id });
      await other.getStatus();
      expect(notSeen).toEqual([]);
    });

    test('event:published does not speak of what was refused', async () => {
      const bus = await world.bus();
      const seen = hear(bus, 'event:published');
      await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { ttl: -1 }));
      const id = await bus.publish('t', 2);
      await until(() => seen.length > 0);
      expect(seen.map((event) => event.eventId)).toEqual([id]);
    });

    test('event:consumed, on the bus whose handler succeeded', async () => {
      const [publisher, bus] = [await world.bus(), await world.bus()];
      const seen = hear(bus, 'event:consumed');
      await bus.subscribe('t', () => pause(20), { group: 'g' });
      const id = await publisher.publish('t', 1);
      await until(() => seen.length === 1);
      expect(seen[0]).toMatchObject({ eventType: 't', eventId: id, group: 'g', attempt: 1 });
      expect(seen[0].streamId).toMatch(/^\d+-\d+$/);
      expect(seen[0].durationMs).toBeGreaterThanOrEqual(15);
    });

    test('event:failed and event:retried for each failure, event:dead-lettered once at the end', async () => {
      const bus = await world.bus();
      const [failed, retried, dead] = [hear(bus, 'event:failed'), hear(bus, 'event:retried'), hear(bus, 'event:dead-lettered')];
      await bus.subscribe('t', fail, { group: 'g', retry: quick(2, 20) });
      const id = await bus.publish('t', 1);
      await until(() => dead.length === 1 && failed.length === 3);
      expect(failed.map((event) => [event.eventId, event.group, event.attempt, event.error])).toEqual(
        [1, 2, 3].map((n) => [id, 'g', n, 'no']),
      );
      expect(retried.map((event) => [event.eventId, event.attempt, event.delayMs])).toEqual([1, 2].map((n) => [id, n, 20]));
      expect(dead[0]).toMatchObject({ eventType: 't', eventId: id, group: 'g', attempt: 3, reason: 'max-attempts', error: 'no' });
    });

    test('subscription:created and subscription:cancelled', async () => {
      const bus = await world.bus();
      const [created, cancelled] = [hear(bus, 'subscription:created'), hear(bus, 'subscription:cancelled')];
      const subscription = await bus.subscribe('a.*', () => undefined, { group: 'g' });
      await bus.subscribe('b', () => undefined);
      await until(() => created.length === 2);
      expect(created[0]).toEqual({ eventType: 'a.*', group: 'g', consumer: subscription.consumer });
      await subscription.close();
      await until(() => cancelled.length === 1);
      expect(cancelled[0]).toEqual(created[0]);
      await bus.disconnect();
      expect(cancelled.map((event) => event.eventType)).toEqual(['a.*', 'b']);
    });

    test('metrics:updated comes every metricsInterval with the figures of getMetrics', async () => {
      const bus = await world.bus({ monitoring: { metricsInterval: 30 } });
      const seen = hear(bus, 'metrics:updated');
      await bus.publish('t', 1);
      await until(() => seen.some((metrics) => metrics.eventsPublished === 1) && seen.length >= 3);
      expect(Object.keys(seen[0]).sort()).toEqual(Object.keys(bus.getMetrics()).sort());
    });

    test('metrics:updated does not come where monitoring is off', async () => {
      const bus = await world.bus({ monitoring: { enabled: false, metricsInterval: 10 } });
      const seen = hear(bus, 'metrics:updated');
      await bus.publish('t', 1);
      await pause(100);
      expect(seen).toEqual([]);
    });

    test('health:status:changed tells when too many deliveries fail, and when that is over', async () => {
      const bus = await world.bus({ monitoring: { healthCheckInterval: 20 } });
      const seen = hear(bus, 'health:status:changed');
      await bus.subscribe('t', fail, { errorStrategy: 'dlq' });
      await bus.publish('t', 1);
      await until(() => seen.length > 0);
      expect((await bus.getStatus()).status).toBe('degraded');
      expect(JSON.stringify(seen[0])).toContain('degraded');
    });

    test('listeners that were taken off hear nothing, once() hears one', async () => {
      const bus = await world.bus();
      const [off, once]: [Seen, Seen] = [[], []];
      const listener = (event: any) => void off.push(event);
      bus.on('event:published', listener);
      bus.once('event:published', (event) => void once.push(event));
      await bus.publish('t', 1);
      await until(() => off.length === 1 && once.length === 1);
      bus.off('event:published', listener);
      const last = hear(bus, 'event:consumed');
      await bus.subscribe('t', () => undefined);
      await bus.publish('t', 2);
      await until(() => last.length === 2);
      expect([off.length, once.length]).toEqual([1, 1]);
    });

    test('listeners that were there before connect hear too', async () => {
      const bus = world.make();
      const seen = hear(bus, 'event:published');
      await bus.connect();
      await bus.publish('t', 1);
      await until(() => seen.length === 1);
    });
  });

  describe('listeners', () => {
    const events = ['event:published', 'event:consumed', 'event:failed', 'event:retried', 'event:dead-lettered', 'subscription:created'];

    test.each<[string, () => unknown]>([
      ['throws', fail],
      ['throws a non-error', () => { throw null; }], // biome-ignore format: one line a case
      ['answers a rejection', () => Promise.reject(new Error('no'))],
    ])('one that %s is logged, the others are called, and the bus goes on', async (_, bad) => {
      const bus = await world.bus();
      let heard = 0;
      for (const name of events) {
        bus.on(name, bad);
        bus.on(name, () => void heard++);
      }
      await bus.subscribe('t', (event) => (event.data === 'bad' && event.metadata.attempt === 1 ? fail() : undefined), { retry: quick(1) });
      await bus.publish('t', 'bad');
      await bus.publish('t', 'good');
      await until(() => heard >= 2 + 2 + 1 + 1 + 1);
      await until(() => world.logs.some((line) => /^error A listener of 'event:published' failed/.test(line)));
      expect(bus.getMetrics()).toMatchObject({ eventsConsumed: 2, eventsFailed: 1 });
    });

    test("an 'error' without a listener is logged and does not end the process", async () => {
      const bus = await world.bus();
      bus.emit('other', 1);
      const [listener, log] = [hear(bus, 'error'), world.logs];
      bus.removeAllListeners('error');
      bus.on('event:published', fail);
      await bus.publish('t', 1);
      await until(() => log.some((line) => line.includes("A listener of 'event:published' failed: no")));
      expect(listener).toEqual([]);
    });

    test('a logger that throws changes nothing', async () => {
      const throwing = { debug: fail, info: fail, warn: fail, error: fail };
      const bus = await world.bus({ logger: throwing } as DeepPartial<EventBusConfig>);
      bus.on('event:published', fail);
      const seen = hear(bus, 'event:consumed');
      await bus.subscribe('t', () => undefined);
      await bus.publish('t', 1);
      await until(() => seen.length === 1);
    });

    test('one that disconnects the bus', async () => {
      const bus = await world.bus();
      let done = false;
      bus.on('event:consumed', () => void bus.disconnect().then(() => (done = true)));
      await bus.subscribe('t', () => undefined);
      await bus.publish('t', 1);
      await until(() => done);
    });
  });

  describe('disconnect', () => {
    test('lets handlers finish, and acknowledges what they finished', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      let [started, done] = [0, 0];
      await bus.subscribe(
        't',
        async () => {
          started++;
          await pause(150);
          done++;
        },
        { group: 'g' },
      );
      for (let n = 0; n < 10; n++) await other.publish('t', n);
      await until(() => started === 10);
      await bus.disconnect();
      expect(done).toBe(10);
      expect((await other.getStream('t'))?.stats.groups[0]).toMatchObject({ pending: 0, consumers: 0 });
    });

    test('stops after drainTimeoutMs, hands back what is unfinished at once, and leaves no consumer behind', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      let started = 0;
      await bus.subscribe('t', () => new Promise(() => void started++), { group: 'g' });
      for (let n = 0; n < 5; n++) await other.publish('t', n);
      await until(() => started === 5);
      const start = Date.now();
      await bus.disconnect({ drainTimeoutMs: 100 });
      // Not the ten seconds of the default.
      expect(Date.now() - start).toBeLessThan(9000);
      const attempts: number[] = [];
      const at = Date.now();
      await other.subscribe('t', (event) => void attempts.push(event.metadata.attempt), { group: 'g' });
      await until(() => attempts.length === 5);
      // Not the eight seconds that the lease of a dead process lasts.
      expect(Date.now() - at).toBeLessThan(6000);
      expect((await other.getStream('t'))?.stats.groups[0].consumers).toBe(1);
    });

    test('handlers may publish until they are done', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const { opened, open } = gate();
      let id: string | undefined;
      let running = false;
      await bus.subscribe('t', async () => {
        running = true;
        await opened;
        id = await bus.publish('result', 'from the handler');
      });
      await other.publish('t', 1);
      await until(() => running);
      const closing = bus.disconnect();
      open();
      await closing;
      expect(id).toBeDefined();
      expect((await other.getStream('result'))?.stats.messageCount).toBe(1);
    });

    test('publishes that were called before it are stored', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const published = Array.from({ length: 500 }, (_, n) => bus.publish('t', n));
      const closing = bus.disconnect();
      await Promise.all(published);
      await closing;
      expect((await other.getStream('t'))?.stats.messageCount).toBe(500);
    });

    test('says system.shutdown', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const got: any[] = [];
      await other.subscribe('system.shutdown', (event) => void got.push(event.data));
      await bus.disconnect();
      await until(() => got.length === 1);
      expect(got[0]).toMatchObject({ pid: process.pid });
    });

    test('hands back what was only prefetched: it does not count as delivered', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const { opened, open } = gate();
      let called = 0;
      const handler = () => {
        called++;
        return opened;
      };
      await bus.subscribe('t', handler, { group: 'g', concurrency: 1, maxUnacknowledged: 50 });
      for (let n = 0; n < 50; n++) await other.publish('t', n);
      await until(async () => called === 1 && (await other.getStream('t'))?.stats.groups[0].pending === 50);
      const closing = bus.disconnect();
      open();
      await closing;
      const attempts: number[] = [];
      await other.subscribe('t', (event) => void attempts.push(event.metadata.attempt), { group: 'g' });
      await until(() => attempts.length === 49, { show: () => attempts });
      expect(new Set(attempts)).toEqual(new Set([1]));
    });

    test('ends loops over subscriptions', async () => {
      const bus = await world.bus();
      const subscription = await bus.subscribe('t', null);
      const loop = (async () => {
        for await (const _ of subscription);
      })();
      await bus.disconnect();
      await within(10_000, 'the loop', loop);
    });

    test('while connecting: both end', async () => {
      const bus = world.make();
      const connecting = bus.connect().catch((error) => error.code);
      await within(20_000, 'disconnect()', bus.disconnect());
      expect([undefined, 'ERR_CLOSED']).toContain(await within(20_000, 'connect()', connecting));
      await refusal('ERR_CLOSED', () => bus.publish('t', 1));
    });

    test('many buses come and go', async () => {
      for (let round = 0; round < 20; round++) {
        const bus = await world.bus();
        const got: unknown[] = [];
        await bus.subscribe('t', (event) => void got.push(event.data), { group: 'g' });
        await bus.publish('t', round);
        await until(() => got.length === 1);
        await bus.disconnect();
        expect(got).toEqual([round]);
        // The store in memory lives as long as somebody uses it.
        if (kind === 'memory') await world.bus();
      }
    });
  });
});

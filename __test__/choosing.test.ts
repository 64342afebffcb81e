/** Which events a handler gets, in what order, and how many at once: priorities, filters, batches. */
import { pause, until } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

type Events = { metadata: { type: string; attempt: number; priority: string }; data: any }[];

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  describe('priorities', () => {
    test('a critical event overtakes a backlog of 10,000 low ones: it is next', async () => {
      const [bus, publisher] = [await world.bus(), await world.bus()];
      let low = 0;
      let handled = 0;
      const overtaken: number[] = [];
      await bus.subscribe(
        't',
        async ({ metadata }) => {
          if (metadata.priority === 'critical') {
            handled++;
            overtaken.push(low);
          } else {
            low++;
            await pause(1);
          }
        },
        { group: 'g', maxUnacknowledged: 1 },
      );
      // The subscriber hears of the lane with its first event.
      await publisher.publish('t', 'first', { priority: 'critical' });
      await until(() => handled === 1);
      await publisher.publishBatch(
        Array.from({ length: 10_000 }, (_, n) => ({ eventType: 't', data: n, options: { priority: 'low' as const } })),
      );
      const before: number[] = [];
      for (let n = 1; n <= 5; n++) {
        await until(() => low >= n * 30);
        await publisher.publish('t', 'now', { priority: 'critical' });
        before.push(low);
        await until(() => handled === n + 1);
      }
      // One may run when it is stored, and one be read.
      const waited = before.map((count, n) => (overtaken[n + 1] as number) - count);
      expect(Math.max(...waited)).toBeLessThanOrEqual(3);
      expect(low).toBeLessThan(9_000);
    });

    test('are told to the handler, and those of an event with a partition key too', async () => {
      const bus = await world.bus();
      const got: string[] = [];
      await bus.subscribe('t', ({ metadata }) => void got.push(`${metadata.priority} ${metadata.partitionKey ?? '-'}`));
      for (const priority of ['critical', 'high', 'normal', 'low'] as const) await bus.publish('t', 1, { priority });
      await bus.publish('t', 1, { priority: 'high', partitionKey: 'k' });
      await until(() => got.length === 5);
      expect(got.sort()).toEqual(['critical -', 'high -', 'high k', 'low -', 'normal -']);
    });

    test('defaults.priority is the lane of events without one', async () => {
      const bus = await world.bus({ defaults: { priority: 'low' as never } });
      const got: string[] = [];
      await bus.subscribe('t', ({ metadata }) => void got.push(metadata.priority));
      await bus.publish('t', 1);
      await bus.publish('t', 1, { priority: 'high' });
      await until(() => got.length === 2);
      expect(got.sort()).toEqual(['high', 'low']);
    });

    test('a lane is first used long after the subscription: its events come all the same', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      const got: unknown[] = [];
      await bus.subscribe('t', ({ data }) => void got.push(data), { group: 'g' });
      await other.publish('t', 'normal');
      await until(() => got.length === 1);
      await other.publish('t', 'urgent', { priority: 'critical' });
      await until(() => got.length === 2);
      expect((await bus.getStream('t'))?.name).toBe('t');
    });
  });

  describe('filters', () => {
    test('by source, tag, priority and header; what nobody takes is acknowledged', async () => {
      const bus = await world.bus();
      const got: Record<string, unknown[]> = { source: [], tags: [], priority: [], headers: [], all: [] };
      const into = (name: string) => (event: { data: unknown }) => void (got[name] as unknown[]).push(event.data);
      await bus.subscribe('t', into('source'), { group: 'source', filter: { source: ['a', 'b'] } });
      await bus.subscribe('t', into('tags'), { group: 'tags', filter: { tags: ['x', 'y'] } });
      await bus.subscribe('t', into('priority'), { group: 'priority', filter: { priority: ['high' as never] } });
      await bus.subscribe('t', into('headers'), { group: 'headers', filter: { headers: { h: '1' } } });
      await bus.subscribe('t', into('all'), { group: 'all', filter: { source: 'a', tags: ['x'], headers: { h: '1' } } });
      await bus.publish('t', 1, { source: 'a', tags: ['x'], headers: { h: '1', k: '2' }, priority: 'high' });
      await bus.publish('t', 2, { source: 'b', tags: ['z'], headers: { h: '2' } });
      await bus.publish('t', 3, { source: 'c', tags: ['y'] });
      await bus.publish('t', 4);
      const drained = async () => {
        const groups = (await bus.getStream('t'))?.stats.groups ?? [];
        return groups.length === 5 && groups.every((group) => group.pending === 0 && group.lag === 0);
      };
      await until(drained);
      for (const list of Object.values(got)) list.sort();
      expect(got).toEqual({ source: [1, 2], tags: [1, 3], priority: [1], headers: [1], all: [1] });
    });

    test('of two members of a group must agree', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      await bus.subscribe('t', () => undefined, { group: 'g', filter: { tags: ['x'] } });
      await refusal('ERR_INVALID_ARGUMENT', () => other.subscribe('t', () => undefined, { group: 'g' }));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => undefined, { group: 'g', filter: { tags: ['y'] } }));
    });
  });

  describe('batches', () => {
    test('hold up to maxSize events, which are acknowledged together', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 25; n++) await bus.publish('t', n);
      const sizes: number[] = [];
      const got: unknown[] = [];
      await bus.subscribe(
        't',
        (events: any, context: any) => {
          sizes.push(events.length);
          for (const { data } of events as Events) got.push(data);
          expect(context.attempt).toBe(1);
          expect(context.streamId).toMatch(/^\d+-\d+$/);
        },
        { group: 'g', batch: { maxSize: 10, maxWaitMs: 50 }, concurrency: 1 },
      );
      await until(() => got.length === 25);
      expect(Math.max(...sizes)).toBe(10);
      expect(got).toEqual(Array.from({ length: 25 }, (_, n) => n));
      await until(async () => (await bus.getStream('t'))?.stats.groups[0]?.pending === 0);
    });

    test('a batch that is not full waits for maxWaitMs, and no longer', async () => {
      const bus = await world.bus();
      const calls: { size: number; at: number }[] = [];
      await bus.subscribe('t', (events: any) => void calls.push({ size: events.length, at: Date.now() }), {
        batch: { maxSize: 100, maxWaitMs: 300 },
      });
      const start = Date.now();
      for (let n = 0; n < 5; n++) await bus.publish('t', n);
      const published = Date.now();
      await until(() => calls.reduce((sum, { size }) => sum + size, 0) === 5);
      expect(calls[0]?.at ?? 0).toBeGreaterThanOrEqual(start + 295);
      // What was published within the wait came with the first.
      if (published - start < 200) expect(calls.map(({ size }) => size)).toEqual([5]);
    });

    test('context.fail() fails one event, the others are acknowledged; a throw fails all', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 4; n++) await bus.publish('t', n);
      const calls: { data: unknown; attempt: number }[][] = [];
      await bus.subscribe(
        't',
        (events: any, context: any) => {
          calls.push((events as Events).map(({ data, metadata }) => ({ data, attempt: metadata.attempt })));
          (events as Events).forEach(({ data, metadata }, index) => {
            if (data === 2 && metadata.attempt === 1) context.fail(index, new Error('only this one'));
          });
        },
        { group: 'g', batch: { maxSize: 4, maxWaitMs: 1000 }, retry: quick(3), maxUnacknowledged: 4 },
      );
      await until(() => calls.length === 2);
      expect(calls).toEqual([[0, 1, 2, 3].map((data) => ({ data, attempt: 1 })), [{ data: 2, attempt: 2 }]]);
      await until(async () => (await bus.getStream('t'))?.stats.groups[0]?.pending === 0);

      const failed: unknown[] = [];
      bus.on('event:dead-lettered', (event) => failed.push(event.error));
      await bus.subscribe(
        'u',
        () => {
          throw new Error('all of them');
        },
        { batch: { maxSize: 3, maxWaitMs: 1000 }, retry: quick(0), maxUnacknowledged: 3 },
      );
      for (let n = 0; n < 3; n++) await bus.publish('u', n);
      await until(() => failed.length === 3);
      expect(failed).toEqual(['all of them', 'all of them', 'all of them']);
    });

    test('with autoAck false, ack() and nack() are for the whole batch', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 3; n++) await bus.publish('t', n);
      const attempts: number[] = [];
      await bus.subscribe(
        't',
        async (events: any, context: any) => {
          attempts.push(...(events as Events).map(({ metadata }) => metadata.attempt));
          if (context.attempt === 1) await context.nack({ delayMs: 10 });
          else await context.ack();
        },
        { group: 'g', autoAck: false, batch: { maxSize: 3, maxWaitMs: 200 }, maxUnacknowledged: 3 },
      );
      await until(() => attempts.length === 6);
      expect(attempts.sort()).toEqual([1, 1, 1, 2, 2, 2]);
      await until(async () => (await bus.getStream('t'))?.stats.groups[0]?.pending === 0);
    });

    test('a batch that takes too long is redelivered, and takes one place', async () => {
      const bus = await world.bus();
      for (let n = 0; n < 6; n++) await bus.publish('t', n);
      const reasons: string[] = [];
      const redelivered: unknown[] = [];
      await bus.subscribe(
        't',
        (events: any, context: any) => {
          if (context.redelivered) {
            redelivered.push(...(events as Events).map(({ data }) => data));
            return undefined;
          }
          return new Promise(() => context.signal.addEventListener('abort', () => reasons.push(context.signal.reason.code)));
        },
        { group: 'g', batch: { maxSize: 3 }, concurrency: 2, maxUnacknowledged: 6, consumerTimeout: 100, retry: quick(1) },
      );
      await until(() => redelivered.length >= 6);
      expect(new Set(reasons)).toEqual(new Set(['ERR_HANDLER_TIMEOUT']));
      expect([...redelivered].sort()).toEqual([0, 1, 2, 3, 4, 5]);
    });

    test('unfinished batches are handed back at disconnect, uncounted', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      for (let n = 0; n < 4; n++) await bus.publish('t', n);
      let called = 0;
      await bus.subscribe(
        't',
        () => {
          called++;
          return new Promise(() => undefined);
        },
        { group: 'g', batch: { maxSize: 4, maxWaitMs: 500 }, maxUnacknowledged: 4 },
      );
      await until(() => called === 1);
      await bus.disconnect({ drainTimeoutMs: 0 });
      const attempts: number[] = [];
      await other.subscribe('t', (events: any) => void attempts.push(...(events as Events).map(({ metadata }) => metadata.attempt)), {
        group: 'g',
        batch: { maxSize: 4, maxWaitMs: 500 },
        maxUnacknowledged: 4,
      });
      await until(() => attempts.length === 4);
      expect(attempts).toEqual([1, 1, 1, 1]);
    });

    test('wrong use is refused', async () => {
      const bus = await world.bus();
      const errors: string[] = [];
      await bus.subscribe(
        't',
        (_events: any, context: any) => {
          for (const index of [-1, 1, 0.5, 'x']) {
            try {
              context.fail(index, new Error('x'));
            } catch (error: any) {
              errors.push(`${error.code} ${error.details.argument}`);
            }
          }
        },
        { group: 'g', batch: { maxSize: 1 } },
      );
      await bus.publish('t', 1);
      await until(() => errors.length === 4);
      expect(new Set(errors)).toEqual(new Set(['ERR_INVALID_ARGUMENT index']));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', null, { group: 'i', batch: { maxSize: 2 } }));
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('**', () => undefined, { group: 'g' }));
      expect(error.message).toContain("'batch' or 'ordered'");
      let refused: any;
      await bus.subscribe('single', (_event: any, context: any) => {
        try {
          context.fail(0, 'x');
        } catch (thrown) {
          refused = thrown;
        }
      });
      await bus.publish('single', 1);
      await until(() => refused !== undefined);
      expect(refused.code).toBe('ERR_INVALID_ARGUMENT');
    });
  });
});

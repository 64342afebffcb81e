/** Ordered groups: of each key one event at a time, in the order of publishing. */
import { pause, until } from './support/wait';
import { quick, refusal, stores, useWorld } from './support/world';

/** Handlers that check the course of each key: one at a time, none before the one in front of it. */
class Course {
  readonly wrong: string[] = [];
  done = 0;
  readonly #next = new Map<string, number>();
  readonly #running = new Set<string>();

  begin(key: string, n: number): void {
    if (this.#running.has(key)) this.wrong.push(`two of ${key} at once: ${n}`);
    this.#running.add(key);
    const next = this.#next.get(key) ?? 0;
    if (n > next) this.wrong.push(`${key}: ${n} before ${next}`);
  }

  end(key: string, n: number, isDone: boolean): void {
    this.#running.delete(key);
    if (!isDone || n !== (this.#next.get(key) ?? 0)) return;
    this.#next.set(key, n + 1);
    this.done++;
  }
}

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);
  const wide = { maxLength: 100_000, retention: 'time', retentionValue: 3600, partitioning: 'hash', partitions: 8 } as const;

  test('keys keep their order over failures, on two buses that share the partitions', async () => {
    const [publisher, ...members] = [await world.bus(), await world.bus(), await world.bus()];
    await publisher.createStream('t', wide);
    const course = new Course();
    const worked = [0, 0];
    for (const [index, member] of members.entries()) {
      await member.subscribe(
        't',
        async ({ data, metadata }) => {
          course.begin(data.key, data.n);
          worked[index]!++;
          await pause(Math.random() * 3);
          const fails = data.n % 7 === 3 && metadata.attempt === 1;
          course.end(data.key, data.n, !fails);
          if (fails) throw new Error('once');
        },
        { group: 'g', ordered: true, retry: quick(10, 20) },
      );
    }
    for (let n = 0; n < 20; n++) {
      for (let k = 0; k < 40; k++) void publisher.publish('t', { key: `k${k}`, n }, { partitionKey: `k${k}` });
      await pause(100); // long enough in all for both members to have their share
    }
    await until(() => course.done === 800, { timeoutMs: 40_000, show: () => ({ done: course.done, wrong: course.wrong }) });
    expect(course.wrong).toEqual([]);
    expect(worked.every((count) => count > 0)).toBe(true);
    await until(async () => (await publisher.getStream('t'))?.stats.groups[0]?.pending === 0);
  }, 60_000);

  test('what waits behind a retry waits, and other keys go on', async () => {
    const bus = await world.bus();
    const seen: string[] = [];
    await bus.subscribe(
      't',
      ({ data, metadata }) => {
        seen.push(`${data} ${metadata.attempt}`);
        if (data === 'a1' && metadata.attempt === 1) throw new Error('once');
      },
      { group: 'g', ordered: true, retry: quick(3, 700) },
    );
    for (const name of ['a1', 'a2', 'b1', 'b2']) await bus.publish('t', name, { partitionKey: name[0] as string });
    await until(() => seen.length === 5);
    expect(seen.filter((line) => line.startsWith('a'))).toEqual(['a1 1', 'a1 2', 'a2 1']);
    expect(seen.filter((line) => line.startsWith('b'))).toEqual(['b1 1', 'b2 1']);
    expect(seen.indexOf('b2 1')).toBeLessThan(seen.indexOf('a1 2'));
  });

  test('a dead letter lets its key go on, and is redriven in its own time', async () => {
    const bus = await world.bus();
    const seen: string[] = [];
    let good = false;
    await bus.subscribe(
      't',
      ({ data }) => {
        seen.push(data);
        if (data === 'bad' && !good) throw new Error('never');
      },
      { group: 'g', ordered: true, errorStrategy: 'dlq' },
    );
    for (const name of ['one', 'bad', 'two']) await bus.publish('t', name, { partitionKey: 'k' });
    await until(() => seen.length === 3);
    expect(seen).toEqual(['one', 'bad', 'two']);
    good = true;
    await until(async () => (await bus.deadLetters.count({ eventType: 't' })) === 1);
    expect(await bus.deadLetters.redrive({ eventType: 't' })).toBe(1);
    await until(() => seen.length === 4);
  });

  test('in batches of one event a key', async () => {
    const bus = await world.bus();
    for (let n = 0; n < 5; n++) for (const key of ['a', 'b', 'c']) await bus.publish('t', { key, n }, { partitionKey: key });
    const batches: { key: string; n: number }[][] = [];
    await bus.subscribe('t', (events: any) => void batches.push(events.map((event: any) => event.data)), {
      group: 'g',
      ordered: true,
      batch: { maxSize: 10, maxWaitMs: 5 },
    });
    await until(() => batches.flat().length === 15);
    for (const batch of batches) expect(new Set(batch.map(({ key }) => key)).size).toBe(batch.length);
    for (const key of ['a', 'b', 'c']) {
      const course = batches.flat().filter((event) => event.key === key);
      expect(course.map(({ n }) => n)).toEqual([0, 1, 2, 3, 4]);
    }
  });

  test('the same key goes to the same partition from every bus, and a handler sees it', async () => {
    const [one, two] = [await world.bus(), await world.bus()];
    await one.createStream('t', wide);
    const got: [string, string][] = [];
    await one.subscribe('t', ({ metadata }) => void got.push([metadata.partitionKey as string, metadata.id]));
    for (const bus of [one, two]) for (let k = 0; k < 20; k++) await bus.publish('t', 1, { partitionKey: `k${k}` });
    await until(() => got.length === 40);
    expect(new Set(got.map(([key]) => key)).size).toBe(20);
  });

  test('a group that is ordered for one bus is so for all, and for every pattern', async () => {
    const [bus, other] = [await world.bus(), await world.bus()];
    await bus.subscribe('t', () => undefined, { group: 'g', ordered: true });
    await refusal('ERR_INVALID_ARGUMENT', () => other.subscribe('t', () => undefined, { group: 'g' }));
    await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('*', () => undefined, { group: 'g' }));
    await bus.subscribe('u.*', () => undefined, { group: 'g' });
  });
});

/** Debug mode: what each event went through, as it is logged. */
import type { DeepPartial, EventBusConfig } from '@bluefly/ossa';
import { until } from './support/wait';
import { quick, stores, useWorld } from './support/world';

type Tracing = EventBusConfig['monitoring']['tracing'];
const tracing = (tracing?: Tracing): DeepPartial<EventBusConfig> => ({ monitoring: { tracing } });
const everything = tracing({ enabled: true, samplingRate: 1 });

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  /** Steps that are logged of an event, without what differs from run to run. */
  const steps = (id: string, logs: readonly string[] = world.logs): string[] => {
    const start = `debug event=${id} `;
    return logs.filter((line) => line.startsWith(start)).map((line) => line.slice(start.length));
  };
  /** Names of these steps. */
  const names = (id: string): string[] => steps(id).map((line) => /step=(\S+)/.exec(line)?.[1] ?? line);
  const debugLines = (): string[] => world.logs.filter((line) => line.startsWith('debug '));
  const fail = (): never => {
    throw new Error('out of\npaper');
  };

  test('every step of an event that is retried and dead-lettered', async () => {
    const bus = await world.bus(everything);
    const subscription = await bus.subscribe('t.x', fail, { group: 'g', retry: quick(1, 20) });
    const id = await bus.publish('t.x', { card: 'top secret' });
    await until(() => names(id).includes('dead-lettered') && names(id).includes('published'), { show: () => world.logs });
    // The publisher hears from the store beside the consumer: its line may come later.
    expect(names(id).filter((name) => name !== 'published')).toEqual([
      'delivered',
      'failed',
      'retried',
      'delivered',
      'failed',
      'dead-lettered',
    ]);

    const [published] = steps(id).filter((line) => line.includes('step=published'));
    expect(published).toMatch(/^type=t\.x step=published stream=t\.x:0 bucket=\d+ ms=\d+\.\d$/);
    const rest = steps(id).filter((line) => line !== published);
    const entry = /entry=(\d+-\d+)/.exec(rest[0] ?? '')?.[1];
    const about = (attempt: number) => `attempt=${attempt} entry=${entry}`;
    const error = 'error="out of\\u{a}paper"';
    expect(rest.map((line) => line.replace(/ ms=\d+\.\d/, ' ms=#'))).toEqual([
      `type=t.x step=delivered group=g consumer=${subscription.consumer} ${about(1)}`,
      `type=t.x step=failed group=g ${about(1)} ms=# ${error}`,
      `type=t.x step=retried group=g ${about(1)} in-ms=20`,
      `type=t.x step=delivered group=g consumer=${subscription.consumer} ${about(2)}`,
      `type=t.x step=failed group=g ${about(2)} ms=# ${error}`,
      `type=t.x step=dead-lettered group=g ${about(2)} reason=max-attempts ${error}`,
    ]);
    expect(world.logs.join()).not.toContain('secret');
  });

  test('acknowledged, handed back, expired and published a second time', async () => {
    const bus = await world.bus(everything);
    const short = await bus.publish('t', 'too late', { ttl: 0.001 });
    const id = await bus.publish('t', 1, { idempotencyKey: 'k' });
    expect(await bus.publish('t', 2, { idempotencyKey: 'k' })).toBe(id);
    const again = await until(() => debugLines().find((line) => line.endsWith(`duplicate-of=${id}`)));
    expect(again).toMatch(/^debug event=\S+ type=t step=published /);

    const expiry = Date.now() + 5;
    await until(() => Date.now() > expiry);
    let calls = 0;
    const stuck = await bus.subscribe('t', () => new Promise(() => void calls++), { group: 'g' });
    await until(() => calls === 1, { show: () => world.logs });
    await until(() => names(short).includes('expired'));
    await stuck.close({ drainTimeoutMs: 0 });
    await until(() => names(id).includes('handed-back'), { show: () => world.logs });
    await bus.subscribe('t', () => undefined, { group: 'g' });
    await until(() => names(id).includes('acknowledged'), { show: () => world.logs });
    expect(names(id)).toEqual(['published', 'delivered', 'handed-back', 'delivered', 'acknowledged']);
    expect(steps(id).at(-1)).toMatch(/^type=t step=acknowledged group=g attempt=1 entry=\d+-\d+ ms=\d+\.\d$/);
    expect(steps(short).at(-1)).toMatch(/^type=t step=expired group=g .*dead-lettered=false$/);
  });

  test('at half the rate publisher and consumer log the same events', async () => {
    const half = tracing({ enabled: true, samplingRate: 0.5 });
    const [publisher, consumer] = [await world.bus(half), await world.bus(half)];
    const ids = await publisher.publishBatch(Array.from({ length: 200 }, (_, data) => ({ eventType: 't', data })));
    let handled = 0;
    await consumer.subscribe('t', () => void handled++, { group: 'g' });
    await until(() => handled >= ids.length);
    const idsOf = (step: string) => {
      const found = debugLines().map((line) => /^debug event=(\S+) type=t step=(\S+)/.exec(line));
      return found.filter((match) => match?.[2] === step).map((match) => match?.[1]);
    };
    const published = idsOf('published');
    await until(() => idsOf('acknowledged').length >= published.length, { show: () => world.logs });
    // Which ids there are is chance; that fewer than 40 or more than 160 of 200 are taken is none.
    expect(published.length).toBeGreaterThan(40);
    expect(published.length).toBeLessThan(160);
    expect(idsOf('delivered').sort()).toEqual([...published].sort());
    expect(idsOf('acknowledged').sort()).toEqual([...published].sort());
  });

  test.each<[string, Tracing | undefined]>([
    ['nothing is said', undefined],
    ['tracing is true', true],
    ['tracing is false', false],
    ['no rate is given', { enabled: true }],
    ['the rate is 0', { enabled: true, samplingRate: 0 }],
    ['tracing is not enabled', { enabled: false, samplingRate: 1 }],
  ])('nothing is logged where %s', async (_, value) => {
    const bus = await world.bus(tracing(value));
    const told: string[] = [];
    for (const name of ['event:published', 'event:retried', 'event:dead-lettered']) bus.on(name, () => void told.push(name));
    await bus.subscribe('t', fail, { group: 'g', retry: quick(1) });
    await bus.publish('t', 1);
    // Lines cross together with these.
    await until(() => ['event:published', 'event:retried', 'event:dead-lettered'].every((name) => told.includes(name)));
    expect(debugLines()).toEqual([]);
  });

  test('without a logger the lines go to console.debug', async () => {
    const spy = jest.spyOn(console, 'debug').mockImplementation(() => undefined);
    try {
      const bus = await world.bus({ ...everything, logger: undefined });
      const id = await bus.publish('t', 1);
      const lines = () => spy.mock.calls.map(([line]) => String(line));
      await until(() => lines().length > 0);
      expect(lines()[0]).toMatch(new RegExp(`^@bluefly/ossa: event=${id} type=t step=published `));
      await bus.disconnect();
    } finally {
      spy.mockRestore();
    }
  });
});

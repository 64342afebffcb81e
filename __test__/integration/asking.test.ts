/** Requests answered by other processes, one of which is killed, and over a server that goes away. */

import { endAll, start } from '../support/children';
import { RedisEventBus } from '../support/package';
import { TestServer } from '../support/server';
import { pause, until } from '../support/wait';
import { freshPrefix, redisUrl, useWorld } from '../support/world';

jest.setTimeout(120_000);
afterEach(endAll);

const world = useWorld('redis');

const SECONDS = 12;
const RATE = 1000;
/** Above the 8 s after which others take over. */
const TIMEOUT_MS = 40_000;

test(`${RATE} requests a second to two processes, one of which is killed: every one is answered`, async () => {
  const bus = await world.bus();
  const task = { redis: { url: redisUrl(), keyPrefix: world.prefix }, pattern: 'ask', options: { group: 'g' }, workMs: 30 };
  const responders = [start('responder.cjs', task), start('responder.cjs', task)];
  await until(() => responders.every((program) => program.lines.some((line) => line.ready)), { timeoutMs: 30_000 });

  const latencies: number[] = [];
  const answeredBy = new Map<number, number>();
  const wrong: unknown[] = [];
  const waiting: Array<Promise<void>> = [];
  const ask = async (n: number): Promise<void> => {
    const begin = performance.now();
    try {
      const answer = await bus.request<{ n: number; by: number }>('ask', { n }, { timeoutMs: TIMEOUT_MS });
      if (answer.n !== n) wrong.push(answer);
      latencies.push(performance.now() - begin);
      answeredBy.set(answer.by, (answeredBy.get(answer.by) ?? 0) + 1);
    } catch (error) {
      wrong.push(error);
    }
  };
  const begin = performance.now();
  let killed = false;
  while (waiting.length < SECONDS * RATE) {
    const due = Math.min(SECONDS * RATE, ((performance.now() - begin) / 1000) * RATE);
    while (waiting.length < due) waiting.push(ask(waiting.length));
    if (!killed && waiting.length > (SECONDS * RATE) / 3) {
      killed = true;
      responders[0].kill('SIGKILL');
    }
    await pause(5);
  }
  const asked = performance.now() - begin;
  await Promise.all(waiting);
  latencies.sort((a, b) => a - b);
  const quantile = (share: number) => (latencies[Math.floor(latencies.length * share)] ?? Number.NaN).toFixed(1);
  console.log(
    `${latencies.length} requests at ${((waiting.length * 1000) / asked).toFixed(0)} a second; answered after ` +
      `p50 ${quantile(0.5)} ms, p99 ${quantile(0.99)} ms, the last after ${quantile(0.99999)} ms; by ${[...answeredBy.values()].join(' and ')}`,
  );
  expect(wrong).toEqual([]);
  expect(latencies.length).toBe(SECONDS * RATE);
  expect(answeredBy.size).toBe(2);
  // What the killed one held was taken over, after its lease.
  expect(latencies.at(-1)).toBeGreaterThan(2_000);
  responders[1].kill('SIGTERM');
  expect(await responders[1].ended).toEqual({ code: 0, signal: null });
});

test('a request waits over a server that goes away and comes back', async () => {
  const server = await TestServer.start(['--appendonly', 'yes', '--appendfsync', 'always']);
  const redis = { url: server.url, keyPrefix: freshPrefix() };
  const [asker, answerer] = [new RedisEventBus({ redis }), new RedisEventBus({ redis })];
  for (const bus of [asker, answerer]) bus.on('error', () => undefined);
  try {
    await Promise.all([asker.connect(), answerer.connect()]);
    let begun = 0;
    let open!: () => void;
    const opened = new Promise<void>((resolve) => (open = resolve));
    await answerer.subscribe('t', async ({ data }) => {
      begun++;
      await opened;
      return data;
    });
    const asking = Promise.all([1, 2, 3].map((n) => asker.request('t', n, { timeoutMs: 60_000 })));
    await until(() => begun === 3);
    await server.kill();
    open();
    await server.start();
    expect(await asking).toEqual([1, 2, 3]);
  } finally {
    await Promise.all([asker.disconnect({ drainTimeoutMs: 0 }), answerer.disconnect({ drainTimeoutMs: 0 })]);
    await server.stop();
  }
});

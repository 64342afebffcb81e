/** Several processes on one Redis: what they hold, what happens when they stop, and how they end. */

import { endAll, type Program, start } from '../support/children';
import { TestServer } from '../support/server';
import { pause, until, within } from '../support/wait';
import { quick, redisUrl, useWorld } from '../support/world';

jest.setTimeout(120_000);
afterEach(endAll);

const world = useWorld('redis');
const redis = () => ({ url: redisUrl(), keyPrefix: world.prefix });

const consumer = (task: object) => start('consumer.cjs', { redis: redis(), pattern: 't', ...task });
const ready = (program: Program) => until(() => program.lines.some((line) => line.ready), { timeoutMs: 30_000, show: program.stderr });
const deliveries = (program: Program) => program.lines.filter((line) => line.n !== undefined);

test('500 subscriptions of one group use no more connections than one', async () => {
  const server = await TestServer.start();
  const client = server.client();
  const connections = async () =>
    String(await client.client('LIST'))
      .trim()
      .split('\n').length;
  try {
    const bus = await world.bus({ redis: { url: server.url } });
    let got = 0;
    await bus.subscribe('t.0', () => void got++);
    await bus.publish('t.0', 1);
    // What the bus opens as it is needed is open now.
    for (let n = 0; n < 64; n++) await bus.publish(`other.${n}`, 1);
    await until(() => got === 1);
    await pause(3000);
    const before = await connections();
    for (let n = 1; n < 500; n++) await bus.subscribe(`t.${n}`, () => void got++);
    for (let n = 0; n < 500; n++) await bus.publish(`t.${n}`, 1);
    await until(() => got === 501);
    await pause(3000);
    expect(await connections()).toBeLessThanOrEqual(before);
    await bus.disconnect();
    await until(async () => (await connections()) === 1);
  } finally {
    client.disconnect();
    await server.stop();
  }
});

test('while a handler blocks the JavaScript thread for ten seconds, nothing that its process holds goes to another', async () => {
  const options = { group: 'g', maxUnacknowledged: 5, consumerTimeout: 60_000 };
  const blocking = consumer({ options, handler: 'block', blockMs: 10_000 });
  await ready(blocking);
  const bus = await world.bus();
  for (let n = 0; n < 5; n++) await bus.publish('t', { n });
  await until(async () => blocking.lines.some((line) => line.started) && (await bus.getStream('t'))?.stats.groups[0].pending === 5);
  const other = consumer({ options });
  await ready(other);
  await bus.publish('t', { n: 5 });
  await until(() => deliveries(other).length === 1);
  await until(() => blocking.lines.filter((line) => line.finished).length === 5, { timeoutMs: 40_000 });
  await until(async () => (await bus.getStream('t'))?.stats.groups[0].pending === 0);
  expect(deliveries(other).map((line) => line.n)).toEqual([5]);
  expect(deliveries(blocking).every((line) => line.attempt === 1)).toBe(true);
});

test('a process that is stopped loses what it holds to others within seconds, and does no harm when it goes on', async () => {
  const options = { group: 'g', maxUnacknowledged: 10, consumerTimeout: 120_000 };
  const stopped = consumer({ options, handler: 'hold' });
  await ready(stopped);
  const bus = await world.bus();
  for (let n = 0; n < 10; n++) await bus.publish('t', { n });
  await until(() => deliveries(stopped).length === 10);
  stopped.kill('SIGSTOP');
  const other = consumer({ options });
  await ready(other);
  await until(() => deliveries(other).length === 10, { timeoutMs: 20_000, show: () => other.lines });
  await until(async () => (await bus.getStream('t'))?.stats.groups[0].pending === 0);
  stopped.kill('SIGCONT');
  // It goes on as a member of the group: both get new events, none twice.
  const seen = () => [...deliveries(other).slice(10), ...deliveries(stopped).slice(10)];
  for (let n = 10; n < 60; n++) await bus.publish('t', { n });
  await until(() => seen().length >= 50, { show: seen });
  await pause(3000);
  expect(
    seen()
      .map((line) => line.n)
      .sort((a, b) => a - b),
  ).toEqual(Array.from({ length: 50 }, (_, n) => n + 10));
  stopped.kill('SIGTERM');
  other.kill('SIGTERM');
  expect(await within(25_000, 'the end of the one that was stopped', stopped.ended)).toEqual({ code: 0, signal: null });
  expect(await within(25_000, 'the end of the other one', other.ended)).toEqual({ code: 0, signal: null });
});

test('retries that were outstanding when all consumers were killed happen after the next start', async () => {
  const options = { group: 'g', retry: quick(20, 1500) };
  const killed = [consumer({ options, handler: 'fail' }), consumer({ options, handler: 'fail' })];
  await Promise.all(killed.map(ready));
  const bus = await world.bus();
  for (let n = 0; n < 40; n++) await bus.publish('t', { n });
  const numbers = (programs: Program[]) => new Set(programs.flatMap(deliveries).map((line) => line.n));
  await until(() => numbers(killed).size === 40);
  for (const program of killed) program.kill('SIGKILL');
  await Promise.all(killed.map((program) => program.ended));
  await bus.disconnect();
  // Nobody is left. Then one starts.
  const next = consumer({ options });
  await until(() => numbers([next]).size === 40, { timeoutMs: 40_000, show: () => deliveries(next).length });
  for (const line of deliveries(next)) expect(line.attempt).toBeGreaterThanOrEqual(2);
});

test('an event whose handler ends its process each time reaches the dead letters as crashed', async () => {
  const bus = await world.bus();
  const options = { group: 'g', maxUnacknowledged: 1 };
  await bus.publish('t', { n: 0 });
  const count = () => bus.deadLetters.count({ group: 'g' });
  for (let deaths = 0; deaths < 6 && (await count()) === 0; deaths++) {
    const program = consumer({ options, handler: 'exit' });
    const died = program.ended.then(({ code }) => expect(code).toBe(7));
    await Promise.race([died, until(async () => (await count()) === 1, { timeoutMs: 20_000, everyMs: 100 })]);
  }
  await until(async () => (await count()) === 1, { timeoutMs: 20_000 });
  expect((await bus.deadLetters.list()).items[0]).toMatchObject({ reason: 'crashed', event: { data: { n: 0 } } });
});

test('consumers that died leave nothing behind in the group', async () => {
  const bus = await world.bus();
  const programs = [1, 2, 3].map(() => consumer({ options: { group: 'g' } }));
  await Promise.all(programs.map(ready));
  const consumers = async () => (await bus.getStream('t'))?.stats.groups[0]?.consumers;
  await until(async () => {
    await bus.publish('t', { n: 0 });
    return (await consumers()) === 3;
  });
  for (const program of programs) program.kill('SIGKILL');
  let seen = 0;
  await bus.subscribe('t', () => void seen++, { group: 'g' });
  // A member shows once it has read something.
  await bus.publish('t', { n: 1 });
  await until(() => seen > 0);
  await until(async () => (await consumers()) === 1, { timeoutMs: 25_000, everyMs: 100 });
});

test('disconnect in a handler, on SIGTERM and by process.exit: the process ends', async () => {
  const bus = await world.bus();
  const programs = ['disconnect', 'succeed', 'exit'].map((handler) => consumer({ handler, options: { group: handler } }));
  await Promise.all(programs.map(ready));
  programs[1].kill('SIGTERM');
  expect(await within(25_000, 'SIGTERM', programs[1].ended)).toEqual({ code: 0, signal: null });
  await bus.publish('t', { n: 0 });
  expect(await within(25_000, 'disconnect in a handler', programs[0].ended)).toEqual({ code: 0, signal: null });
  expect(await within(25_000, 'process.exit in a handler', programs[2].ended)).toEqual({ code: 7, signal: null });
  expect(programs[0].lines.at(-1)).toEqual({ disconnected: true });
});

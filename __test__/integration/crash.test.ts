/** Consumers that are killed while they work: nothing is lost, nothing is stuck. */
import { endAll, type Line, type Program, start } from '../support/children';
import { pause, until } from '../support/wait';
import { quick, redisUrl, useWorld } from '../support/world';
import { failsAlways } from './programs/seeded.cjs';

jest.setTimeout(120_000);
afterEach(endAll);

const world = useWorld('redis');

const EVENTS = 20_000;
const TYPES = 50;
const KILLS = 10;

test(`${EVENTS} events of ${TYPES} types, three consumers of which one is killed every second, a tenth of the deliveries failing`, async () => {
  const bus = await world.bus();
  const handled = new Map<number, number>();
  const onLine = (line: Line) => {
    if (line.n !== undefined) handled.set(line.n, (handled.get(line.n) ?? 0) + 1);
  };
  const task = {
    redis: { url: redisUrl(), keyPrefix: world.prefix },
    pattern: 'crash.**',
    options: { group: 'g', maxUnacknowledged: 50, consumerTimeout: 10_000, retry: quick(3, 100) },
    handler: 'fail-some',
    workMs: 2,
  };
  const startOne = () => start('consumer.cjs', task, { onLine });
  const consumers: Program[] = [startOne(), startOne(), startOne()];
  await until(() => consumers.every((program) => program.lines.some((line) => line.ready)), { timeoutMs: 20_000 });

  let published = 0;
  const publishing = (async () => {
    while (published < EVENTS) {
      const ids = Array.from({ length: 200 }, () => published++);
      await Promise.all(ids.map((n) => bus.publish(`crash.${n % TYPES}`, { n })));
      await pause(60);
    }
  })();
  for (let kill = 0; kill < KILLS; kill++) {
    await pause(1000);
    consumers[kill % 3].kill('SIGKILL');
    consumers[kill % 3] = startOne();
  }
  await publishing;

  const dead = new Map<number, string>();
  const readDead = async () => {
    dead.clear();
    let cursor: string | undefined;
    do {
      const page = await bus.deadLetters.list({ group: 'g', limit: 1000, cursor });
      for (const letter of page.items) dead.set(letter.event.data.n, letter.reason);
      cursor = page.cursor;
    } while (cursor !== undefined);
  };
  const pending = async () => {
    let sum = 0;
    for (let type = 0; type < TYPES; type++) {
      const group = (await bus.getStream(`crash.${type}`))?.stats.groups.find((found) => found.name === 'g');
      sum += (group?.pending ?? 0) + (group?.lag ?? 0);
    }
    return sum;
  };
  await until(async () => (await pending()) === 0, { timeoutMs: 60_000, everyMs: 250 });
  await readDead();

  const all = Array.from({ length: EVENTS }, (_, n) => n);
  expect(all.filter((n) => !handled.has(n) && !dead.has(n))).toEqual([]);
  expect(all.filter((n) => failsAlways(n) && dead.get(n) !== 'max-attempts' && dead.get(n) !== 'crashed')).toEqual([]);
  expect(new Set(dead.values()).size).toBeLessThanOrEqual(2);
  // What a killed process held may be handled twice; no more than that.
  expect([...handled.values()].filter((times) => times > 1).length).toBeLessThanOrEqual(KILLS * 100);

  await until(() => consumers.every((program) => program.lines.some((line) => line.ready)));
  for (const program of consumers) program.kill('SIGTERM');
  for (const program of consumers) expect(await program.ended).toEqual({ code: 0, signal: null });
});

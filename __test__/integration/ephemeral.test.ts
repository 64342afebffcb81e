/** Ephemeral groups of processes that are killed. */
import { endAll, start } from '../support/children';
import { until } from '../support/wait';
import { redisUrl, useWorld } from '../support/world';

jest.setTimeout(90_000);
afterEach(endAll);

const world = useWorld('redis');

/** How long the group of a killed process may stay. */
const GONE_WITHIN_MS = 30_000;

test.each([
  ['t', 'its own type'],
  ['t.**', 'a pattern'],
])('the group on %s (%s) ends within 30 s of the death of its only process, and the stream is trimmed again', async (pattern) => {
  const bus = await world.bus({ limits: { keepAcknowledged: 0 } });
  await bus.subscribe('t', () => undefined, { group: 'durable' });
  const program = start('consumer.cjs', {
    redis: { url: redisUrl(), keyPrefix: world.prefix },
    pattern,
    options: { group: 'passing', ephemeral: true, maxUnacknowledged: 1 },
    handler: 'hold',
  });
  await until(() => program.lines.some((line) => line.ready), { timeoutMs: 20_000 });
  for (let n = 0; n < 100; n++) await bus.publish('t', { n });
  await until(() => program.lines.some((line) => line.n === 0), { timeoutMs: 20_000 });
  const stats = async () => (await bus.getStream('t'))?.stats;
  await until(async () => (await stats())?.groups.find(({ name }) => name === 'durable')?.lag === 0);
  expect(await stats()).toMatchObject({ messageCount: 100, consumerGroups: 2 });

  const killed = Date.now();
  program.kill('SIGKILL');
  await program.ended;
  await until(async () => (await stats())?.consumerGroups === 1, { timeoutMs: GONE_WITHIN_MS, everyMs: 100 });
  const took = Date.now() - killed;
  console.log(`ephemeral group on ${pattern}: gone ${(took / 1000).toFixed(1)} s after its process was killed`);
  expect(took).toBeLessThan(GONE_WITHIN_MS);
  await until(async () => (await stats())?.messageCount === 0, { timeoutMs: 30_000, everyMs: 100 });
});

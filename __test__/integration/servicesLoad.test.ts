/** Two thousand services of three processes: registered at once, at rest, and watched. */
import { endAll, type Program, start } from '../support/children';
import { commandsDuring, endFleets, Fleet, type Member } from '../support/fleet';
import { freePort, TestServer } from '../support/server';
import { pause, until } from '../support/wait';

jest.setTimeout(60_000);

const names = Array.from({ length: 2000 }, (_, n) => `m${String(n).padStart(4, '0')}`);
const PORTS = 20;
/** Short enough that many probes are within a window. */
const INTERVAL_MS = 8000;
const WINDOW_MS = 4000;
/** What clients send; other commands run in scripts. */
const SENT = ['evalsha', 'eval', 'ping', 'subscribe', 'hello', 'publish'];
const SEARCHES = ['keys', 'scan', 'hscan', 'zscan', 'hgetall', 'hvals', 'hkeys'];

let server: TestServer;
let services: Program;
let ports: number[];
let fleet: Fleet;
let registrars: Member[];

beforeAll(async () => {
  ports = [];
  for (let n = 0; n < PORTS; n++) ports.push(await freePort());
  [server, services] = await Promise.all([TestServer.start(), start('services.cjs', { ports }, { asked: true })]);
  await until(() => services.lines.some((line) => line.ready), { show: () => services.stderr() });
  fleet = new Fleet(server, { healthCheck: { intervalMs: INTERVAL_MS } });
  registrars = await Promise.all(['one', 'two', 'three'].map((name) => fleet.join(name)));
  await fleet.joinHere('here');
});

afterAll(async () => {
  await endFleets();
  await endAll();
  await server?.stop();
});

/** How many commands were sent in a window; fails where one of them, or of those in scripts, looks through more than it has to. */
async function sentAtRest(): Promise<number> {
  const commands = await commandsDuring(server, () => pause(WINDOW_MS));
  expect(SEARCHES.filter((name) => name in commands)).toEqual([]);
  return SENT.reduce((sum, name) => sum + (commands[name] ?? 0), 0);
}
/** Five a second and process. */
const allowed = () => fleet.members.length * 5 * (WINDOW_MS / 1000);

test('they are registered in seconds, and told once to each', async () => {
  const began = Date.now();
  const registration = (name: string, n: number) => ({
    name,
    endpoint: `http://127.0.0.1:${ports[n % PORTS]}`,
    version: '1.0.0',
    capabilities: [{ name: 'many', version: '1.0.0' }],
  });
  const shares = [0, 1, 2].map((r) => names.map(registration).filter((_, n) => n % 3 === r));
  await Promise.all(registrars.map((registrar, r) => registrar.register(shares[r], 100)));
  await fleet.expectNews(names.map((name) => `registered ${name}`));
  expect(Date.now() - began).toBeLessThan(20_000);
});

test('while nothing happens a process sends a few commands a second', async () => {
  expect(await sentAtRest()).toBeLessThanOrEqual(allowed());
});

test('watched by three processes, a probe costs a few commands', async () => {
  await Promise.all(registrars.map((registrar) => registrar.call('startHealthMonitoring')));
  await fleet.expectNews(names.map((name) => `${name} unknown -> healthy`));
  const count = async () => ((await services.ask({ probes: true })).times as number[][]).flat().length;
  const before = await count();
  const sent = await sentAtRest();
  const probes = (await count()) - before;
  // Begun, noted, perhaps once more after reading what another process noted, and ended.
  expect(sent).toBeLessThanOrEqual(allowed() + 5 * probes);
  await fleet.expectNews([]);
});

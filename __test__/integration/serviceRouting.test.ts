/** Events for services while everything fails: the services, the processes of the bus, and Redis. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { endAll, type Program, start } from '../support/children';
import { TestServer } from '../support/server';
import { handles } from '../support/services';
import { pause, until } from '../support/wait';
import { freshPrefix, World } from '../support/world';

jest.setTimeout(120_000);

const EVENTS = 5000;
const TYPES = [
  'order.placed',
  'order.line.added',
  'user.created',
  'user.deleted',
  'task.assigned',
  'task.completed',
  'agent.started',
  'resource.exhausted',
  'mail.sent',
  'payment.made',
];
/** Services, and the types they are to get. */
const SERVICES: Array<[string, Array<{ name: string; version: string; inputs?: object }>, RegExp]> = [
  ['down', [handles('order.*')], /^order\.placed$/],
  ['all-orders', [handles('order.**', 'order.*', 'order.placed')], /^order\./],
  ['users', [handles('user.*', '*.created')], /^user\./],
  ['tasks', [{ name: 'task-management', version: '1.0.0' }], /^task\./],
  ['agents', [{ name: 'agent-orchestration', version: '1.0.0' }], /^agent\./],
  ['resources', [{ name: 'resource-management', version: '1.0.0' }], /^resource\./],
  ['mail', [handles('mail.sent', 'user.created')], /^(mail\.sent|user\.created)$/],
  ['billing', [handles('payment.made'), handles('order.placed')], /^(payment\.made|order\.placed)$/],
  ['two', [{ name: 'task-management', version: '1.0.0' }, handles('agent.*')], /^(task|agent)\./],
  ['history', [handles('*.deleted', '*.completed', '*.exhausted')], /^(user\.deleted|task\.completed|resource\.exhausted)$/],
];
/** What is to be accepted: `<service> <n>`. */
const expected = SERVICES.flatMap(([name, , types]) =>
  Array.from({ length: EVENTS }, (_, n) => n)
    .filter((n) => types.test(TYPES[n % TYPES.length]))
    .map((n) => `${name} ${n}`),
);

let server: TestServer;
const folder = mkdtempSync(join(tmpdir(), 'ossa-test-services-'));
const file = join(folder, 'requests');

afterAll(async () => {
  await endAll();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

interface Request {
  at: number;
  service: string;
  id: string;
  type: string;
  n: number;
  attempt: number;
  outcome: 'accepted' | 'lost' | 'refused' | 'hung' | 'closed';
}
/** What reached the services; the work is done where it was accepted, though perhaps nobody heard of it. */
const requests = (): Request[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
const isDone = ({ outcome }: Request) => outcome === 'accepted' || outcome === 'lost';

test(`${SERVICES.length} services that fail at random, three processes of the bus of which one is killed and one stopped, a Redis that restarts: of ${EVENTS} events each is accepted by all it is for`, async () => {
  server = await TestServer.start(['--appendonly', 'yes', '--appendfsync', 'everysec']);
  const redis = { url: server.url, keyPrefix: freshPrefix() };
  const services = SERVICES.map(([name, capabilities]) => ({ name, capabilities }));
  const told = (program: Program) => program.lines.filter((line) => line.routes !== undefined);
  const show = () => buses.map((bus) => bus.stderr() + JSON.stringify(bus.lines.slice(-3)));
  const startBus = () => start('serviceWork.cjs', { role: 'bus', redis });
  const buses = [startBus(), startBus(), startBus()];
  const isReady = (program: Program) => program.lines.some((line) => line.ready);
  await until(() => buses.every(isReady), { show });
  const sites = start('serviceWork.cjs', { role: 'sites', redis, services, file, seed: 20260101 });
  await until(() => isReady(sites), { show: () => sites.stderr() });
  /** Which of the processes read for each service, as they said last. */
  const readers = (some: Program[]) =>
    SERVICES.map(([name]) =>
      some.filter((bus) =>
        told(bus)
          .at(-1)
          ?.routes.some(([service]: [string]) => service === name),
      ),
    );
  await until(() => readers(buses).every((reading) => reading.length === 2), { show });

  const publisher = start('serviceWork.cjs', { role: 'publish', redis, types: TYPES, events: EVENTS, pauseMs: 120 });
  const done = () => requests().filter(isDone).length;
  await until(() => done() > 500, { show });
  // Each service is served by both of its processes, and by no other.
  const countsOf = (bus: Program, name: string) =>
    told(bus)
      .at(-1)
      ?.routes.find(([service]: [string]) => service === name)?.[2];
  await until(() => SERVICES.every(([name], n) => readers(buses)[n].every((bus) => countsOf(bus, name) > 0)), { show });

  sites.kill('SIGUSR2');
  await pause(1500);
  const [killed, stopped, left] = buses;
  killed.kill('SIGKILL');
  await pause(1500);
  stopped.kill('SIGSTOP');
  await pause(3000);
  await server.kill();
  await server.start();
  await pause(1500);
  stopped.kill('SIGCONT');
  await pause(1500);
  sites.kill('SIGUSR2');
  await until(() => sites.lines.some((line) => line.failing === false));
  await until(() => publisher.lines.some((line) => line.published === EVENTS), { timeoutMs: 30_000, show: () => publisher.stderr() });

  const accepted = () =>
    new Set(
      requests()
        .filter(isDone)
        .map(({ service, n }) => `${service} ${n}`),
    );
  const world = new World('redis');
  const bus = await world.bus({ redis });
  const dead = async () => (await bus.deadLetters.list({ limit: 1000 })).items.filter(({ group }) => group.startsWith('service:'));
  await until(
    async () => {
      const seen = accepted();
      return expected.every((name) => seen.has(name)) || (await dead()).length > 0;
    },
    { timeoutMs: 60_000, everyMs: 250, show: () => [expected.filter((name) => !accepted().has(name)).slice(0, 20), show()] },
  );
  // Nothing is left to be done: neither waiting, nor on its way.
  const open = async () => {
    let sum = 0;
    for (const type of TYPES) {
      for (const { name, pending, lag } of (await bus.getStream(type))?.stats.groups ?? [])
        if (name.startsWith('service:')) sum += pending + (lag ?? 0);
    }
    return sum;
  };
  await until(async () => (await open()) === 0, { timeoutMs: 30_000, everyMs: 100 });
  const circuits = () =>
    [stopped, left].flatMap((each) =>
      told(each)
        .at(-1)
        ?.routes.map(([, circuit]: string[]) => circuit),
    );
  // One that nothing was left for stays half-open: it waits for an event to be tried with.
  await until(() => circuits().every((circuit) => circuit !== 'open'), { show });
  await until(() => readers([stopped, left]).every((reading) => reading.length === 2), { timeoutMs: 20_000, show });

  const all = requests();
  expect(await dead()).toEqual([]);
  const byPair = new Map<string, Request[]>();
  for (const request of all) {
    const name = `${request.service} ${request.n}`;
    byPair.set(name, [...(byPair.get(name) ?? []), request]);
  }
  expect([...byPair.keys()].sort()).toEqual([...expected].sort());
  // One event has one id, and one type, wherever it came.
  const ids = new Map<number, string>();
  for (const { n, id, type } of all) {
    expect([ids.get(n) ?? id, type]).toEqual([id, TYPES[n % TYPES.length]]);
    ids.set(n, id);
  }
  // What was done twice was another attempt: after a lost answer, or because whoever sent it first was killed, stopped or cut off.
  const twice = [...byPair.values()].map((some) => some.filter(isDone)).filter((some) => some.length > 1);
  const unexplained = twice.filter((some) => new Set(some.map(({ attempt }) => attempt)).size < some.length);
  expect(unexplained).toEqual([]);
  // Without a lost answer it is what a process had on its way when it was killed, stopped or cut off.
  const interrupted = twice.filter((some) => some.slice(0, -1).some(({ outcome }) => outcome === 'accepted'));
  expect(interrupted.length).toBeLessThanOrEqual(3 * 8 * SERVICES.length);
  await world.end();
  for (const program of [stopped, left]) {
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 0, signal: null });
  }
});

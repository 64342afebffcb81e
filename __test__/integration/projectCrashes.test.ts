/** Processes that are killed while they handle messages between projects, and a Redis that stops: nothing is lost, nothing is taken for a replay. */
import type { OSSAEventBus } from '@bluefly/ossa';
import { endAll, type Line, type Program, start } from '../support/children';
import { auditRecords, Crossing, deadLetters, project } from '../support/crossing';
import { TestServer } from '../support/server';
import { until, within } from '../support/wait';
import { quick } from '../support/world';

jest.setTimeout(120_000);

const MESSAGES = 900;
const KILLS = 3;

let server: TestServer;
let world: Crossing;
let bus: OSSAEventBus;

beforeEach(async () => {
  server = await TestServer.start();
  world = new Crossing(server.url);
  bus = await world.bus();
  await bus.registerProject(project('alice'));
  await bus.registerProject(project('bob'));
});
afterEach(async () => {
  await endAll();
  await world.end();
  await server.stop();
});

test('handlers killed in the middle and a Redis that stops lose no message and refuse none', async () => {
  const handled = new Map<number, number>();
  const onLine = (line: Line) => {
    if (line.handled) handled.set(line.n, (handled.get(line.n) ?? 0) + 1);
  };
  const redis = { url: server.url, keyPrefix: world.prefix };
  const options = { maxUnacknowledged: 20, retry: quick(5), requireSignatureValidation: true };
  const task = { redis, work: 'handle', projects: [], handled: 'bob', options, workMs: 50 };
  const programs: Program[] = [];
  const startOne = async () => {
    const program = start('projectProcess.cjs', task, { onLine });
    programs.push(program);
    await until(() => program.lines.some((line) => line.ready), { timeoutMs: 30_000, show: program.stderr });
    return program;
  };
  let running = [await startOne(), await startOne()];

  const sent = Promise.all(Array.from({ length: MESSAGES }, (_, n) => bus.sendCrossProjectMessage('alice', 'bob', `t.${n % 3}`, { n })));
  for (let kill = 0; kill < KILLS; kill++) {
    const goal = Math.ceil(((kill + 1) * MESSAGES) / (KILLS + 4));
    await until(() => handled.size >= goal, { show: () => handled.size });
    // It has begun with some and ended with none of these.
    const [killed, other] = running;
    await until(() => killed.lines.at(-1)?.began === true || killed.lines.at(-1)?.handled === true);
    killed.kill('SIGKILL');
    await killed.ended;
    running = [other, await startOne()];
  }
  const before = handled.size;
  server.pause();
  // What they hold they go on with; then there is nothing left but to wait for the server.
  const isSilent = async (count: number) => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    return programs.reduce((sum, { lines }) => sum + lines.length, 0) === count;
  };
  await until(() => isSilent(programs.reduce((sum, { lines }) => sum + lines.length, 0)));
  server.resume();
  await sent;
  await until(() => handled.size === MESSAGES, { timeoutMs: 60_000, show: () => handled.size });
  expect(handled.size).toBeGreaterThan(before);

  const groups = async () => Promise.all([0, 1, 2].map(async (n) => (await bus.getStream(`@bob/t.${n}`))?.stats.groups[0]));
  await until(async () => (await groups()).every((group) => group?.pending === 0 && group.lag === 0), { timeoutMs: 30_000, show: groups });
  expect(await deadLetters(bus)).toEqual([]);
  // What a process held when it was killed may be handled twice; no more than that.
  expect([...handled.values()].filter((times) => times > 1).length).toBeLessThanOrEqual(KILLS * 20);

  const records = await auditRecords(bus);
  const named = (outcome: string) => new Set(records.filter((record) => record.outcome === outcome).map((record) => record.messageId));
  expect([...new Set(records.map((record) => record.outcome))].sort()).toEqual(['delivered', 'sent']);
  expect([named('sent').size, named('delivered').size]).toEqual([MESSAGES, MESSAGES]);
  expect(await bus.verifyAuditLog()).toEqual({ ok: true, checked: records.length });
  // Of every process, the killed ones too, there is a chain.
  expect(new Set(records.map((record) => record.chain)).size).toBe(1 + programs.length);

  for (const program of running) program.kill('SIGTERM');
  for (const program of running) expect(await within(25_000, 'the end', program.ended)).toEqual({ code: 0, signal: null });
  await world.expectNoSecrets(programs);
});

/** What is too much between projects: data that is too large or too deep, however it came, and more messages than a rate allows. */
import type { OSSAEventBus } from '@bluefly/ossa';
import { endAll, type Program, start } from '../support/children';
import { auditRecords, Crossing, deadLetters, openProject, project } from '../support/crossing';
import { TestServer } from '../support/server';
import { until, within } from '../support/wait';

jest.setTimeout(60_000);

let server: TestServer;
let world: Crossing;
let bus: OSSAEventBus;
let programs: Program[];

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

beforeEach(async () => {
  await server.call('FLUSHALL');
  world = new Crossing(server.url);
  programs = [];
  bus = await world.bus({ maxPayloadBytes: 100_000 });
});
afterEach(async () => {
  await endAll();
  await world.expectNoSecrets(programs);
  await world.end();
});

function run(task: object): Program {
  const redis = { url: world.url, keyPrefix: world.prefix };
  const program = start('projectProcess.cjs', { redis, ...task });
  programs.push(program);
  return program;
}
const isReady = (program: Program) => program.lines.some((line) => line.ready);

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);

test('data that is too large or too deep is not sent, and that is on record', async () => {
  await bus.registerProject(project('alice'));
  await bus.registerProject(project('bob'));
  const refusal = (data: unknown) => world.failure(() => bus.sendCrossProjectMessage('alice', 'bob', 't', data));
  expect(await refusal('x'.repeat(100_001))).toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE', details: { limit: 100_000 } });
  expect(await refusal(JSON.parse(nested(65)))).toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE', details: { depth: 65, limit: 64 } });
  expect(await refusal(JSON.parse(nested(1000)))).toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE', details: { depth: 1000 } });
  expect(await refusal(JSON.parse(nested(64)))).toBeUndefined();
  const records = await auditRecords(bus);
  const tooLarge = {
    sourceProject: 'alice',
    targetProject: 'bob',
    eventType: 't',
    reason: expect.stringMatching(/^ERR_PAYLOAD_TOO_LARGE/),
  };
  expect(records).toMatchObject([...[1, 2, 3].map(() => ({ outcome: 'invalid', ...tooLarge })), { outcome: 'sent' }]);
  expect(await bus.getCrossProjectStats('alice')).toMatchObject({ messagesSent: 1, messagesFailed: 3 });
});

/** What somebody with a raw Redis client may put under the name of a project that does not sign: data, and changes of the metadata. */
const crafted: Array<[what: string, data: string, change?: (meta: string) => string]> = [
  ['data of 65 levels', nested(65)],
  ['data of a hundred thousand levels', nested(100_000)],
  ['data of a hundred thousand levels that never close', '{"a":'.repeat(100_000)],
  ['data that is no JSON', '{"n":'],
  ['data that is JavaScript', '{n: 1}'],
  ['data that is two values', '1 2'],
  ['data with a byte order mark', '\ufeff1'],
  ['no data', ''],
  ['a lone surrogate that is cut off', '"\\ud800'],
  ['metadata of a hundred thousand levels', '1', (meta) => meta.replace('"1.0.0"', nested(100_000))],
  ['a version that is a number', '1', (meta) => meta.replace('"1.0.0"', '7')],
  ['a version that is an object', '1', (meta) => meta.replace('"1.0.0"', '{"toString":1}')],
  ['headers that are no text', '1', (meta) => meta.replace('"message"', '"headers":{"a":1},"message"')],
  ['tags that are no list', '1', (meta) => meta.replace('"message"', '"tags":"a","message"')],
  ['a namespace that is no text', '1', (meta) => meta.replace('"from":"namespace.open"', '"from":[]')],
  ['contracts that are no list', '1', (meta) => meta.replace('"from"', '"contracts":{},"from"')],
  ['a time that is none', '1', (meta) => meta.replace(/"timestamp":\d+/, '"timestamp":1e400')],
  ['a negative time', '1', (meta) => meta.replace(/"timestamp":/, '"timestamp":-')],
  ['a time at the end of all', '1', (meta) => meta.replace(/"timestamp":\d+/, '"timestamp":18446744073709551615')],
  ['a priority that there is not', '1', (meta) => meta.replace('"normal"', '"now"')],
  ['a retry without an end', '1', (meta) => meta.replace('"message"', '"retry":{"maxAttempts":-1},"message"')],
];

test.each([false, true])('what was crafted in Redis reaches no handler and ends no process (contract: %s)', async (hasContract) => {
  await bus.registerProject(openProject('open'));
  await bus.registerProject(project('bob'));
  const date = new Date();
  if (hasContract)
    await bus.registerContract({
      name: 'numbers',
      version: '1.0.0',
      sourceProject: 'open',
      targetProjects: ['*'],
      eventTypes: ['**'],
      schema: { type: ['number', 'object'] },
      metadata: { description: 'd', author: 'a', createdAt: date, updatedAt: date },
    });
  const types = crafted.map((_, at) => `crafted.${at}`);
  await Promise.all(
    crafted.map(async ([, data, change], at) => {
      await bus.sendCrossProjectMessage('open', 'bob', types[at], { n: 1 });
      const { key, id, meta } = await world.found('bob', types[at]);
      const forged = change?.(meta) ?? meta;
      if (change !== undefined) expect(forged).not.toBe(meta);
      await world.redis.multi().xdel(key, id).xadd(key, '*', 'meta', forged, 'data', data).exec();
    }),
  );
  const program = run({ work: 'handle', projects: [], handled: 'bob' });
  await until(() => isReady(program), { show: program.stderr });
  await until(async () => (await deadLetters(bus)).length >= types.length, {
    show: () => program.lines.filter((line) => line.handled || line.log),
  });
  expect(program.lines.filter((line) => line.began)).toEqual([]);

  const about = (at: number) => crafted[at][0];
  const reasons = (await deadLetters(bus)).map(({ type, reason }) => [about(types.indexOf(type)), reason]);
  expect(reasons.filter(([, reason]) => !['malformed', 'contract', 'signature'].includes(reason))).toEqual([]);
  const refusals = (await auditRecords(bus)).filter(({ outcome }) => outcome !== 'sent');
  const outcomes = refusals.map(({ eventType, outcome }) => `${about(types.indexOf(eventType))}: ${outcome}`);
  const expected = crafted.map(([what]) => `${what}: ${what === 'a time at the end of all' ? 'replayed' : 'invalid'}`);
  expect(outcomes.sort()).toEqual(expected.sort());

  await bus.sendCrossProjectMessage('open', 'bob', 'after', { n: 7 });
  await until(() => program.lines.some((line) => line.handled && line.n === 7));
  program.kill('SIGTERM');
  expect(await within(25_000, 'the end', program.ended)).toEqual({ code: 0, signal: null });
  expect(program.stderr()).toBe('');
});

test('four processes that send as fast as they can get what the rate allows, all together', async () => {
  const [perSecond, burst, seconds] = [200, 50, 10];
  const flooding = project('flooding', { rateLimiting: { eventsPerSecond: perSecond, burstLimit: burst } });
  const four = Array.from({ length: 4 }, () => run({ work: 'flood', project: flooding, width: 4, seconds }));
  await until(() => four.every(isReady), { show: () => four.map((program) => program.stderr()) });
  for (const program of four) program.kill('SIGUSR2');
  const result = (program: Program) => program.lines.find((line) => line.flooded);
  await until(() => four.every(result), { show: () => four.map((program) => program.lines.at(-1)) });
  const results = four.map((program) => result(program)!);
  expect(results.flatMap(({ wrong }) => wrong)).toEqual([]);
  const sum = (of: 'accepted' | 'refused') => results.reduce((total, each) => total + each[of], 0);
  const first = Math.min(...results.map((each) => each.first));
  const last = Math.max(...results.map((each) => each.last));
  expect(sum('accepted')).toBeLessThanOrEqual(((last - first) / 1000) * perSecond + burst);
  expect(sum('accepted')).toBeGreaterThanOrEqual(0.97 * (seconds * perSecond + burst));
  expect(sum('refused')).toBeGreaterThan(100);
  expect(await bus.getCrossProjectStats('flooding')).toMatchObject({ messagesSent: sum('accepted'), rateLimitHits: sum('refused') });
  expect(await bus.verifyAuditLog()).toMatchObject({ ok: true, checked: sum('accepted') + sum('refused') });
});

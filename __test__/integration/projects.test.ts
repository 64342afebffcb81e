/** Forty projects in eight processes send to each other: every message arrives once, where it belongs, and all of it is on record. */
import { createHash } from 'node:crypto';
import type { AuditRecord, OSSAEventBus } from '@bluefly/ossa';
import { endAll, type Line, type Program, start } from '../support/children';
import { auditRecords, Crossing, type RawEntry } from '../support/crossing';
import { TestServer } from '../support/server';
import { until, within } from '../support/wait';
import { CONTRACTS, contractsOf, ids, messagesOf, PROCESSES, PROJECTS, targetsOf } from './programs/crossing.cjs';

jest.setTimeout(120_000);

/** What is planned, by `<source> <n> <target>`. */
const planned = new Map(
  ids.flatMap((id) =>
    messagesOf(id).flatMap((message) => targetsOf(id, message).map((target) => [`${id} ${message.data.n} ${target}`, message] as const)),
  ),
);
const count = (names: Iterable<string>) => {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
};

let server: TestServer;
let world: Crossing;
let bus: OSSAEventBus;
let programs: Program[];
/** Calls of handlers, calls of sendCrossProjectMessage() that resolved, and the audit log in the end. */
const handled: Line[] = [];
const sent: Line[] = [];
let records: AuditRecord[];

beforeAll(async () => {
  server = await TestServer.start();
  world = new Crossing(server.url);
  const redis = { url: world.url, keyPrefix: world.prefix };
  const onLine = (line: Line) => {
    if (line.handler !== undefined) handled.push(line);
    if (line.sent !== undefined) sent.push(line);
  };
  programs = Array.from({ length: PROCESSES }, (_, process) => start('projectProcess.cjs', { redis, work: 'plan', process }, { onLine }));
  const show = () => programs.map((program) => program.stderr() + JSON.stringify(program.lines.slice(-3)));
  await until(() => programs.every((program) => program.lines.some((line) => line.ready)), { timeoutMs: 60_000, show });
  for (const program of programs) program.kill('SIGUSR2');
  await until(() => programs.every((program) => program.lines.some((line) => line.sentAll)), { timeoutMs: 60_000, show });
  bus = await world.bus();
  const received = async () => (await bus.getCrossProjectStats()).messagesReceived;
  await until(async () => (await received()) >= planned.size, { timeoutMs: 60_000, everyMs: 100, show: () => handled.length });
  await until(() => handled.length >= planned.size);
  records = await auditRecords(bus);
});

afterAll(async () => {
  await endAll();
  await world.end();
  await server.stop();
});

test('the processes know the projects and contracts of each other', async () => {
  expect(ids.flatMap((id) => contractsOf(id))).toHaveLength(CONTRACTS);
  expect(await bus.getCrossProjectStats()).toMatchObject({ totalProjects: PROJECTS, totalContracts: CONTRACTS });
  const own = (id: string) => bus.getAvailableContracts(id).filter((contract) => contract.sourceProject === id);
  for (const id of ids) expect(own(id)).toHaveLength(contractsOf(id).length);
  for (const id of ids) expect(await bus.validateProjectSetup(id)).toMatchObject({ isValid: true, errors: [] });
});

test('every message is handled once, by the handler of its target', () => {
  const calls = count(handled.map((line) => `${line.source} ${line.n} ${line.target}`));
  expect([...planned.keys()].filter((name) => calls.get(name) !== 1)).toEqual([]);
  expect(handled).toHaveLength(planned.size);
  expect(handled.filter((line) => line.handler !== line.target || !line.signed)).toEqual([]);
});

test('all copies of a message have the id that its sender was given', () => {
  expect(sent).toHaveLength(ids.length * messagesOf(ids[0]).length);
  const given = new Map(sent.map((line) => [`${line.source} ${line.n}`, line.sent]));
  expect(new Set(given.values()).size).toBe(sent.length);
  expect(handled.filter((line) => line.id !== given.get(`${line.source} ${line.n}`))).toEqual([]);
});

test('a message says which version of which contract it was checked against', () => {
  const wrong = handled.filter((line) => {
    const { contracts } = planned.get(`${line.source} ${line.n} ${line.target}`)!;
    return JSON.stringify(line.contracts) !== JSON.stringify(contracts);
  });
  expect(wrong).toEqual([]);
  const versions = new Set(handled.filter((line) => line.source === 'p03').flatMap((line) => line.contracts ?? []));
  expect([...versions].sort()).toEqual(['work.asked-of-p03@1.0.0', 'work.asked-of-p03@2.0.0', 'work.done-of-p03@1.0.0']);
});

test('the counters are what was sent and handled, as counted by the test', async () => {
  const stats = await bus.getCrossProjectStats();
  expect(stats).toMatchObject({ messagesSent: planned.size, messagesReceived: planned.size, messagesFailed: 0, rateLimitHits: 0 });
  expect(stats.averageLatency).toBeGreaterThan(0);
  // Every process attends to its own five.
  expect(stats.activeConnections).toBe(PROJECTS);
  const from = count([...planned.keys()].map((name) => name.split(' ')[0]));
  const to = count([...planned.keys()].map((name) => name.split(' ')[2]));
  const counted = stats.projectStats!.map(({ projectId, messagesSent, messagesReceived }) => [projectId, messagesSent, messagesReceived]);
  expect(counted.sort()).toEqual(ids.map((id) => [id, from.get(id), to.get(id)]));
  for (const { lastActivity } of stats.projectStats!) expect(Math.abs(Date.now() - lastActivity.getTime())).toBeLessThan(120_000);
});

test('the audit log has one record of each sending and one of each delivery', () => {
  const number = new Map(sent.map((line) => [line.sent, line.n]));
  const found = (outcome: string) =>
    count(
      records.filter((record) => record.outcome === outcome).map((r) => `${r.sourceProject} ${number.get(r.messageId)} ${r.targetProject}`),
    );
  const once = new Map([...planned.keys()].map((name) => [name, 1]));
  expect(found('sent')).toEqual(once);
  expect(found('delivered')).toEqual(once);
  expect(records).toHaveLength(2 * planned.size);
  expect(records.filter((record) => record.outcome === 'sent' && record.signature === undefined)).toEqual([]);
});

test('a page at a time, the audit log of a project is the same as all at once', async () => {
  const expected = records.filter((record) => record.sourceProject === 'p07' || record.targetProject === 'p07');
  const found: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await bus.getAuditLog({ projectId: 'p07', limit: 50, ...(cursor === undefined ? {} : { cursor }) });
    found.push(...page.items.map((record) => record.id));
    cursor = page.cursor;
  } while (cursor !== undefined);
  expect(found).toEqual(expected.map((record) => record.id));
});

describe('verifyAuditLog', () => {
  /** In another process, which knows nothing but what is in Redis. */
  const verifiedElsewhere = async () => {
    const program = start('projectProcess.cjs', { redis: { url: world.url, keyPrefix: world.prefix }, work: 'verify' });
    programs.push(program);
    expect(await within(30_000, 'verifying', program.ended)).toEqual({ code: 0, signal: null });
    return program.lines.at(-1);
  };
  const whole = { ok: true, checked: 2 * planned.size };
  let key: string;
  let original: RawEntry[];
  let heads: Record<string, string>;
  /** A chain in which what its project sent is on record, and one of its records in the middle. */
  let chain: string;
  let middle: number;

  const fieldsOf = ([, fields]: RawEntry) => new Map(fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1]] as const] : [])));
  const isOfChain = (entry: RawEntry) => fieldsOf(entry).get('c') === chain;
  const put = async (entries: RawEntry[], head?: string) => {
    const writing = world.redis.multi().del(key);
    for (const [id, fields] of entries) writing.xadd(key, id, ...fields);
    if (head !== undefined) writing.hset(`${key}:heads`, chain, head);
    await writing.exec();
  };
  const changed = (at: number, change: (fields: Map<string, string>) => void) =>
    original.map((entry, i): RawEntry => {
      if (i !== at) return entry;
      const fields = fieldsOf(entry);
      change(fields);
      return [entry[0], [...fields].flat()];
    });
  const to = (target: string) => (fields: Map<string, string>) =>
    void fields.set('r', fields.get('r')!.replace(/"target":"[^"]*"/, `"target":"${target}"`));
  const hashOf = (text: string) => createHash('sha256').update(text).digest('hex');
  /** All records of the chain with fitting hashes after `change`, and its head too. */
  const rehashed = (change: (record: Record<string, any>, fields: Map<string, string>) => void): [RawEntry[], string] => {
    let previous = '';
    let head = '';
    const entries = original.map((entry): RawEntry => {
      if (!isOfChain(entry)) return entry;
      const fields = fieldsOf(entry);
      const record = JSON.parse(fields.get('r')!);
      change(record, fields);
      record.prev = previous;
      fields.set('r', JSON.stringify(record));
      previous = hashOf(fields.get('r')!);
      fields.set('h', previous);
      head = `${record.n} ${previous}`;
      return [entry[0], [...fields].flat()];
    });
    return [entries, head];
  };

  beforeAll(async () => {
    const record = records.find((found) => found.outcome === 'sent' && found.sequence! > 50)!;
    chain = record.chain!;
    for (const found of await world.redis.keys(`${world.prefix}:{*}:audit`)) {
      const entries = await world.entries(found);
      if (entries.some(isOfChain)) [key, original] = [found, entries];
    }
    heads = await world.redis.hgetall(`${key}:heads`);
    middle = original.findIndex((entry) => isOfChain(entry) && fieldsOf(entry).get('n') === String(record.sequence));
  });
  afterEach(() => put(original, heads[chain]));

  test('finds nothing where nothing was touched', async () => {
    expect(await verifiedElsewhere()).toEqual(whole);
    await put(...rehashed(() => undefined));
    expect(await bus.verifyAuditLog()).toEqual(whole);
  });

  const nameOf = (at: number) => `${chain}:${fieldsOf(original[at]).get('n')}`;
  const nextOf = (at: number) => `${chain}:${Number(fieldsOf(original[at]).get('n')) + 1}`;
  const lastOfChain = () => original.findLastIndex(isOfChain);
  const without = (at: number) => original.filter((_, i) => i !== at);

  test.each<[what: string, touch: () => [RawEntry[], string?], broken: () => string | undefined]>([
    ['whose target was changed', () => [changed(middle, to('p00x'))], () => nameOf(middle)],
    [
      'whose target was changed, with a fitting hash',
      () => [
        changed(middle, (fields) => {
          to('p00x')(fields);
          fields.set('h', hashOf(fields.get('r')!));
        }),
      ],
      () => nameOf(middle),
    ],
    ['whose text is none', () => [changed(middle, (fields) => fields.set('r', '{'))], () => undefined],
    ['that has lost its signature', () => [changed(middle, (fields) => fields.delete('s'))], () => nameOf(middle)],
    ['that was removed', () => [without(middle)], () => nameOf(middle)],
    ['that was the last and was removed', () => [without(lastOfChain())], () => nameOf(lastOfChain())],
    [
      'that was swapped with the next one',
      () => {
        const next = original.findIndex((entry, i) => i > middle && isOfChain(entry));
        const swapped = [...original];
        swapped[middle] = [original[middle][0], original[next][1]];
        swapped[next] = [original[next][0], original[middle][1]];
        return [swapped];
      },
      () => nameOf(middle),
    ],
    ['that is there twice', () => [[...original, [`${Date.now() + 60_000}-0`, original[middle][1]]]], () => nextOf(lastOfChain())],
    ['that no bus wrote', () => [[...original, [`${Date.now() + 60_000}-0`, ['note', 'nothing happened']]]], () => undefined],
    ['in a chain whose head says something else', () => [original, `${original.length * 9} ${'0'.repeat(64)}`], () => undefined],
  ])('finds a record %s', async (_, touch, broken) => {
    await put(...touch());
    const found = await bus.verifyAuditLog();
    expect(found).toMatchObject({ ok: false, firstBroken: broken() ?? expect.any(String) });
  });

  const isSent = (record: Record<string, any>) => record.outcome === 'sent';
  test.each<[what: string, change: (record: Record<string, any>, fields: Map<string, string>) => void]>([
    ['as it was', () => undefined],
    [
      'without signatures',
      (record, fields) => {
        delete record.key;
        fields.delete('s');
      },
    ],
    [
      'with the name of a key that there is not',
      (record) => {
        if (record.key !== undefined) record.key = '0123456789abcdef';
      },
    ],
  ])('finds a chain whose records were all written anew, %s', async (what, change) => {
    let isFirst = true;
    const touch = (record: Record<string, any>, fields: Map<string, string>) => {
      change(record, fields);
      if (isSent(record) && isFirst) {
        isFirst = false;
        record.target = 'p00x';
      }
    };
    await put(...rehashed(touch));
    expect([what, await bus.verifyAuditLog()]).toMatchObject([what, { ok: false }]);
  });
});

test('nothing secret is in Redis, nor in anything that a process said', () => world.expectNoSecrets(programs));

test('told to end, the processes end', async () => {
  const running = programs.slice(0, PROCESSES);
  for (const program of running) program.kill('SIGTERM');
  for (const program of running) expect(await within(25_000, 'the end', program.ended)).toEqual({ code: 0, signal: null });
  expect(running.map((program) => program.stderr())).toEqual(running.map(() => ''));
  expect((await bus.getCrossProjectStats()).activeConnections).toBe(0);
});

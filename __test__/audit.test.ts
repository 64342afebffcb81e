/** Messages between projects: what is written down of them, and that nobody can change it unseen; what is counted. */
import { type AuditOutcome, type AuditQuery, type AuditRecord, createOSSAEventBus, OSSAEventBus } from '@bluefly/ossa';
import { contract, inbox, project, useProjects } from './support/projects';
import { connectTo, TestServer } from './support/server';
import { until } from './support/wait';
import { quick, redisUrl, refusal, storesWithCluster } from './support/world';

/** All records by pages of so many. */
async function pages(bus: OSSAEventBus, query: AuditQuery, limit: number): Promise<AuditRecord[]> {
  const all: AuditRecord[] = [];
  let cursor: string | undefined;
  do {
    const page = await bus.getAuditLog(cursor === undefined ? { ...query, limit } : { ...query, limit, cursor });
    expect(page.items.length).toBeLessThanOrEqual(limit);
    all.push(...page.items);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return all;
}

const outcomesOf = (records: AuditRecord[]) => records.map((record) => record.outcome).sort();

/** Waits until so many records have the outcome. */
const recorded = (bus: OSSAEventBus, outcome: AuditOutcome, count: number) =>
  until(async () => (await bus.getAuditLog({ outcome, limit: 1000 })).items.length >= count);

describe.each(storesWithCluster)('on %s', (kind) => {
  const projects = useProjects(kind);

  test('every send, delivery and refusal is one record', async () => {
    const [one, other] = [await projects.busOf(project('a', { allowedEventTypes: ['t', 'user.created'] })), await projects.busOf('b')];
    await one.registerContract(contract({ type: 'object' }));
    await inbox(other, 'b', 't', { group: 'first' });
    await inbox(other, 'b', 't', { group: 'second' });
    const before = new Date(Date.now() - 60_000);
    const id = await one.sendCrossProjectMessage('a', 'b', 't', 1);
    await refusal('ERR_NOT_PERMITTED', () => one.sendCrossProjectMessage('a', 'b', 'other', 1));
    await refusal('ERR_PROJECT_UNKNOWN', () => one.sendCrossProjectMessage('a', 'nobody', 't', 1));
    await refusal('ERR_CONTRACT_VIOLATION', () => one.sendCrossProjectMessage('a', 'b', 'user.created', 1));
    await one.registerProject(project('a', { rateLimiting: { eventsPerSecond: 0.01, burstLimit: 1 } }));
    const second = await one.sendCrossProjectMessage('a', 'b', 'left', 1);
    await refusal('ERR_RATE_LIMITED', () => one.sendCrossProjectMessage('a', 'b', 't', 1));
    await recorded(one, 'delivered', 2);
    const { items, cursor } = await one.getAuditLog();
    expect(cursor).toBeUndefined();
    expect(outcomesOf(items)).toEqual(['delivered', 'delivered', 'denied', 'denied', 'invalid', 'rate-limited', 'sent', 'sent']);
    for (const record of items) {
      expect(record).toMatchObject({ sourceProject: 'a', at: expect.any(Date), hash: expect.stringMatching(/^[0-9a-f]{64}$/) });
      expect(record.at).toBeInstanceOf(Date);
      expect(record.at.getTime()).toBeGreaterThan(before.getTime());
      expect(record.id).toBe(`${record.chain}:${record.sequence}`);
    }
    expect(new Set(items.map((record) => record.id)).size).toBe(8);
    const of = (outcome: AuditOutcome) => items.filter((record) => record.outcome === outcome);
    expect(of('sent').map((record) => record.messageId)).toEqual([id, second]);
    expect(of('sent')[0]).toMatchObject({ targetProject: 'b', eventType: 't', keyId: expect.any(String), signature: expect.any(String) });
    expect(of('delivered').map((record) => [record.messageId, record.targetProject])).toEqual([[id, 'b'], [id, 'b']]); // biome-ignore format: pairs
    expect(
      of('delivered')
        .map((record) => record.reason)
        .sort(),
    ).toEqual(["group 'first'", "group 'second'"]);
    expect(of('denied').map((record) => [record.targetProject, record.eventType])).toEqual([['b', 'other'], ['nobody', 't']]); // biome-ignore format: pairs
    expect(of('invalid')).toMatchObject([{ eventType: 'user.created', reason: expect.stringContaining('ERR_CONTRACT_VIOLATION') }]);
    expect(await one.verifyAuditLog()).toEqual({ ok: true, checked: 8 });
  });

  test('a message that is given up is recorded as failed, once, however often it was tried', async () => {
    const bus = await projects.busOf('a', 'b');
    let healed = false;
    await bus.setupCrossProjectHandler('b', 't', () => (healed ? 1 : Promise.reject(new Error('boom'))), { retry: quick(2), group: 'g' });
    const id = await bus.sendCrossProjectMessage('a', 'b', 't', 1);
    await recorded(bus, 'failed', 1);
    const { items } = await bus.getAuditLog({ outcome: 'failed' });
    expect(items).toMatchObject([{ messageId: id, targetProject: 'b', reason: expect.stringMatching(/group 'g'.*boom/) }]);
    healed = true;
    await until(async () => (await bus.deadLetters.redrive({ group: 'g' })) === 1);
    await recorded(bus, 'delivered', 1);
    expect(outcomesOf((await bus.getAuditLog()).items)).toEqual(['delivered', 'failed', 'sent']);
  });

  test('pages of any size hold all records, each once, oldest first, over all buses', async () => {
    const buses = [await projects.busOf('a', 'b', 'c'), await projects.busOf('a', 'b'), await projects.busOf('a', 'c')];
    const sends = Array.from({ length: 60 }, (_, n) => buses[n % 3].sendCrossProjectMessage('a', n % 2 === 0 ? 'b' : 'c', 't', n));
    const ids = await Promise.all(sends);
    await buses[1].sendCrossProjectMessage('b', 'a', 't', 'back');
    const all = (await buses[0].getAuditLog({ limit: 1000 })).items;
    expect(all.length).toBe(61);
    for (const chain of new Set(all.map((record) => record.chain))) {
      const sequence = all.filter((record) => record.chain === chain).map((record) => record.sequence);
      expect(sequence).toEqual(sequence.map((_, n) => n + 1));
    }
    for (const limit of [1, 7, 60, 61, 62]) expect(await pages(buses[2], {}, limit)).toEqual(all);
    const toC = all.filter((record) => record.targetProject === 'c');
    expect(await pages(buses[0], { projectId: 'c' }, 4)).toEqual(toC);
    expect(toC.map((record) => record.messageId).sort()).toEqual(ids.filter((_, n) => n % 2 === 1).sort());
    expect((await buses[0].getAuditLog({ projectId: 'b' })).items.length).toBe(31);
    expect(await buses[0].getAuditLog({ projectId: 'nobody' })).toEqual({ items: [] });
    expect(await buses[0].getAuditLog({ outcome: 'forged' })).toEqual({ items: [] });
    expect(await buses[0].verifyAuditLog()).toEqual({ ok: true, checked: 61 });
  });

  test('from and to bound the records by time', async () => {
    const bus = await projects.busOf('a', 'b');
    // So far apart that it does not matter by whose clock.
    const apart = async () => {
      const begin = Date.now();
      await until(() => Date.now() > begin + 100);
      return new Date(begin + 50);
    };
    const between: Date[] = [];
    for (let n = 0; n < 3; n++) {
      await bus.sendCrossProjectMessage('a', 'b', 't', n);
      between.push(await apart());
    }
    const { items } = await bus.getAuditLog();
    expect(items.length).toBe(3);
    expect((await bus.getAuditLog({ from: between[0] })).items).toEqual(items.slice(1));
    expect((await bus.getAuditLog({ to: between[1] })).items).toEqual(items.slice(0, 2));
    expect((await bus.getAuditLog({ from: between[0], to: between[1] })).items).toEqual([items[1]]);
    expect((await bus.getAuditLog({ from: between[2], to: between[0] })).items).toEqual([]);
    expect(await pages(bus, { from: between[0] }, 1)).toEqual(items.slice(1));
  });

  test('exportAuditLog gives all that match, a line of JSON each', async () => {
    const bus = await projects.busOf('a', 'b');
    await Promise.all(Array.from({ length: 1100 }, (_, n) => bus.sendCrossProjectMessage('a', 'b', 't', n)));
    await refusal('ERR_PROJECT_UNKNOWN', () => bus.sendCrossProjectMessage('a', 'x', 't', 1));
    const lines: string[] = [];
    for await (const line of bus.exportAuditLog()) lines.push(line);
    expect(lines.length).toBe(1101);
    const records = lines.map((line) => JSON.parse(line));
    expect(lines.every((line) => line.endsWith('\n') && line.indexOf('\n') === line.length - 1)).toBe(true);
    const paged = await pages(bus, {}, 1000);
    expect(records).toEqual(JSON.parse(JSON.stringify(paged)));
    const denied: string[] = [];
    for await (const line of bus.exportAuditLog({ outcome: 'denied', projectId: 'a' })) denied.push(line);
    expect(denied.length).toBe(1);
  });

  test('statistics are those of all buses, or of one project', async () => {
    const [one, other] = [await projects.busOf('a'), await projects.busOf('b', 'c')];
    await one.registerContract(contract({}));
    await inbox(other, 'b', 't');
    await other.setupCrossProjectHandler('c', 't', () => Promise.reject(new Error('boom')), { retry: quick(0) });
    for (let n = 0; n < 3; n++) await one.sendCrossProjectMessage('a', '*', 't', n);
    await other.sendCrossProjectMessage('b', 'c', 't', 1);
    await refusal('ERR_PROJECT_UNKNOWN', () => one.sendCrossProjectMessage('a', 'x', 't', 1));
    await recorded(one, 'failed', 4);
    await recorded(one, 'delivered', 3);
    for (const bus of [one, other]) {
      const stats = await bus.getCrossProjectStats();
      expect(stats).toMatchObject({
        totalProjects: 3,
        totalContracts: 1,
        messagesSent: 7,
        messagesReceived: 3,
        messagesFailed: 5,
        rateLimitHits: 0,
      });
      expect(stats.activeConnections).toBe(3);
      expect(stats.averageLatency).toBeGreaterThanOrEqual(0);
      expect(stats.averageLatency).toBeLessThan(60_000);
      expect(
        stats.projectStats?.map(({ projectId, messagesSent, messagesReceived }) => [projectId, messagesSent, messagesReceived]),
      ).toEqual([
        ['a', 6, 0],
        ['b', 1, 3],
        ['c', 0, 0],
      ]);
      for (const each of stats.projectStats ?? []) expect(each.lastActivity).toBeInstanceOf(Date);
      expect((await bus.getStatus()).crossProject).toMatchObject({ totalProjects: 3, messagesSent: 7 });
    }
    expect(await other.getCrossProjectStats('b')).toMatchObject({
      ...{ totalProjects: 1, totalContracts: 1, messagesSent: 1, messagesReceived: 3, activeConnections: 1 },
      projectStats: [{ projectId: 'b', messagesSent: 1, messagesReceived: 3 }],
    });
    await refusal('ERR_PROJECT_UNKNOWN', () => one.getCrossProjectStats('nobody'));
    await other.shutdown();
    expect((await one.getCrossProjectStats()).activeConnections).toBe(1);
  });

  test('metrics count by outcome, source and target what this process did', async () => {
    const [one, other] = [await projects.busOf('a'), await projects.busOf('b')];
    await inbox(other, 'b');
    await one.sendCrossProjectMessage('a', 'b', 't', 1);
    await refusal('ERR_PROJECT_UNKNOWN', () => one.sendCrossProjectMessage('a', 'some.body', 't', 1));
    await recorded(one, 'delivered', 1);
    const text = one.exportMetrics();
    expect(text).toMatch(/^# TYPE ossa_cross_project_messages_total counter$/m);
    expect(text).toMatch(/^ossa_cross_project_messages_total\{outcome="sent",source="a",target="b"\} 1$/m);
    expect(text).toMatch(/^ossa_cross_project_messages_total\{outcome="denied",source="a",target="other"\} 1$/m);
    expect(text).not.toMatch(/delivered|some\.body/);
    expect(other.exportMetrics()).toMatch(/^ossa_cross_project_messages_total\{outcome="delivered",source="a",target="b"\} 1$/m);
  });
});

describe('what is done to the records in Redis is found', () => {
  const projects = useProjects('redis');
  const redis = connectTo(redisUrl());
  afterAll(() => redis.disconnect());

  interface Written {
    bus: OSSAEventBus;
    /** The stream of the chain, and its entries. */
    key: string;
    entries: Array<[string, string[]]>;
    chain: string;
  }

  /** Five records of one chain. */
  async function write(): Promise<Written> {
    const bus = await projects.busOf('a', 'b');
    for (let n = 0; n < 5; n++) await bus.sendCrossProjectMessage('a', 'b', 't', n);
    expect(await bus.verifyAuditLog()).toEqual({ ok: true, checked: 5 });
    const [key] = await redis.keys(`${projects.world.prefix}:*:audit`);
    const entries = await redis.xrange(key, '-', '+');
    expect(entries.length).toBe(5);
    return { bus, key, entries, chain: (await bus.getAuditLog()).items[0].chain as string };
  }

  /** Writes the entries anew, in the order and with the fields given. */
  async function rewrite({ key }: Written, fields: string[][]): Promise<void> {
    await redis.del(key);
    for (const entry of fields) await redis.xadd(key, '*', ...entry);
  }

  const fieldsOf = ({ entries }: Written) => entries.map(([, fields]) => fields);

  test.each<[string, number, (written: Written) => Promise<unknown>]>([
    ['a record removed from the middle', 3, ({ key, entries }) => redis.xdel(key, entries[2][0])],
    ['the first record removed', 1, ({ key, entries }) => redis.xdel(key, entries[0][0])],
    ['the last record removed', 5, ({ key, entries }) => redis.xdel(key, entries[4][0])],
    ['the tail cut off', 3, ({ key, entries }) => redis.xdel(key, ...entries.slice(2).map(([id]) => id))],
    ['the beginning cut off', 2, ({ key }) => redis.xtrim(key, 'MAXLEN', 3)],
    ['all records removed', 1, ({ key }) => redis.del(key)],
    [
      'a record changed',
      2,
      (written) => rewrite(written, fieldsOf(written).map((fields, n) => (n === 1 ? fields.map((field) => field.replace('"target":"b"', '"target":"c"')) : fields))), // biome-ignore format: one line a case
    ],
    [
      'a hash changed',
      2,
      (written) => rewrite(written, fieldsOf(written).map((fields, n) => (n === 1 ? fields.map((field, i) => (fields[i - 1] === 'h' ? 'f'.repeat(64) : field)) : fields))), // biome-ignore format: one line a case
    ],
    [
      'a signature changed',
      4,
      (written) => rewrite(written, fieldsOf(written).map((fields, n) => (n === 3 ? fields.map((field, i) => (fields[i - 1] === 's' ? 'A'.repeat(86) : field)) : fields))), // biome-ignore format: one line a case
    ],
    [
      'two records in another order',
      3,
      (written) => {
        const [a, b, c, d, e] = fieldsOf(written);
        return rewrite(written, [a, b, d, c, e]);
      },
    ],
    [
      'a record there twice',
      3,
      (written) => {
        const [a, b, c, d, e] = fieldsOf(written);
        return rewrite(written, [a, b, b, c, d, e]);
      },
    ],
    ['the head removed', 5, ({ key, chain }) => redis.hdel(`${key}:heads`, chain)],
    ['the heads removed', 5, ({ key }) => redis.del(`${key}:heads`)],
    ['the head changed', 5, ({ key, chain }) => redis.hset(`${key}:heads`, chain, `5 ${'0'.repeat(64)}`)],
    ['a head ahead of its records', 6, ({ key, chain }) => redis.hset(`${key}:heads`, chain, `6 ${'0'.repeat(64)}`)],
    ['an anchor that hides a cut', 2, async ({ key, chain, entries }) => {
      await redis.xtrim(key, 'MAXLEN', 3);
      await redis.hset(`${key}:anchors`, chain, `2 ${'0'.repeat(64)}`);
      expect(entries.length).toBe(5);
    }], // biome-ignore format: one case
  ])('%s', async (_, broken, harm) => {
    const written = await write();
    await harm(written);
    const { ok, firstBroken } = await written.bus.verifyAuditLog();
    expect({ ok, firstBroken }).toEqual({ ok: false, firstBroken: `${written.chain}:${broken}` });
    // Any other process sees it as well.
    expect((await (await projects.bus()).verifyAuditLog()).ok).toBe(false);
  });

  test('a record of nonsense', async () => {
    const { bus, key } = await write();
    await redis.xadd(key, '*', 'x', 'y');
    expect(await bus.verifyAuditLog()).toMatchObject({ ok: false, firstBroken: expect.any(String) });
    expect((await bus.getAuditLog()).items.length).toBe(5);
  });
});

test('from and to go by the time that a record shows, both included, also where Redis was slow to take it', async () => {
  const server = await TestServer.start();
  const bus = await createOSSAEventBus(null, { eventBus: { redis: { url: server.url } } });
  for (const id of ['a', 'b']) await bus.registerProject(project(id));
  await server.call('CLIENT', 'PAUSE', 300, 'WRITE');
  await refusal('ERR_PAYLOAD_TOO_LARGE', () => bus.sendCrossProjectMessage('a', 'b', 't', JSON.parse('['.repeat(65) + ']'.repeat(65))));
  const [record] = (await bus.getAuditLog()).items;
  const found = await bus.getAuditLog({ from: record.at, to: record.at });
  await bus.shutdown();
  await server.stop();
  expect(found.items).toEqual([record]);
});

test.each<[string, unknown]>([
  ['crossProject.audit', 5],
  ['crossProject.audit.retention', 0],
  ['crossProject.audit.retention', '1'],
  ['crossProject.audit.retention', Number.NaN],
  ['crossProject.audit.maxRecords', 0],
  ['crossProject.audit.maxRecords', 1.5],
  ['crossProject.audit.days', 30],
])('the configuration %s: %p is refused with its path', async (path, value) => {
  const config = path.split('.').reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
  expect((await refusal('ERR_INVALID_CONFIG', () => new OSSAEventBus(null, config as any))).details).toMatchObject({ path });
});

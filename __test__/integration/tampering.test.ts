/**
 * A raw Redis client changes messages where they lie: in the stream of a project whose handler is not there yet. Whatever it
 * changes, no handler gets the message, it is a dead letter that says why, and the refusal is on record.
 */
import type { AuditRecord, OSSAEventBus } from '@bluefly/ossa';
import { auditRecords, Crossing, deadLetters, openProject, project, type Received, receive } from '../support/crossing';
import { TestServer } from '../support/server';
import { until } from '../support/wait';

jest.setTimeout(60_000);

type Meta = Record<string, any>;
type Kind = keyof typeof kinds;

/** Messages that together have every key that metadata can have. */
const kinds = {
  full: {
    ttl: 600,
    partitionKey: 'p',
    correlationId: 'c',
    causationId: 'd',
    tags: ['one', 'two'],
    headers: { traceparent: 't', other: 'o' },
  },
  plain: {},
  delayed: { delayMs: 50 },
  routed: { tags: ['routed'] },
};

/** The keys of each, the way to those inside others with dots, and what else may become of a message than a wrong signature. */
const keys: Record<Kind, string[]> = {
  full: [
    ...['v', 'id', 'timestamp', 'source', 'version', 'priority', 'ttl', 'target', 'correlationId', 'causationId', 'partitionKey', 'sig'],
    ...['tags', 'tags.0', 'tags.1', 'headers', 'headers.traceparent', 'headers.other'],
    ...['message', 'message.from', 'message.to', 'message.contracts', 'message.contracts.0', 'message.keyId'],
  ],
  plain: ['dttl'],
  delayed: ['due'],
  routed: ['message.route'],
};

interface Attack {
  name: string;
  kind: Kind;
  /** Makes metadata and data of what takes the message's place. */
  forge: (meta: string, data: string) => [meta: string, data: string];
  reason: 'signature' | 'malformed';
  error: RegExp;
  outcome: AuditRecord['outcome'];
}

const forged = { reason: 'signature', error: /^ERR_SIGNATURE: /, outcome: 'forged' } as const;
const unreadable = { reason: 'malformed', error: /^ERR_INVALID_ARGUMENT: /, outcome: 'invalid' } as const;

/** Another value of the same type. */
function another(path: string, value: any): unknown {
  if (path === 'priority') return 'critical';
  if (path === 'source') return 'mallory';
  if (path === 'target') return 'carol';
  if (path === 'v' || path === 'timestamp' || path === 'due') return value + 1;
  if (path === 'version') return '1.0.1';
  if (typeof value === 'number') return value * 2;
  if (typeof value === 'string') return value.replace(/.$/, (last) => (last === 'A' ? 'Q' : 'A'));
  return Array.isArray(value) ? [...value, 'more'] : { ...value, more: 'more' };
}

/** The text of metadata after `change` of what `path` leads to. */
const edited =
  (path: string, change: (holder: any, key: string) => void) =>
  (meta: string, data: string): [string, string] => {
    const parsed = JSON.parse(meta) as Meta;
    // What follows is about the change, not about how it was written.
    expect(JSON.stringify(parsed)).toBe(meta);
    const steps = path.split('.');
    const last = steps.pop() as string;
    const holder = steps.reduce((value, step) => value[step], parsed);
    expect(holder[last]).toBeDefined();
    change(holder, last);
    return [JSON.stringify(parsed), data];
  };

/** Without these an entry is no event at all. */
const needed = ['v', 'id', 'timestamp', 'source', 'version'];

const attacks: Attack[] = (Object.keys(keys) as Kind[]).flatMap((kind) =>
  keys[kind].flatMap((path): Attack[] => [
    {
      name: `another ${path}`,
      kind,
      forge: edited(path, (holder, key) => (holder[key] = another(path, holder[key]))),
      ...(path === 'v' ? unreadable : forged),
    },
    {
      name: `no ${path}`,
      kind,
      forge: edited(path, (holder, key) => (Array.isArray(holder) ? holder.splice(Number(key), 1) : delete holder[key])),
      ...(needed.includes(path) ? unreadable : forged),
    },
  ]),
);

const inMeta = (from: string | RegExp, to: string) => (meta: string, data: string) => {
  expect(meta).toMatch(from);
  return [meta.replace(from, to), data] as [string, string];
};
const inData = (change: (data: string) => string) => (meta: string, data: string) => {
  expect(change(data)).not.toBe(data);
  return [meta, change(data)] as [string, string];
};

const more: Array<Omit<Attack, 'kind'> & { kind?: Kind }> = [
  { name: 'other data', forge: inData((data) => data.replace('"amount":5', '"amount":6')), ...forged },
  { name: 'the same data with a space', forge: inData((data) => data.replace(':', ': ')), ...forged },
  { name: 'data with one more key', forge: inData((data) => data.replace('{', '{"more":1,')), ...forged },
  { name: 'data with a key twice', forge: inData((data) => data.replace(/}$/, ',"amount":6}')), ...forged },
  { name: 'data against its contract', forge: inData((data) => data.replace('5', '"5"')), ...forged },
  { name: 'data that is no JSON', forge: inData((data) => data.slice(1)), ...forged },
  { name: 'no data', forge: inData(() => ''), ...forged },
  { name: 'one bit of the data changed', forge: inData((data) => data.replace('b', 'c')), ...forged },
  { name: 'a key behind the signature', forge: inMeta(/}$/, ',"correlationId2":"x"}'), ...forged },
  { name: 'a space behind the signature', forge: inMeta(/}$/, ' }'), ...forged },
  { name: 'a line behind the metadata', forge: inMeta(/$/, '\n'), ...forged },
  { name: 'a key before the signature', forge: inMeta(',"sig"', ',"causationId2":"x","sig"'), ...forged },
  { name: 'a key before all others', forge: inMeta('{', '{"first":1,'), ...forged },
  { name: 'another priority behind the first', forge: inMeta(',"sig"', ',"priority":"low","sig"'), ...unreadable },
  { name: 'another source behind the first', forge: inMeta(',"sig"', ',"source":"open","sig"'), ...unreadable },
  { name: 'another target behind the first', forge: inMeta(',"sig"', ',"target":"bob","sig"'), ...unreadable },
  { name: 'headers twice', forge: inMeta(',"sig"', ',"headers":{"a":"b"},"sig"'), ...unreadable },
  { name: 'a header twice', forge: inMeta('"headers":{', '"headers":{"other":"x",'), ...forged },
  { name: 'another signature behind the first', forge: inMeta(/}$/, `,"sig":"${'A'.repeat(86)}"}`), ...forged },
  { name: 'the signature in capitals', forge: inMeta('"sig"', '"SIG"'), ...forged },
  { name: 'the signature under an escaped name', forge: inMeta('"sig"', '"s\\u0069g"'), ...forged },
  { name: 'an empty signature', forge: inMeta(/"sig":"[^"]*"/, '"sig":""'), ...forged },
  { name: 'a signature of nothing but zeros', forge: inMeta(/"sig":"[^"]*"/, `"sig":"${'A'.repeat(86)}"`), ...forged },
  {
    name: 'a signature with other unused bits',
    forge: (meta, data) => [meta.replace(/(.)"}$/, (_, last) => `${String.fromCharCode(last.charCodeAt(0) + 1)}"}`), data],
    ...forged,
  },
  { name: 'a signature with padding', forge: inMeta(/"}$/, '=="}'), ...forged },
  { name: 'a source without credentials', forge: inMeta('"source":"alice"', '"source":"open"'), ...forged },
  { name: 'a source that is not registered', forge: inMeta('"source":"alice"', '"source":"nobody"'), ...forged },
  { name: 'no metadata', forge: inMeta(/.*/, ''), ...unreadable },
  { name: 'metadata that are no JSON', forge: inMeta('{', '['), ...unreadable },
  { name: 'metadata that are no object', forge: inMeta(/.*/, '[]'), ...unreadable },
  { name: 'an event of another kind of bus', forge: inMeta(/.*/, '{"specversion":"1.0"}'), ...unreadable },
];
attacks.push(...more.map((attack) => ({ kind: 'full' as Kind, ...attack })));

const typeOf = (at: number) => `forged.${at}`;

let server: TestServer;
let world: Crossing;
let receiver: OSSAEventBus;
let received: Received[];
let letters: Awaited<ReturnType<typeof deadLetters>>;
let records: AuditRecord[];
/** Metadata as they were before. */
const metas = new Map<Kind, Meta>();

beforeAll(async () => {
  server = await TestServer.start();
  world = new Crossing(server.url);
  const sender = await world.bus();
  for (const id of ['alice', 'mallory', 'bob', 'carol']) await sender.registerProject(project(id));
  await sender.registerProject(openProject('open'));
  const date = new Date();
  await sender.registerContract({
    name: 'orders',
    version: '1.0.0',
    sourceProject: 'alice',
    targetProjects: ['bob'],
    eventTypes: ['forged.*', 'intact.*'],
    schema: { type: 'object', required: ['amount'], properties: { amount: { type: 'integer' } } },
    metadata: { description: 'd', author: 'a', createdAt: date, updatedAt: date },
  });
  await sender.registerRoute({ name: 'to-bob', match: { tags: ['routed'] }, targets: ['bob'] });

  /** Sends a message and puts what `forge` makes of it in its place, as a new entry. */
  const place = async (type: string, kind: Kind, forge: Attack['forge']) => {
    await sender.sendCrossProjectMessage('alice', kind === 'routed' ? 'carol' : 'bob', type, { amount: 5, text: 'b' }, kinds[kind]);
    const { key, id, fields, meta, data } = await world.found('bob', type);
    expect(fields).toEqual(['meta', meta, 'data', data]);
    metas.set(kind, JSON.parse(meta));
    const [otherMeta, otherData] = forge(meta, data);
    await world.redis.multi().xdel(key, id).xadd(key, '*', 'meta', otherMeta, 'data', otherData).exec();
  };
  await Promise.all([
    ...attacks.map(({ kind, forge }, at) => place(typeOf(at), kind, forge)),
    ...(Object.keys(kinds) as Kind[]).map((kind) => place(`intact.${kind}`, kind, (meta, data) => [meta, data])),
  ]);

  receiver = await world.bus();
  received = await receive(receiver, 'bob');
  await until(async () => (letters = await deadLetters(receiver)).length >= attacks.length, {
    show: () => attacks.filter((_, at) => !letters.some((letter) => letter.type === typeOf(at))).map(({ name }) => name),
  });
  await until(() => received.length >= Object.keys(kinds).length);
  records = await auditRecords(receiver);
});
afterAll(async () => {
  await world.end();
  await server.stop();
});

test('the keys of which a change is tried are all there are', () => {
  const paths = (value: any, path: string): string[] => [
    path,
    ...(typeof value === 'object' ? Object.entries(value).flatMap(([key, inner]) => paths(inner, `${path}.${key}`)) : []),
  ];
  const found = [...metas.values()].flatMap((meta) => Object.entries(meta).flatMap(([key, value]) => paths(value, key)));
  expect([...new Set(found)].sort()).toEqual(Object.values(keys).flat().sort());
});

test('put back as they were, under other ids, messages are handled', () => {
  const types = received.map(({ type }) => type);
  expect(types.filter((type) => type.startsWith('intact')).sort()).toEqual(
    Object.keys(kinds)
      .sort()
      .map((kind) => `intact.${kind}`),
  );
});

test.each(attacks.map((attack, at) => [attack.name, attack.kind, at] as const))('%s (%s)', (_, __, at) => {
  const { reason, error, outcome } = attacks[at];
  const type = typeOf(at);
  expect(received.filter((message) => message.type === type)).toEqual([]);
  expect(letters.filter((letter) => letter.type === type)).toEqual([{ type, reason, error: expect.stringMatching(error) }]);
  const refusals = records.filter((record) => record.eventType === type && record.outcome !== 'sent');
  expect(refusals).toMatchObject([{ targetProject: 'bob', outcome, reason: expect.stringMatching(error) }]);
});

test('put back once more by redrive(), they are refused once more', async () => {
  const before = received.length;
  const all = attacks.map((_, at) => receiver.deadLetters.redrive({ eventType: `@bob/${typeOf(at)}` }));
  expect(await Promise.all(all)).toEqual(attacks.map(() => 1));
  const refused = () => auditRecords(receiver).then((found) => found.filter((record) => ['forged', 'invalid'].includes(record.outcome)));
  await until(async () => (await refused()).length === 2 * attacks.length, { everyMs: 50 });
  expect(await deadLetters(receiver)).toHaveLength(attacks.length);
  expect(received).toHaveLength(before);
});

test('what was refused is counted with the target as failed, and the audit log is whole', async () => {
  const stats = await receiver.getCrossProjectStats('bob');
  expect(stats.messagesFailed).toBe(2 * attacks.length);
  expect(await receiver.verifyAuditLog()).toMatchObject({ ok: true });
});

test('nothing secret is in Redis, nor in anything that the buses said', () => world.expectNoSecrets());

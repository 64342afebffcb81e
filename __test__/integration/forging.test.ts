/** Messages that were there before, that are not by whom they say, and senders who are not who they say. */
import type { CrossProjectHandlerOptions, OSSAEventBus } from '@bluefly/ossa';
import {
  auditRecords,
  Crossing,
  credentials,
  deadLetters,
  openProject,
  project,
  type RawEntry,
  type Received,
  receive,
} from '../support/crossing';
import { TestServer } from '../support/server';
import { until } from '../support/wait';
import { quick, refusal } from '../support/world';

jest.setTimeout(60_000);

const MINUTE_MS = 60_000;

let server: TestServer;
let world: Crossing;
let sender: OSSAEventBus;
let receiver: OSSAEventBus;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

beforeEach(async () => {
  await server.call('FLUSHALL');
  world = new Crossing(server.url);
  [sender, receiver] = await Promise.all([world.bus(), world.bus()]);
  for (const id of ['alice', 'bob', 'carol', 'mallory']) await sender.registerProject(project(id));
  await sender.registerProject(openProject('open'));
});
afterEach(async () => {
  await world.expectNoSecrets();
  await world.end();
});

const send = (type: string, data: unknown = 1, options?: object) => sender.sendCrossProjectMessage('alice', 'bob', type, data, options);
const receiveAll = (options?: CrossProjectHandlerOptions) => receive(receiver, 'bob', options);
const lettersOf = async (type: string) => (await deadLetters(receiver)).filter((letter) => letter.type === type);

/** Waits until `count` messages of the type were refused, and answers them as audit records. */
async function refused(type: string, count: number, outcome: string): Promise<any[]> {
  const ended = async () => (await auditRecords(receiver)).filter((record) => record.eventType === type && record.outcome !== 'sent');
  const isRefused = (record: any) => record.outcome === outcome;
  await until(async () => (await ended()).filter(isRefused).length >= count, { everyMs: 50 });
  return (await ended()).filter(isRefused);
}

describe('a message that is there twice', () => {
  test('is handled once: copies that come later are replays', async () => {
    const received = await receiveAll();
    await send('t');
    await until(() => received.length === 1);
    const { key, id, fields } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', ...fields);
    await refused('t', 1, 'replayed');
    // Nor does it help that the first one is gone.
    await world.redis.xdel(key, id);
    await world.redis.xadd(key, '*', ...fields);
    expect(await refused('t', 2, 'replayed')).toMatchObject([{ sourceProject: 'alice' }, { reason: expect.stringMatching(/^ERR_REPLAY/) }]);
    const letter = { type: 't', reason: 'signature', error: expect.stringMatching(/^ERR_REPLAY: /) };
    expect(await lettersOf('t')).toEqual([letter, letter]);
    expect(received).toHaveLength(1);
  });

  test('is handled once where all copies wait for the handler', async () => {
    await send('t');
    const { key, fields } = await world.found('bob', 't');
    for (let copy = 0; copy < 250; copy++) await world.redis.xadd(key, '*', ...fields);
    const received = await receiveAll();
    await refused('t', 250, 'replayed');
    expect(received).toHaveLength(1);
  });

  test('is handled once by two members of a group', async () => {
    await send('t');
    const { key, fields } = await world.found('bob', 't');
    for (let copy = 0; copy < 250; copy++) await world.redis.xadd(key, '*', ...fields);
    const [one, other] = await Promise.all([receiveAll(), receive(sender, 'bob')]);
    await refused('t', 250, 'replayed');
    expect(one.length + other.length).toBe(1);
  });

  test('is handled once where a copy is in the lane of another priority', async () => {
    await send('t', 'urgent', { priority: 'critical' });
    await send('t', 'normal');
    const received = await receiveAll();
    await until(() => received.length === 2);
    const normal = await world.stream('@bob/t', ':0');
    const critical = await world.stream('@bob/t', ':0:critical');
    const [[, fields]] = await world.entries(normal);
    await world.redis.xadd(critical, '*', ...fields);
    await refused('t', 1, 'replayed');
    expect(received).toHaveLength(2);
  });

  test('is handled once where a copy is in another partition', async () => {
    await sender.createStream('@bob/t', {
      maxLength: 1000,
      retention: 'count',
      retentionValue: 1000,
      partitioning: 'round-robin',
      partitions: 3,
    });
    const received = await receiveAll();
    for (let n = 0; n < 3; n++) await send('t', n);
    await until(() => received.length === 3);
    const streams = await Promise.all([0, 1, 2].map((n) => world.stream('@bob/t', `:${n}`)));
    const [[[, fields]]] = await Promise.all(streams.map((key) => world.entries(key)));
    await world.redis.xadd(streams[1], '*', ...fields);
    await world.redis.xadd(streams[2], '*', ...fields);
    await refused('t', 2, 'replayed');
    expect(received).toHaveLength(3);
  });

  test.each([
    ['names the first entry as its own', (id: string) => ['first', id]],
    ['says that it was put back for the group', (id: string) => ['to', 'default', 'first', id]],
    ['names an entry that there is not', () => ['first', `${Date.now()}-77`]],
  ])('is handled once where the copy %s', async (_, more) => {
    const received = await receiveAll();
    await send('t');
    await until(() => received.length === 1);
    const { key, id, fields } = await world.found('bob', 't');
    for (let copy = 0; copy < 3; copy++) await world.redis.xadd(key, '*', ...fields, ...more(id));
    await refused('t', 3, 'replayed');
    expect(received).toHaveLength(1);
  });

  test('is handled once where a copy lies right behind one that was put back by redrive()', async () => {
    let calls = 0;
    const handler = () => {
      calls++;
      if (calls === 1) throw new Error('not yet');
    };
    await receiver.setupCrossProjectHandler('bob', 't', handler, { retry: quick(0) });
    await send('t');
    await until(async () => (await lettersOf('t')).length === 1);
    await receiver.deadLetters.redrive({ eventType: '@bob/t' });
    await until(() => calls === 2);
    const key = await world.stream('@bob/t');
    const [id, fields] = (await world.entries(key)).at(-1) as RawEntry;
    expect(fields).toContain('first');
    const [ms, sequence] = id.split('-').map(Number);
    await world.redis.xadd(key, `${ms}-${sequence + 1}`, ...fields);
    await refused('t', 1, 'replayed');
    expect(calls).toBe(2);
  });

  test('is handled once where its source does not sign', async () => {
    const received = await receiveAll();
    await sender.sendCrossProjectMessage('open', 'bob', 't', 1);
    await until(() => received.length === 1);
    const { key, fields } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', ...fields);
    await refused('t', 1, 'replayed');
    expect(received).toHaveLength(1);
  });

  test('is nothing for another type, or another project', async () => {
    const received = await receiveAll();
    const byCarol = await receive(receiver, 'carol');
    await Promise.all([send('one'), send('two'), sender.sendCrossProjectMessage('alice', 'carol', 'one', 1)]);
    await until(() => received.length === 2 && byCarol.length === 1);
    const { fields } = await world.found('bob', 'one');
    await world.redis.xadd(await world.stream('@bob/two'), '*', ...fields);
    await world.redis.xadd(await world.stream('@carol/one'), '*', ...fields);
    expect(await refused('two', 1, 'forged')).toMatchObject([{ targetProject: 'bob' }]);
    expect(await refused('one', 1, 'forged')).toMatchObject([{ targetProject: 'carol' }]);
    expect([received.length, byCarol.length]).toEqual([2, 1]);
  });
});

test('redeliveries, other groups and redriven messages are no replays', async () => {
  let failing = true;
  let calls = 0;
  const handler = () => {
    calls++;
    if (failing) throw new Error('not yet');
  };
  await receiver.setupCrossProjectHandler('bob', 't', handler, { retry: quick(3) });
  const others = await receiveAll({ group: 'others' });
  await send('t');
  await until(async () => (await lettersOf('t')).length === 1);
  expect([calls, others.length]).toEqual([4, 1]);
  failing = false;
  expect(await receiver.deadLetters.redrive({ eventType: '@bob/t' })).toBe(1);
  await until(() => calls === 5);
  await until(async () => (await auditRecords(receiver)).filter(({ outcome }) => outcome === 'delivered').length === 2);
  expect((await auditRecords(receiver)).map(({ outcome }) => outcome).sort()).toEqual(['delivered', 'delivered', 'failed', 'sent']);
});

describe('a message whose entry is not of its time', () => {
  /** Puts the message into a stream of its own whose only entry has that id. */
  const moved = async (type: string, byMs: number, options?: object) => {
    await send(type, 1, options);
    const { key, id, fields } = await world.found('bob', type);
    const at = Number(id.split('-')[0]) + byMs;
    await world.redis
      .multi()
      .del(key)
      .xadd(key, `${at}-0`, ...fields)
      .exec();
  };

  test('is a replay beyond five minutes', async () => {
    await moved('late', 5.2 * MINUTE_MS);
    await moved('early', -5.2 * MINUTE_MS);
    await moved('bit-late', 4.8 * MINUTE_MS);
    await moved('bit-early', -4.8 * MINUTE_MS);
    const received = await receiveAll();
    await refused('late', 1, 'replayed');
    await refused('early', 1, 'replayed');
    await until(() => received.length === 2);
    expect(received.map(({ type }) => type).sort()).toEqual(['bit-early', 'bit-late']);
  });

  test('is a replay where it was to come later', async () => {
    await send('t', 1, { delayMs: 10 * MINUTE_MS });
    const [delayed] = await world.redis.keys(`${world.prefix}:{*}:delayed:@bob/t:0`);
    const [id] = await world.redis.zrange(delayed, '0', '-1');
    const body = JSON.parse((await world.redis.hget(delayed.replace('delayed:', 'delayed-body:'), id)) as string) as string[];
    const stream = delayed.replace('delayed:', 'stream:');
    await world.redis.xadd(stream, '*', 'meta', body[0], 'data', body[1]);
    const received = await receiveAll();
    await refused('t', 1, 'replayed');
    expect(received).toEqual([]);
  });
});

describe('a message by somebody else', () => {
  test('is refused where it is not signed and its source signs', async () => {
    await sender.sendCrossProjectMessage('open', 'bob', 't', 'by open');
    const { key, meta } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', 'meta', meta.replace('"source":"open"', '"source":"alice"'), 'data', '"forged"');
    const received = await receiveAll();
    expect(await refused('t', 1, 'forged')).toMatchObject([{ sourceProject: 'alice' }]);
    expect(received.map(({ data }) => data)).toEqual(['by open']);
  });

  /** The fields of a message as `sign` makes one in a Redis of its own, where alice is whoever it wants. */
  const made = async (alice: ReturnType<typeof credentials>) => {
    const prefix = `${world.prefix}:elsewhere`;
    const elsewhere = await world.bus({ prefix });
    await elsewhere.registerProject(project('alice', { credentials: alice }));
    await elsewhere.registerProject(project('bob'));
    await elsewhere.sendCrossProjectMessage('alice', 'bob', 't', 'forged');
    return {
      ...(await world.found('bob', 't', prefix)),
      publicDocument: (await world.redis.hget(`${prefix}:projects`, 'alice')) as string,
    };
  };
  const stolen = { apiKey: credentials('alice').apiKey, secret: credentials('mallory').secret };

  test.each([
    ['is signed by a key of its own', credentials('mallory')],
    ['is signed by a key of its own under the name of the stolen apiKey', stolen],
  ])('is refused where it %s', async (_, alice) => {
    await send('t', 'true');
    const { key } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', ...(await made(alice)).fields);
    const received = await receiveAll();
    await refused('t', 1, 'forged');
    expect(received.map(({ data }) => data)).toEqual(['true']);
  });

  test('is refused where a registered project signed it and says that it is another one', async () => {
    await sender.registerProject(project('mallory', { credentials: { ...credentials('mallory') } }));
    await sender.sendCrossProjectMessage('mallory', 'bob', 't', 'by mallory');
    const { key, meta, data } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', 'meta', meta.replace('"source":"mallory"', '"source":"alice"'), 'data', data);
    const received = await receiveAll();
    await refused('t', 1, 'forged');
    expect(received.map(({ source }) => source)).toEqual(['mallory']);
  });

  /** Writes a document of a project as any process could. */
  const writeDocument = (id: string, text: string) =>
    world.redis.multi().hset(`${world.prefix}:projects`, id, text).hincrby(`${world.prefix}:projects`, '', 1).exec();

  test('is refused by the pinned key where the document of its project was changed to fit', async () => {
    await send('t', 'true');
    const document = JSON.parse((await world.redis.hget(`${world.prefix}:projects`, 'alice')) as string);
    const pinned = await world.bus({ trustedKeys: { alice: document.keys[0].public } });
    const { fields, publicDocument } = await made(stolen);
    const { key } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', ...fields);
    await writeDocument('alice', publicDocument);
    const [withPin, without] = await Promise.all([receive(pinned, 'bob', { group: 'pinned' }), receiveAll({ group: 'trusting' })]);
    // Whoever trusts the document believes it: that is what pins are for.
    await until(() => without.some(({ data }) => data === 'forged'));
    const refusals = async () => (await refused('t', 1, 'forged')).filter(({ reason }) => reason.includes('ERR_SIGNATURE'));
    await until(async () => (await refusals()).length + withPin.length >= 2);
    expect(withPin.filter(({ data }) => data === 'forged')).toEqual([]);
  });

  test('is refused where the document of its project was changed to say that it does not sign', async () => {
    const document = JSON.parse((await world.redis.hget(`${world.prefix}:projects`, 'alice')) as string);
    const pinned = await world.bus({ trustedKeys: { alice: document.keys[0].public } });
    const { keys: _, signsFromMs: __, ...rest } = document;
    await writeDocument('alice', JSON.stringify({ ...rest, keys: [] }));
    await sender.sendCrossProjectMessage('open', 'bob', 't', 'by open');
    const { key, meta } = await world.found('bob', 't');
    await world.redis.xadd(key, '*', 'meta', meta.replaceAll('open', 'alice'), 'data', '"forged"');
    const received = await receive(pinned, 'bob');
    await refused('t', 1, 'forged');
    expect(received.map(({ data }) => data)).toEqual(['by open']);
  });

  test('is refused where its project did not sign before, and the entry says that it is from then', async () => {
    await sender.sendCrossProjectMessage('open', 'bob', 't', 'by open');
    const { key, id, meta } = await world.found('bob', 't');
    const before = (await world.redis.time())[0];
    await until(async () => (await world.redis.time())[0] > before);
    await sender.registerProject(project('open'));
    const forged = meta.replace(/"id":"[^"]*"/, '"id":"0196f0a0-0000-7000-8000-000000000000"');
    await world.redis.xadd(key, '*', 'meta', forged, 'data', '"forged"', 'first', id);
    const received = await receiveAll();
    await until(async () => (await lettersOf('t')).length === 1);
    expect(received.map(({ data }) => data)).toEqual(['by open']);
  });
});

describe('a process without the secret of a project', () => {
  const recorded = async (outcome: string) => (await auditRecords(receiver)).filter((record) => record.outcome === outcome);

  test('cannot send as it, and that is on record', async () => {
    const error = await refusal('ERR_NOT_PERMITTED', () => receiver.sendCrossProjectMessage('alice', 'bob', 't', 1));
    world.told.push(error.message, JSON.stringify(error.details), String(error.stack));
    expect(await recorded('denied')).toMatchObject([{ sourceProject: 'alice', targetProject: 'bob', eventType: 't' }]);
    expect(await receiver.getCrossProjectStats('alice')).toMatchObject({ messagesSent: 0, messagesFailed: 1 });
  });

  test.each<[what: string, over: object]>([
    ['its apiKey and another secret', { credentials: { ...credentials('mallory'), apiKey: credentials('alice').apiKey } }],
    ['credentials of its own', { credentials: credentials('mallory') }],
    ['a secret before that is not it', { credentials: { ...credentials('mallory'), previousSecret: credentials('bob').secret } }],
    ['no credentials', { credentials: undefined }],
  ])('cannot take it over with %s', async (_, over) => {
    const error = await world.failure(() => receiver.registerProject(project('alice', over)));
    expect(error).toMatchObject({ code: 'ERR_PROJECT_CONFLICT', details: { projectId: 'alice' } });
    expect(await world.failure(() => receiver.sendCrossProjectMessage('alice', 'bob', 't', 1))).toMatchObject({
      code: 'ERR_NOT_PERMITTED',
    });
    // And its owner is not disturbed.
    const received: Received[] = await receiveAll();
    await send('t');
    await until(() => received.length === 1);
  });

  test('cannot get past it by publishing into the stream of a target', async () => {
    const received = await receiveAll();
    const handled: unknown[] = [];
    await receiver.subscribe('**', (event) => void handled.push(event));
    const name = '@bob/t';
    for (const publish of [
      () => receiver.publish(name, 'forged'),
      () => receiver.publish(name, 'forged', { transient: true }),
      () => receiver.publish(name, 'forged', { source: 'alice', target: 'bob', delayMs: 1 }),
      () => receiver.publishBatch([{ eventType: name, data: 'forged' }]),
      () => receiver.request(name, 'forged'),
      () => receiver.subscribe(name, () => undefined),
      () => receiver.sendCrossProjectMessage('open', 'bob/t', 't', 'forged'),
      () => receiver.sendCrossProjectMessage('open', 'bob', name, 'forged'),
    ])
      expect(['ERR_INVALID_ARGUMENT', 'ERR_PROJECT_UNKNOWN']).toContain((await world.failure(publish))?.code);
    // Nor does a message reach those who read all events.
    await send('t');
    await sender.publish('t', 'to all');
    await until(() => received.length === 1 && handled.length === 1);
    expect(handled).toMatchObject([{ data: 'to all' }]);
  });

  test('cannot end it, nor bind it by contracts', async () => {
    expect(await world.failure(() => receiver.unregisterProject('alice'))).toMatchObject({ code: 'ERR_NOT_PERMITTED' });
    const date = new Date();
    const contract = {
      name: 'c',
      version: '1.0.0',
      sourceProject: 'alice',
      targetProjects: ['*'],
      eventTypes: ['**'],
      schema: false,
      metadata: { description: 'd', author: 'a', createdAt: date, updatedAt: date },
    };
    expect(await world.failure(() => receiver.registerContract(contract))).toMatchObject({ code: 'ERR_NOT_PERMITTED' });
  });

  test('cannot keep its messages back by idempotency keys of its own', async () => {
    const received = await receiveAll();
    const first = await sender.sendCrossProjectMessage('mallory', 'bob', 't', 'by mallory', { idempotencyKey: 'order-1' });
    const second = await send('t', 'by alice', { idempotencyKey: 'order-1' });
    expect(second).not.toBe(first);
    await until(() => received.length === 2);
    expect(await send('t', 'by alice', { idempotencyKey: 'order-1' })).toBe(second);
  });
});

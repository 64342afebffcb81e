/** Messages between projects: that each is from whom it says, unchanged, once. */
import type { CrossProjectMessage, DeadLetter, OSSAEventBus } from '@bluefly/ossa';
import { arrived, inbox, project, secretOf, useProjects } from './support/projects';
import { connectTo } from './support/server';
import { until } from './support/wait';
import { quick, redisUrl, refusal, storesWithCluster } from './support/world';

const NEW = 'the new secret of a, long enough';
const rotated = () => project('a', { credentials: { apiKey: 'key-a', secret: NEW, previousSecret: secretOf('a') } });

async function letters(bus: OSSAEventBus, count: number): Promise<DeadLetter[]> {
  await until(async () => (await bus.deadLetters.count()) >= count);
  return (await bus.deadLetters.list()).items;
}

const dataOf = (messages: CrossProjectMessage[]) => messages.map((message) => message.payload.data);

describe.each(storesWithCluster)('on %s', (kind) => {
  const projects = useProjects(kind);

  test('sending as a project takes its secret in this process: ERR_NOT_PERMITTED names the project', async () => {
    const [one, other] = [await projects.busOf('a', 'b'), await projects.bus()];
    const got = await inbox(one, 'b');
    const error = await refusal('ERR_NOT_PERMITTED', () => other.sendCrossProjectMessage('a', 'b', 't', 1));
    expect(error).toMatchObject({ retryable: false, details: { projectId: 'a' } });
    expect(error.message).toContain("'a'");
    await other.registerProject(project('a'));
    await other.sendCrossProjectMessage('a', 'b', 't', 2);
    expect(dataOf(await arrived(got, 1))).toEqual([2]);
  });

  test('a project without credentials can be sent as by anybody, unsigned', async () => {
    const [one, other] = [await projects.busOf(project('a', { credentials: undefined as any }), 'b'), await projects.bus()];
    const got = await inbox(one, 'b');
    await other.sendCrossProjectMessage('a', 'b', 't', 1);
    const [{ security }] = await arrived(got, 1);
    expect(security).toEqual({ signature: '', timestamp: expect.any(Number), nonce: expect.any(String) });
  });

  test('requireSignatureValidation takes no unsigned message: it is a dead letter, and no handler sees it', async () => {
    const bus = await projects.busOf(project('a', { credentials: undefined as any }), 'b', 'c');
    const got = await inbox(bus, 'b', '**', { requireSignatureValidation: true });
    const id = await bus.sendCrossProjectMessage('a', 'b', 't', 'unsigned');
    await bus.sendCrossProjectMessage('c', 'b', 't', 'signed');
    const [letter] = await letters(bus, 1);
    expect(letter).toMatchObject({ reason: 'signature', event: { metadata: { id } } });
    expect(dataOf(await arrived(got, 1))).toEqual(['signed']);
    const { items } = await bus.getAuditLog({ outcome: 'forged' });
    expect(items).toMatchObject([{ sourceProject: 'a', targetProject: 'b', eventType: 't', messageId: id }]);
  });

  test('a secret is changed by naming the one before; what was signed before still holds', async () => {
    const [one, other] = [await projects.busOf('a', 'b'), await projects.bus()];
    await one.sendCrossProjectMessage('a', 'b', 't', 'old key');
    await one.registerProject(rotated());
    await one.sendCrossProjectMessage('a', 'b', 't', 'new key');
    const got = await inbox(other, 'b', 't', { requireSignatureValidation: true });
    expect(dataOf(await arrived(got, 2)).sort()).toEqual(['new key', 'old key']);
    expect(await one.deadLetters.count()).toBe(0);
    // The same change by another process of the project; then the old secret is none any more.
    await other.registerProject(rotated());
    await other.sendCrossProjectMessage('a', 'b', 't', 'by another');
    await until(() => got.length === 3);
    await refusal('ERR_PROJECT_CONFLICT', () => other.registerProject(project('a')));
    await refusal('ERR_PROJECT_CONFLICT', () =>
      other.registerProject(project('a', { credentials: { apiKey: 'k', secret: 'third secret of a', previousSecret: secretOf('a') } })),
    );
  });

  test('a process that knows only the old secret cannot send any more, and is told what to do', async () => {
    const [one, other] = [await projects.busOf('a', 'b'), await projects.busOf('a')];
    await one.registerProject(rotated());
    await until(() => other.validateProjectSetup('a').then(({ isValid }) => !isValid));
    expect((await other.validateProjectSetup('a')).errors.join()).toMatch(/its secret was changed/);
    const error = await refusal('ERR_NOT_PERMITTED', () => other.sendCrossProjectMessage('a', 'b', 't', 1));
    expect(error.message).toMatch(/secret was changed/);
    await other.registerProject(project('a', { credentials: { apiKey: 'key-a', secret: NEW } }));
    await other.sendCrossProjectMessage('a', 'b', 't', 1);
  });

  test('retried and redriven messages are the same messages: they are verified, and taken', async () => {
    const bus = await projects.busOf('a', 'b');
    const attempts: number[] = [];
    let healed = false;
    await bus.setupCrossProjectHandler(
      'b',
      't',
      (message) => {
        attempts.push(message.payload.metadata.attempt);
        if (!healed) throw new Error('not yet');
      },
      { requireSignatureValidation: true, retry: quick(1) },
    );
    const id = await bus.sendCrossProjectMessage('a', 'b', 't', { k: 1 });
    const [letter] = await letters(bus, 1);
    expect(letter).toMatchObject({ eventType: '@b/t', reason: 'max-attempts', attempts: 2, event: { metadata: { id }, data: { k: 1 } } });
    healed = true;
    await bus.registerProject(rotated());
    expect(await bus.deadLetters.redrive({ eventType: '@b/t' })).toBe(1);
    await until(() => attempts.length === 3);
    expect(attempts).toEqual([1, 2, 1]);
    expect(await bus.deadLetters.count()).toBe(0);
  });

  test('delayed messages are verified when they come, after a change of the secret as well', async () => {
    const bus = await projects.busOf('a', 'b');
    const got = await inbox(bus, 'b', 't', { requireSignatureValidation: true });
    const before = Date.now();
    const id = await bus.sendCrossProjectMessage('a', 'b', 't', 'late', { delayMs: 300 });
    await bus.registerProject(rotated());
    expect((await arrived(got, 1))[0].security.nonce).toBe(id);
    expect(Date.now() - before).toBeGreaterThanOrEqual(295);
  });

  test('securityEnabled false: nothing is signed there and nothing verified; others go by their own', async () => {
    const [strict, lax] = [await projects.busOf('a', 'b', 'c'), await projects.bus({ securityEnabled: false })];
    await lax.registerProject(project('a'));
    const [byStrict, byLax] = [await inbox(strict, 'b'), await inbox(lax, 'c')];
    for (const target of ['b', 'c']) await lax.sendCrossProjectMessage('a', target, 't', 'unsigned');
    await strict.sendCrossProjectMessage('a', 'b', 't', 'signed');
    expect(dataOf(await arrived(byStrict, 1))).toEqual(['signed']);
    expect(await arrived(byLax, 1)).toMatchObject([{ security: { signature: '' }, payload: { data: 'unsigned' } }]);
    expect(await letters(strict, 1)).toMatchObject([{ eventType: '@b/t', reason: 'signature' }]);
    expect((await lax.validateProjectSetup('a')).warnings.join()).toMatch(/securityEnabled is false/);
  });

  test('what was sent before the project was unregistered is still taken', async () => {
    const bus = await projects.busOf('a', 'b');
    await bus.sendCrossProjectMessage('a', 'b', 't', 'before');
    await bus.unregisterProject('a');
    await refusal('ERR_PROJECT_UNKNOWN', () => bus.sendCrossProjectMessage('a', 'b', 't', 'after'));
    const got = await inbox(bus, 'b', 't', { requireSignatureValidation: true });
    expect(dataOf(await arrived(got, 1))).toEqual(['before']);
  });

  test('batches of messages are verified one by one', async () => {
    const bus = await projects.busOf('a', project('u', { credentials: undefined as any }), 'b');
    const got: unknown[] = [];
    for (let n = 0; n < 4; n++) await bus.sendCrossProjectMessage(n === 2 ? 'u' : 'a', 'b', 't', n);
    const handler = (messages: unknown) => void got.push(...(messages as CrossProjectMessage[]).map((message) => message.payload.data));
    await bus.setupCrossProjectHandler('b', 't', handler, { batch: { maxSize: 4, maxWaitMs: 10 }, requireSignatureValidation: true });
    await until(() => got.length === 3);
    expect([...got].sort()).toEqual([0, 1, 3]);
    expect(await letters(bus, 1)).toMatchObject([{ reason: 'signature', event: { data: 2 } }]);
  });
});

describe('who writes to Redis', () => {
  const projects = useProjects('redis');
  const redis = connectTo(redisUrl());
  afterAll(() => redis.disconnect());

  /** The stream of messages to the project, and the fields of its only entry. */
  async function entry(target: string): Promise<[string, string[]]> {
    const [key] = await redis.keys(`${projects.world.prefix}:*:stream:@${target}/*`);
    const [[, fields]] = await redis.xrange(key, '-', '+');
    return [key, fields];
  }

  test.each<[string, string, (fields: string[]) => string[]]>([
    ['copies a message', 'replayed', (fields) => fields],
    ['changes its data', 'forged', (fields) => fields.map((field) => field.replace('100', '900'))],
    ['changes who sent it', 'forged', (fields) => fields.map((field) => field.replace('"source":"a"', '"source":"c"'))],
    ['changes when it was sent', 'forged', (fields) => fields.map((field) => field.replace(/"timestamp":(\d)/, '"timestamp":9'))],
    ['takes its signature away', 'forged', (fields) => fields.map((field) => field.replace(/,"sig":"[^"]*"/, ''))],
  ])('and %s gets it refused as %s, and no handler sees it', async (_, outcome, change) => {
    const bus = await projects.busOf('a', 'b', 'c');
    const id = await bus.sendCrossProjectMessage('a', 'b', 't', { cents: 100 });
    const [key, fields] = await entry('b');
    const changed = change(fields);
    if (outcome === 'forged') expect(changed).not.toEqual(fields);
    await redis.xadd(key, '*', ...changed);
    const got = await inbox(bus, 'b');
    expect(dataOf(await arrived(got, 1))).toEqual([{ cents: 100 }]);
    const [letter] = await letters(bus, 1);
    expect(letter).toMatchObject({ reason: 'signature', event: { metadata: { id } } });
    const { items } = await bus.getAuditLog({ outcome: outcome as 'forged' });
    expect(items).toMatchObject([{ targetProject: 'b', messageId: id, reason: expect.any(String) }]);
    expect(got.length).toBe(1);
  });

  test('and moves a message to another project gets it refused', async () => {
    const bus = await projects.busOf('a', 'b', 'c');
    await bus.sendCrossProjectMessage('a', 'b', 't', 'for b');
    const [, fields] = await entry('b');
    await bus.sendCrossProjectMessage('a', 'c', 't', 'for c');
    const [key] = await entry('c');
    await redis.xadd(key, '*', ...fields);
    const got = await inbox(bus, 'c');
    expect(dataOf(await arrived(got, 1))).toEqual(['for c']);
    expect(await letters(bus, 1)).toMatchObject([{ reason: 'signature', event: { data: 'for b' } }]);
  });

  test('and writes what is no message leaves a dead letter, and breaks nothing', async () => {
    const bus = await projects.busOf('a', 'b');
    await bus.sendCrossProjectMessage('a', 'b', 't', 'right');
    const [key] = await entry('b');
    await redis.xadd(key, '*', 'x', 'y');
    await redis.xadd(key, '*', 'meta', '{', 'data', '{');
    const got = await inbox(bus, 'b');
    await arrived(got, 1);
    expect((await letters(bus, 2)).map((letter) => letter.reason)).toEqual(['malformed', 'malformed']);
  });

  test("trustedKeys are believed before what Redis says: another's key in P:projects gets nothing through", async () => {
    const owner = await projects.busOf('a', 'b');
    const document = JSON.parse((await redis.hget(`${projects.world.prefix}:projects`, 'a')) as string);
    const pinned = document.keys.at(-1).public;
    const right = await projects.bus({ trustedKeys: { a: pinned } });
    const wrong = await projects.bus({ trustedKeys: { a: 'A'.repeat(43) } });
    expect(await right.validateProjectSetup('a')).toMatchObject({ isValid: true });
    expect((await wrong.validateProjectSetup('a')).errors.join()).toMatch(/trustedKeys/);
    await owner.sendCrossProjectMessage('a', 'b', 't', 'signed');
    const [byRight, byWrong] = [await inbox(right, 'b', 't', { group: 'right' }), await inbox(wrong, 'b', 't', { group: 'wrong' })];
    await arrived(byRight, 1);
    expect(await letters(owner, 1)).toMatchObject([{ group: 'wrong', reason: 'signature' }]);
    expect(byWrong).toEqual([]);
    // A change of the secret that the owner made follows from the pinned key.
    await owner.registerProject(rotated());
    await owner.sendCrossProjectMessage('a', 'b', 't', 'new key');
    await until(() => byRight.length === 2);
  });
});

/** Messages between projects: registering, sending, what a handler is given, rates and errors. */
import type { CrossProjectMessage, CrossProjectOptions, OSSAEventBus } from '@bluefly/ossa';
import { arrived, inbox, knows, project, SOON, useProjects } from './support/projects';
import { until } from './support/wait';
import { quick, refusal, storesWithCluster } from './support/world';

describe.each(storesWithCluster)('on %s', (kind) => {
  const projects = useProjects(kind);

  describe('registering', () => {
    test('what one bus registers, another one knows within a second, and that it is gone as well', async () => {
      const [one, other] = [await projects.bus(), await projects.bus()];
      await one.registerProject(project('a'));
      expect(knows(one, 'a')).toBe(true);
      await until(() => knows(other, 'a'), SOON);
      expect(await one.unregisterProject('a')).toBe(true);
      expect(knows(one, 'a')).toBe(false);
      await until(() => !knows(other, 'a'), SOON);
      expect(await one.unregisterProject('a')).toBe(false);
    });

    test('another secret, or none: ERR_PROJECT_CONFLICT, and nothing changes', async () => {
      const [one, other] = [await projects.busOf('a', 'b'), await projects.bus()];
      for (const bus of [one, other]) {
        for (const credentials of [{ apiKey: 'key-a', secret: 'another secret, long enough' }, undefined]) {
          const error = await refusal('ERR_PROJECT_CONFLICT', () =>
            bus.registerProject(project('a', { allowedTargets: [], credentials: credentials as any })),
          );
          expect(error.details).toMatchObject({ projectId: 'a' });
          expect(error.message).toContain("'a'");
        }
      }
      await one.sendCrossProjectMessage('a', 'b', 't', 1);
    });

    test('of two that take one name at once with different secrets, one gets it', async () => {
      const buses = [await projects.bus(), await projects.bus()];
      const results = await Promise.allSettled(
        buses.map((bus, n) => bus.registerProject(project('a', { credentials: { apiKey: 'k', secret: `secret number ${n} of them` } }))),
      );
      const codes = results.map((result) => (result.status === 'fulfilled' ? 'done' : result.reason.code)).sort();
      expect(codes).toEqual(['ERR_PROJECT_CONFLICT', 'done']);
    });

    test('registering again changes what it may do', async () => {
      const bus = await projects.busOf('a', 'b');
      await bus.registerProject(project('a', { allowedEventTypes: ['x'] }));
      await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('a', 'b', 'y', 1));
      await bus.registerProject(project('a', { allowedEventTypes: ['x', 'y'] }));
      await bus.sendCrossProjectMessage('a', 'b', 'y', 1);
    });

    test('unregistering needs the secret', async () => {
      const [, other] = [await projects.busOf('a'), await projects.bus()];
      const error = await refusal('ERR_NOT_PERMITTED', () => other.unregisterProject('a'));
      expect(error.message).toContain("'a'");
      await other.registerProject(project('a'));
      expect(await other.unregisterProject('a')).toBe(true);
      // The name is free again, for anybody.
      await other.registerProject(project('a', { credentials: { apiKey: 'k', secret: 'another secret, long enough' } }));
    });

    test('validateProjectSetup says what is wrong and what would be better', async () => {
      const bus = await projects.busOf(project('a', { allowedTargets: ['b', 'nobody'], credentials: undefined as any }), 'b');
      const unknown = await bus.validateProjectSetup('c');
      expect(unknown).toMatchObject({ isValid: false, errors: [expect.stringContaining("'c'")] });
      const found = await bus.validateProjectSetup('a');
      expect(found).toMatchObject({ isValid: true, errors: [] });
      expect(found.warnings.join('\n')).toMatch(/no credentials/);
      expect(found.warnings.join('\n')).toMatch(/'nobody', which is not registered/);
      expect(found.warnings.join('\n')).toMatch(/no process has set up a handler for 'b'/);
      expect(found.recommendations.join('\n')).toMatch(/rateLimiting/);
      await inbox(bus, 'b');
      await until(async () => !(await bus.validateProjectSetup('a')).warnings.some((text) => text.includes("handler for 'b'")));
      expect((await (await projects.bus()).validateProjectSetup('b')).warnings.join()).toMatch(/did not register it with its secret/);
    });
  });

  describe('sending', () => {
    test('a handler is told who sent it, to whom, and all of the event', async () => {
      const [one, other] = [await projects.busOf('a'), await projects.busOf('b')];
      const got = await inbox(other, 'b', 'user.*');
      const options: CrossProjectOptions = {
        correlationId: 'c',
        causationId: 'd',
        priority: 'high',
        ttl: 60,
        tags: ['x'],
        headers: { h: '1' },
      };
      const before = Date.now();
      const id = await one.sendCrossProjectMessage('a', 'b', 'user.created', { name: 'n', at: new Date(0) }, options);
      const [message] = await arrived(got, 1);
      const { metadata } = message.payload;
      expect(message).toEqual({
        source: { projectId: 'a', namespace: 'ns-a', version: '1.0.0' },
        target: { projectId: 'b', namespace: 'ns-b' },
        payload: { metadata: expect.anything(), data: { name: 'n', at: '1970-01-01T00:00:00.000Z' } },
        security: {
          signature: expect.stringMatching(/^[\w-]{86}$/),
          timestamp: metadata.timestamp.getTime(),
          nonce: id,
          keyId: expect.any(String),
        },
      });
      expect(metadata).toEqual({
        ...{ id, type: 'user.created', source: 'a', target: 'b', version: '1.0.0', attempt: 1, timestamp: expect.any(Date) },
        ...options,
      });
      expect(metadata.timestamp).toBeInstanceOf(Date);
      expect(Math.abs(metadata.timestamp.getTime() - before)).toBeLessThan(60_000);
    });

    test('source and target have to be registered: ERR_PROJECT_UNKNOWN names which is not', async () => {
      const bus = await projects.busOf('a', 'b');
      for (const [source, target, named] of [
        ['nobody', 'b', 'nobody'],
        ['a', 'nobody', 'nobody'],
        ['a', ['b', 'nobody'], 'nobody'],
      ] as const) {
        const error = await refusal('ERR_PROJECT_UNKNOWN', () => bus.sendCrossProjectMessage(source, target as any, 't', 1));
        expect(error).toMatchObject({ retryable: false, details: { projectId: named } });
        expect(error.message).toContain(`'${named}'`);
      }
      const error = await refusal('ERR_PROJECT_UNKNOWN', () => bus.setupCrossProjectHandler('nobody', 't', () => 1));
      expect(error.message).toContain("'nobody'");
      // Of a list with one that is wrong, none was reached.
      const got = await inbox(bus, 'b');
      await bus.sendCrossProjectMessage('a', 'b', 'last', 1);
      expect((await arrived(got, 1))[0].payload.metadata.type).toBe('last');
    });

    test('ERR_NOT_PERMITTED names the type or the target that is not allowed', async () => {
      const bus = await projects.busOf(project('a', { allowedEventTypes: ['user.*', 'paid'], allowedTargets: ['b'] }), 'b', 'c');
      for (const type of ['user.created', 'paid']) await bus.sendCrossProjectMessage('a', 'b', type, 1);
      for (const type of ['user.created.x', 'user', 'paid.x', 'other']) {
        const error = await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('a', 'b', type, 1));
        expect(error.details).toMatchObject({ projectId: 'a', eventType: type });
        expect(error.message).toContain(`'${type}'`);
      }
      for (const target of ['c', ['b', 'c'], 'a']) {
        const error = await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('a', target, 'paid', 1));
        expect(error.details).toMatchObject({ projectId: 'a', target: target === 'a' ? 'a' : 'c' });
      }
    });

    test('only handlers of the target see a message, whatever others subscribe to', async () => {
      const bus = await projects.busOf('a', 'b', 'c');
      const seen: string[] = [];
      for (const pattern of ['**', '*', 'user.*', 'user.created', '*.*']) {
        await bus.subscribe(pattern, (event: any) => void seen.push(event.metadata.type), { group: `g${pattern.replaceAll('*', 'w')}` });
      }
      const [toB, toC] = [await inbox(bus, 'b'), await inbox(bus, 'c')];
      await bus.sendCrossProjectMessage('a', 'b', 'user.created', 'for b');
      await bus.sendCrossProjectMessage('a', 'c', 'user.created', 'for c');
      await bus.publish('end', 1);
      await arrived(toB, 1);
      await arrived(toC, 1);
      await until(() => seen.filter((type) => type === 'end').length >= 2);
      expect(toB[0].payload.data).toBe('for b');
      expect(toC[0].payload.data).toBe('for c');
      expect(new Set(seen)).toEqual(new Set(['end']));
    });

    test('nobody gets around it: publishing to a project and subscribing to one by its stream are refused', async () => {
      const bus = await projects.busOf('b');
      for (const name of ['@b/x', '@b/**', '@', '@b']) {
        const calls = [
          () => bus.publish(name, 1),
          () => bus.publishBatch([{ eventType: name, data: 1 }]),
          () => bus.request(name, 1),
          () => bus.subscribe(name, () => 1),
          () => bus.subscribe(name),
          () => bus.sendCrossProjectMessage('b', 'b', name, 1),
          () => bus.setupCrossProjectHandler('b', name, () => 1),
        ];
        for (const call of calls) expect((await refusal('ERR_INVALID_ARGUMENT', call)).message).toContain(name);
      }
    });

    test('groups each get every message, members of one group share them', async () => {
      const buses = [await projects.busOf('a', 'b'), await projects.bus()];
      const shared = [await inbox(buses[0], 'b', '**', { group: 'shared' }), await inbox(buses[1], 'b', '**', { group: 'shared' })];
      const alone = await inbox(buses[1], 'b', 't', { group: 'alone' });
      for (let n = 0; n < 20; n++) await buses[0].sendCrossProjectMessage('a', 'b', 't', n);
      await until(() => shared.flat().length >= 20 && alone.length >= 20);
      const numbers = Array.from({ length: 20 }, (_, n) => n);
      const dataOf = (messages: CrossProjectMessage[]) => messages.map((message) => message.payload.data).sort((x, y) => x - y);
      expect(dataOf(shared.flat())).toEqual(numbers);
      expect(dataOf(alone)).toEqual(numbers);
    });

    test("'*' is all that the source may reach, itself left out; of a list each once", async () => {
      const bus = await projects.busOf(project('a', { allowedTargets: ['b', 'c'] }), 'b', 'c', 'd', 'e');
      const got: Record<string, CrossProjectMessage[]> = {};
      for (const id of ['a', 'b', 'c', 'd', 'e']) got[id] = await inbox(bus, id);
      const ids = [await bus.sendCrossProjectMessage('a', '*', 't', 1), await bus.sendCrossProjectMessage('a', ['b', 'c', 'b'], 't', 2)];
      ids.push(await bus.sendCrossProjectMessage('e', '*', 't', 3));
      await until(() => got['b'].length === 3 && got['c'].length === 3 && got['a'].length === 1 && got['d'].length === 1);
      for (const id of ['b', 'c']) expect(got[id].map((message) => message.security.nonce).sort()).toEqual([...ids].sort());
      expect(got['e']).toEqual([]);
      await bus.registerProject(project('e', { allowedTargets: [] }));
      await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('e', '*', 't', 4));
    });

    test('an idempotencyKey that was used answers the first id, and the message comes once', async () => {
      const bus = await projects.busOf('a', 'b', 'c');
      const got = [await inbox(bus, 'b'), await inbox(bus, 'c')];
      const send = (data: number) => bus.sendCrossProjectMessage('a', ['b', 'c'], 't', data, { idempotencyKey: 'once' });
      const first = await send(1);
      expect(await send(2)).toBe(first);
      await bus.sendCrossProjectMessage('a', '*', 't', 3);
      for (const messages of got) {
        expect((await arrived(messages, 2)).map((message) => message.payload.data).sort()).toEqual([1, 3]);
      }
    });

    test('delayed messages come when they are due, at once to nobody', async () => {
      const bus = await projects.busOf('a', 'b');
      const got = await inbox(bus, 'b', 't', { requireSignatureValidation: true });
      const before = Date.now();
      await bus.sendCrossProjectMessage('a', 'b', 't', 'late', { delayMs: 400 });
      await bus.sendCrossProjectMessage('a', 'b', 't', 'now');
      await arrived(got, 1);
      await until(() => got.length === 2);
      expect(Date.now() - before).toBeGreaterThanOrEqual(395);
      expect(got.map((message) => message.payload.data)).toEqual(['now', 'late']);
    });

    test('messages with a partitionKey are handled in the order of their sending', async () => {
      const bus = await projects.busOf('a', 'b');
      const got = await inbox(bus, 'b', 't', { ordered: true });
      const send = (n: number) => bus.sendCrossProjectMessage('a', 'b', 't', n, { partitionKey: 'k' });
      await Promise.all(Array.from({ length: 30 }, (_, n) => send(n)));
      expect((await arrived(got, 30)).map((message) => message.payload.data)).toEqual(Array.from({ length: 30 }, (_, n) => n));
    });

    test('unsubscribing from a type leaves handlers of projects alone; closing their subscription ends them', async () => {
      const bus = await projects.busOf('a', 'b');
      const got: unknown[] = [];
      const handler = await bus.setupCrossProjectHandler('b', 't', (message) => void got.push(message.payload.data));
      await bus.subscribe('t', () => 1);
      await bus.unsubscribe('t');
      await bus.sendCrossProjectMessage('a', 'b', 't', 1);
      await arrived(got, 1);
      expect(handler.eventType).toBe('t');
      await handler.close();
      await bus.sendCrossProjectMessage('a', 'b', 't', 2);
      const next = await inbox(bus, 'b', 't');
      expect((await arrived(next, 1))[0].payload.data).toBe(2);
      expect(got).toEqual([1]);
    });
  });

  describe('rates', () => {
    const limited = (eventsPerSecond: number, burstLimit: number) => project('a', { rateLimiting: { eventsPerSecond, burstLimit } });
    const outcomes = async (sends: Array<Promise<string>>) =>
      (await Promise.allSettled(sends)).map((result) => (result.status === 'fulfilled' ? 'sent' : result.reason.code));

    test('beyond the burst: ERR_RATE_LIMITED says when to try again, and then it goes', async () => {
      const bus = await projects.busOf(limited(2, 3), 'b', 'c');
      // A message takes one place, however many targets it has.
      for (let n = 0; n < 3; n++) await bus.sendCrossProjectMessage('a', '*', 't', n);
      const error = await refusal('ERR_RATE_LIMITED', () => bus.sendCrossProjectMessage('a', 'b', 't', 3));
      expect(error).toMatchObject({ retryable: true, details: { projectId: 'a', retryAfterMs: expect.any(Number) } });
      const { retryAfterMs } = error.details as { retryAfterMs: number };
      expect(retryAfterMs).toBeGreaterThan(0);
      expect(retryAfterMs).toBeLessThanOrEqual(500);
      await bus.sendCrossProjectMessage('b', 'c', 't', 'another project');
      const refused = Date.now();
      await until(() => bus.sendCrossProjectMessage('a', 'b', 't', 4).catch(() => false));
      expect(Date.now() - refused).toBeLessThan(retryAfterMs + 1500);
    });

    test('two buses share it', async () => {
      const buses = [await projects.busOf(limited(0.01, 10), 'b'), await projects.busOf(limited(0.01, 10))];
      const all = await outcomes(Array.from({ length: 30 }, (_, n) => buses[n % 2].sendCrossProjectMessage('a', 'b', 't', n)));
      expect(all.filter((outcome) => outcome === 'sent').length).toBe(10);
      expect(all.filter((outcome) => outcome === 'ERR_RATE_LIMITED').length).toBe(20);
      expect((await buses[0].getCrossProjectStats('a')).rateLimitHits).toBe(20);
    });

    test('what is refused takes no place, and rateLimitingEnabled false takes none at all', async () => {
      const bus = await projects.busOf({ ...limited(0.01, 2), allowedEventTypes: ['t'] }, 'b');
      for (let n = 0; n < 5; n++) await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('a', 'b', 'no', n));
      const free = await projects.bus({ rateLimitingEnabled: false });
      await free.registerProject({ ...limited(0.01, 2), allowedEventTypes: ['t'] });
      expect(await outcomes(Array.from({ length: 5 }, (_, n) => free.sendCrossProjectMessage('a', 'b', 't', n)))).toEqual(
        Array(5).fill('sent'),
      );
      expect(await outcomes([1, 2, 3].map((n) => bus.sendCrossProjectMessage('a', 'b', 't', n)))).toEqual([
        'sent',
        'sent',
        'ERR_RATE_LIMITED',
      ]);
    });
  });

  describe('errors', () => {
    const failing = (bus: OSSAEventBus, id: string, type: string, message = 'boom') =>
      bus.setupCrossProjectHandler(
        id,
        type,
        () => {
          throw new Error(message);
        },
        { retry: quick(1), group: 'g' },
      );

    test('the source is told by system.error when its message is given up: once, not for each attempt', async () => {
      const [one, other] = [await projects.busOf('a'), await projects.busOf('b')];
      const answers = await inbox(one, 'a', 'system.error');
      await failing(other, 'b', 't');
      const id = await one.sendCrossProjectMessage('a', 'b', 't', 1, { correlationId: 'asked' });
      const plain = await one.sendCrossProjectMessage('a', 'b', 't', 2);
      const [first, second] = (await arrived(answers, 2)).sort((x) => (x.payload.data.messageId === id ? -1 : 1));
      expect(first.payload.data).toMatchObject({
        ...{ error: 'boom', reason: 'max-attempts', eventType: 't', messageId: id, attempts: 2, group: 'g' },
        ...{ sourceProject: 'a', targetProject: 'b' },
      });
      expect(first).toMatchObject({ source: { projectId: 'b' }, target: { projectId: 'a' } });
      expect(first.payload.metadata).toMatchObject({ type: 'system.error', correlationId: 'asked', causationId: id });
      expect(second.payload.metadata.correlationId).toBe(plain);
    });

    test('nobody is told where the source does not read such answers, and of answers no answer is made', async () => {
      const bus = await projects.busOf('a', 'b', 'c');
      await failing(bus, 'b', 't');
      await bus.sendCrossProjectMessage('a', 'b', 't', 'unread');
      await until(async () => (await bus.deadLetters.count()) === 1);
      expect(await bus.getStream('@a/system.error')).toBeNull();
      // Its own handler of answers fails as well: that ends there.
      await failing(bus, 'a', 'system.error', 'in the answer');
      const answersToB = await inbox(bus, 'b', 'system.error', { group: 'answers' });
      await bus.sendCrossProjectMessage('a', 'b', 't', 'read');
      await until(async () => (await bus.deadLetters.count({ eventType: '@a/system.error' })) === 1);
      await failing(bus, 'c', 't');
      await bus.sendCrossProjectMessage('b', 'c', 't', 'answered to b');
      expect((await arrived(answersToB, 1))[0].payload.data.sourceProject).toBe('b');
    });
  });
});

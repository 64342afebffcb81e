/** Messages between projects: what their data has to be like, and where else they go. */
import type { CrossProjectEventContract, CrossProjectMessage, MessageRoute, OSSAEventBus } from '@bluefly/ossa';
import { arrived, contract, inbox, project, SOON, useProjects } from './support/projects';
import { until } from './support/wait';
import { refusal, storesWithCluster } from './support/world';

const user = {
  type: 'object',
  required: ['id', 'email'],
  properties: { id: { type: 'integer' }, email: { type: 'string', format: 'email' }, tags: { type: 'array', items: { type: 'string' } } },
};
const right = { id: 1, email: 'a@example.com' };
const dataOf = (messages: CrossProjectMessage[]) => messages.map((message) => message.payload.data);

describe.each(storesWithCluster)('on %s', (kind) => {
  const projects = useProjects(kind);
  const send = (bus: OSSAEventBus, data: unknown, options = {}) => bus.sendCrossProjectMessage('a', 'b', 'user.created', data, options);

  describe('contracts', () => {
    test('data that breaks the contract is not sent: every failing path is named', async () => {
      const bus = await projects.busOf('a', 'b');
      await bus.registerContract(contract(user));
      const error = await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, { id: 'x', email: 'no address', tags: ['ok', 5] }));
      expect(error).toMatchObject({ retryable: false, details: { contract: 'users', version: '1.0.0' } });
      const paths = error.details?.['paths'] as Array<{ path: string; message: string }>;
      expect(paths.map(({ path }) => path).sort()).toEqual(['/email', '/id', '/tags/1']);
      for (const { message } of paths) expect(message).not.toBe('');
      expect((await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, {}))).message).toMatch(/users/);
      for (const data of [null, undefined, 5, 'x', []]) await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, data));
      const got = await inbox(bus, 'b');
      await send(bus, right);
      // Other types, and other projects, are not bound.
      await bus.sendCrossProjectMessage('a', 'b', 'user.deleted', 5);
      await bus.sendCrossProjectMessage('b', 'b', 'user.created', 6);
      await until(() => got.length === 3);
      const { metadata } = got.find(
        (message) => message.payload.metadata.type === 'user.created' && message.source.projectId === 'a',
      )!.payload;
      expect(metadata.version).toBe('1.0.0');
    });

    test('another bus knows it within a second, its own at once, with times as Dates', async () => {
      const [one, other] = [await projects.busOf('a', 'b', 'c'), await projects.bus()];
      await until(() => attempt(() => other.getAvailableContracts('c')) !== undefined, SOON);
      const given = contract(user, { targetProjects: ['b'], eventTypes: ['user.*', 'user.x.**'] });
      given.metadata.tags = ['x'];
      await one.registerContract(given);
      expect(one.getAvailableContracts('a')).toEqual([given]);
      await until(() => other.getAvailableContracts('b').length === 1, SOON);
      for (const bus of [one, other]) {
        for (const id of ['a', 'b']) expect(bus.getAvailableContracts(id)).toEqual([given]);
        expect(bus.getAvailableContracts('c')).toEqual([]);
        expect(bus.getAvailableContracts('a')[0].metadata.createdAt).toBeInstanceOf(Date);
      }
      // It binds there as well, at once.
      await other.registerProject(project('a'));
      await refusal('ERR_CONTRACT_VIOLATION', () => send(other, {}));
      // What is answered is a copy.
      one.getAvailableContracts('a')[0].eventTypes.push('x');
      expect(one.getAvailableContracts('a')).toEqual([given]);
    });

    test('only the project itself makes contracts in its name', async () => {
      const [, other] = [await projects.busOf('a', 'b'), await projects.bus()];
      const error = await refusal('ERR_NOT_PERMITTED', () => other.registerContract(contract(user)));
      expect(error.message).toContain("'a'");
      expect((await refusal('ERR_PROJECT_UNKNOWN', () => other.getAvailableContracts('nobody'))).message).toContain("'nobody'");
    });

    test('versions stand side by side: a message names the one that it keeps to, and old senders go on', async () => {
      const bus = await projects.busOf('a', 'b');
      const got = await inbox(bus, 'b');
      const two = { type: 'object', required: ['uuid'], properties: { uuid: { type: 'string' } }, additionalProperties: false };
      await bus.registerContract(contract(user));
      await send(bus, right);
      await bus.registerContract(contract(two, { version: '2.0.0' }));
      await send(bus, right);
      await send(bus, { uuid: 'u' });
      await arrived(got, 3);
      const seen = got.map(({ payload, source, contracts }) => [
        Object.keys(payload.data)[0],
        payload.metadata.version,
        source.version,
        contracts,
      ]);
      expect(seen.sort((x, y) => String(y[0]).localeCompare(String(x[0]))).map((row) => row.slice(1))).toEqual([
        ['2.0.0', '2.0.0', ['users@2.0.0']],
        ['1.0.0', '1.0.0', ['users@1.0.0']],
        ['1.0.0', '1.0.0', ['users@1.0.0']],
      ]);
      const error = await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, { neither: 1 }));
      expect(error.details).toMatchObject({ version: '2.0.0', tried: ['2.0.0', '1.0.0'] });
      expect(bus.getAvailableContracts('a').map(({ version }) => version)).toEqual(['1.0.0', '2.0.0']);
    });

    test('contractVersion asks for a version or a range', async () => {
      const bus = await projects.busOf('a', 'b');
      const got = await inbox(bus, 'b');
      for (const version of ['1.0.0', '1.5.0', '2.0.0']) await bus.registerContract(contract({ type: 'object' }, { version }));
      for (const [contractVersion, expected] of [
        [undefined, '2.0.0'],
        ['^1.0.0', '1.5.0'],
        ['=1.0.0', '1.0.0'],
        ['~2', '2.0.0'],
        ['<2', '1.5.0'],
      ]) {
        await send(bus, {}, { contractVersion });
        await until(() => got.length > 0);
        expect(got.pop()?.payload.metadata.version).toBe(expected);
      }
      const error = await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, {}, { contractVersion: '^3' }));
      expect(error.message).toMatch(/2\.0\.0, 1\.5\.0, 1\.0\.0/);
      await refusal('ERR_CONTRACT_VIOLATION', () => bus.sendCrossProjectMessage('a', 'b', 'unbound', 1, { contractVersion: '1' }));
    });

    test('a version never changes; registering the same again is fine', async () => {
      const bus = await projects.busOf('a', 'b');
      await bus.registerContract(contract(user));
      await bus.registerContract(contract(user));
      for (const other of [contract({}), contract(user, { eventTypes: ['x'] }), contract(user, { targetProjects: ['b'] })]) {
        const error = await refusal('ERR_CONTRACT_INVALID', () => bus.registerContract(other));
        expect(error.details).toMatchObject({ path: 'contract.version' });
      }
    });

    test('data is held against the contract when it comes as well: of a sender that did not know it', async () => {
      const bus = await projects.busOf('a', 'b');
      await send(bus, { old: true });
      await send(bus, right);
      await bus.registerContract(contract(user));
      const got = await inbox(bus, 'b');
      expect(dataOf(await arrived(got, 1))).toEqual([right]);
      await until(async () => (await bus.deadLetters.count()) === 1);
      const [letter] = (await bus.deadLetters.list()).items;
      expect(letter).toMatchObject({ reason: 'contract', event: { data: { old: true } } });
      expect(letter.error).toMatch(/users.*1\.0\.0/);
      expect((await bus.getAuditLog({ outcome: 'invalid' })).items.length).toBe(1);
    });

    test.each<[string, string, unknown]>([
      ['draft-04', 'http://json-schema.org/draft-04/schema#', { minimum: 5, exclusiveMinimum: true }],
      ['draft-06', 'http://json-schema.org/draft-06/schema#', { exclusiveMinimum: 5 }],
      ['draft-07', 'http://json-schema.org/draft-07/schema#', { if: true, then: { exclusiveMinimum: 5 } }],
      ['2019-09', 'https://json-schema.org/draft/2019-09/schema', { $defs: { n: { exclusiveMinimum: 5 } }, $ref: '#/$defs/n' }],
      ['2020-12', 'https://json-schema.org/draft/2020-12/schema', { $defs: { n: { exclusiveMinimum: 5 } }, $ref: '#/$defs/n' }],
    ])('a schema of %s means what that draft says', async (_, $schema, keywords) => {
      const bus = await projects.busOf('a', 'b');
      await bus.registerContract(contract({ $schema, ...(keywords as object) }));
      await send(bus, 6);
      await refusal('ERR_CONTRACT_VIOLATION', () => send(bus, 5));
    });
  });

  describe('routes', () => {
    const route = (name: string, match: MessageRoute['match'], targets: string[]): MessageRoute => ({ name, match, targets });
    const all = ['b', 'c', 'd', 'e'];

    /** A bus with projects a to e, and what comes in for b to e. */
    async function start() {
      const bus = await projects.busOf('a', ...all);
      const got: Record<string, CrossProjectMessage[]> = {};
      for (const id of all) got[id] = await inbox(bus, id);
      return { bus, got };
    }

    /** Sends the last message to all and waits for it; answers the data that came before, in order. */
    async function came({ bus, got }: Awaited<ReturnType<typeof start>>) {
      await bus.sendCrossProjectMessage('a', all, 'the.end', 'end');
      await until(() => all.every((id) => dataOf(got[id]).includes('end')));
      return Object.fromEntries(
        all.map((id) => [
          id,
          dataOf(got[id])
            .filter((data) => data !== 'end')
            .sort(),
        ]),
      );
    }

    test('copies go by type, source, tags and data, to targets by name or all', async () => {
      const world = await start();
      const { bus } = world;
      await bus.registerRoute(route('by-type', { eventTypes: ['order.*', 'refund'] }, ['c']));
      await bus.registerRoute(route('by-source', { sourceProject: 'e', eventTypes: ['x'] }, ['d']));
      await bus.registerRoute(route('by-tag', { tags: ['audited', 'other'], eventTypes: ['x'] }, ['d']));
      const large = { type: 'object', properties: { cents: { minimum: 1000 } }, required: ['cents'] };
      await bus.registerRoute(route('by-data', { eventTypes: ['payment'], where: large }, ['*']));
      const to = (source: string, type: string, data: unknown, tags?: string[]) =>
        bus.sendCrossProjectMessage(source, 'b', type, data, tags === undefined ? {} : { tags });
      await to('a', 'order.made', 1);
      await to('a', 'refund', 2);
      await to('a', 'order.made.x', 3);
      await to('a', 'x', 4);
      await to('e', 'x', 5);
      await to('a', 'x', 6, ['new', 'audited']);
      await to('a', 'x', 7, ['new']);
      await to('a', 'payment', { cents: 999 });
      await to('a', 'payment', { cents: 1000 });
      const { b, c, d, e } = await came(world);
      expect(b.filter(Number.isInteger)).toEqual([1, 2, 3, 4, 5, 6, 7]);
      expect(c).toEqual([1, 2, { cents: 1000 }]);
      expect(d).toEqual([5, 6, { cents: 1000 }]);
      expect(e).toEqual([{ cents: 1000 }]);
      const copy = world.got['e'].find((message) => message.route !== undefined);
      expect(copy).toMatchObject({ route: 'by-data', source: { projectId: 'a' }, target: { projectId: 'e' } });
      expect(world.got['b'].filter((message) => message.route !== undefined)).toEqual([]);
    });

    test('each project gets a message once, by however many routes, lists and stars it is reached', async () => {
      const world = await start();
      const { bus } = world;
      await bus.registerRoute(route('one', {}, ['c', 'c', '*']));
      await bus.registerRoute(route('two', { eventTypes: ['t'] }, ['c', 'd', 'b']));
      const ids = [await bus.sendCrossProjectMessage('a', ['b', 'c', 'b'], 't', 1), await bus.sendCrossProjectMessage('a', '*', 't', 2)];
      expect(await came(world)).toEqual({ b: [1, 2], c: [1, 2], d: [1, 2], e: [1, 2] });
      for (const id of all) {
        const nonces = world.got[id].filter((message) => message.payload.metadata.type === 't').map(({ security }) => security.nonce);
        expect(nonces.sort()).toEqual([...ids].sort());
      }
    });

    test('what came by a route is not routed again: routes in a circle end', async () => {
      const world = await start();
      const { bus } = world;
      for (const [name, sourceProject, target] of [
        ['ab', 'a', 'c'],
        ['bc', 'c', 'd'],
        ['ca', 'd', 'c'],
        ['back', 'c', 'a'],
      ]) {
        await bus.registerRoute(route(name, { sourceProject, eventTypes: ['t'] }, [target]));
      }
      const toA = await inbox(bus, 'a');
      await bus.sendCrossProjectMessage('a', 'b', 't', 1);
      expect(await came(world)).toEqual({ b: [1], c: [1], d: [], e: [] });
      expect(toA).toEqual([]);
    });

    test('a route reaches nobody whom the source may not reach: that is recorded as denied, and the message goes', async () => {
      const world = await start();
      const { bus } = world;
      await bus.registerProject(project('a', { allowedTargets: ['b', 'c'] }));
      await bus.registerRoute(route('too-far', { eventTypes: ['t'] }, ['c', 'd', '*']));
      const id = await bus.sendCrossProjectMessage('a', 'b', 't', 1);
      await bus.registerProject(project('a'));
      expect(await came(world)).toEqual({ b: [1], c: [1], d: [], e: [] });
      const { items } = await bus.getAuditLog({ outcome: 'denied' });
      expect(items).toMatchObject([{ sourceProject: 'a', targetProject: 'd', eventType: 't', reason: expect.stringContaining('too-far') }]);
      expect(world.got['b'][0].security.nonce).toBe(id);
    });

    test('a contract of the copy alone keeps the copy back, not the message', async () => {
      const world = await start();
      await world.bus.registerContract(contract({ type: 'string' }, { targetProjects: ['c'], eventTypes: ['t'] }));
      await world.bus.registerRoute(route('copies', { eventTypes: ['t'] }, ['c', 'd']));
      await world.bus.sendCrossProjectMessage('a', 'b', 't', 1);
      expect(await came(world)).toEqual({ b: [1], c: [], d: [1], e: [] });
      expect((await world.bus.getAuditLog({ outcome: 'invalid' })).items).toMatchObject([{ targetProject: 'c' }]);
    });

    test('a route holds on other buses within a second, and one of the same name takes its place', async () => {
      const world = await start();
      const other = await projects.busOf('a');
      await world.bus.registerRoute(route('r', { eventTypes: ['t'] }, ['c']));
      await until(async () => {
        await other.sendCrossProjectMessage('a', 'b', 't', 1);
        return dataOf(world.got['c']).includes(1);
      }, SOON);
      await world.bus.registerRoute(route('r', { eventTypes: ['t'] }, ['d']));
      await world.bus.sendCrossProjectMessage('a', 'b', 't', 2);
      const { c, d } = await came(world);
      expect(c).not.toContain(2);
      expect(d).toContain(2);
    });

    test('projects that a route names have to be there', async () => {
      const { bus } = await start();
      for (const [wrong, argument] of [
        [route('r', {}, ['b', 'nobody']), 'route.targets[1]'],
        [route('r', { sourceProject: 'nobody' }, ['b']), 'route.match.sourceProject'],
      ] as const) {
        const error = await refusal('ERR_PROJECT_UNKNOWN', () => bus.registerRoute(wrong));
        expect(error.details).toMatchObject({ projectId: 'nobody', argument });
      }
    });
  });
});

describe('what is no contract: ERR_CONTRACT_INVALID with the path', () => {
  const projects = useProjects('memory');
  const circle: any = { properties: {} };
  circle.properties.self = circle;
  const nested = (levels: number): object => (levels === 0 ? {} : { properties: { a: nested(levels - 1) } });

  test.each<[string, unknown]>([
    ['/type', { type: 'text' }],
    ['/properties/a/minimum', { properties: { a: { minimum: '5' } } }],
    ['/required', { required: 'a' }],
    ['/$ref', { $ref: 'https://example.com/schema.json' }],
    ['/properties/a/$ref', { properties: { a: { $ref: 'other.json#/x' } } }],
    ['/$ref', { $ref: '#/$defs/nothing' }],
    ['/$ref', { $ref: 'file:///etc/passwd' }],
    ['/pattern', { pattern: '(?=a)b' }],
    ['/pattern', { pattern: '(?<!a)b' }],
    ['/pattern', { pattern: '(a)\\1' }],
    ['/pattern', { pattern: '(' }],
    ['/properties/a/pattern', { properties: { a: { pattern: '(?!x)' } } }],
    ['/patternProperties/(?=x)', { patternProperties: { '(?=x)': true } }],
    ['/$schema', { $schema: 'http://json-schema.org/draft-03/schema#' }],
    ['/$schema', { $schema: 5 }],
    ['', 5],
    ['', null],
    ['', 'x'],
    ['', []],
    ['', () => true],
    ['', new Date()],
    ['', new Map([['type', 'object']])],
    ['/const', { const: new Date(0) }],
    ['/enum/1', { enum: [1, Number.NaN] }],
    ['/properties/a~1b', { properties: { 'a/b': () => true } }],
    ['/properties/self', circle],
    ['', nested(33)],
    ['', nested(5000)],
    ['', { description: 'x'.repeat(2_000_000) }],
  ])('schema%s', async (path, schema) => {
    const bus = await projects.busOf('a', 'b');
    const error = await refusal('ERR_CONTRACT_INVALID', () => bus.registerContract(contract(schema)));
    expect(error.details?.['path']).toBe(`contract.schema${path}`);
    expect(error.message.length).toBeLessThan(2000);
    expect(bus.getAvailableContracts('a')).toEqual([]);
  });

  test('a schema that is as deep as one may be', async () => {
    const bus = await projects.busOf('a', 'b');
    await bus.registerContract(contract(nested(31)));
    const [known] = bus.getAvailableContracts('a') as CrossProjectEventContract[];
    expect(known.schema).toEqual(nested(31));
  });
});

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/** Messages between projects: wrong input is refused by name, and no secret is ever shown. */
import { inspect } from 'node:util';
import type { OSSAEventBus } from '@bluefly/ossa';
import { arrived, contract, inbox, project, useProjects } from './support/projects';
import { connectTo } from './support/server';
import { until } from './support/wait';
import { quick, redisUrl, refusal, stores, storesWithCluster } from './support/world';

const numbers = ['1', null, Number.NaN, Number.POSITIVE_INFINITY, {}, [], true, 1n, () => 1, Symbol('s')];
const texts = [5, true, null, {}, [], () => 1, new Date(0), ''];
const ids = [...texts, 'a b', 'a/b', 'a:b', '@a', 'ü', '\ud800', 'x'.repeat(65), 'x'.repeat(1_000_000)];
const huge = 'x'.repeat(1_000_000);
const circle: any = {};
circle.self = circle;
const throwing = { get a() { throw new Error('inner'); } }; // biome-ignore format: one line

function shown(value: unknown): string {
  const text = inspect(value, { breakLength: Number.POSITIVE_INFINITY });
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

const named = (values: Record<string, unknown[]>): Array<[string, string, unknown]> =>
  Object.entries(values).flatMap(([key, wrong]) => wrong.map((value): [string, string, unknown] => [key, shown(value), value]));

/** `base` with `value` at `path`. */
function withValue(base: any, path: string, value: unknown): any {
  const [key, ...rest] = path.split('.');
  return { ...base, [key]: rest.length === 0 ? value : withValue(base[key], rest.join('.'), value) };
}

describe('wrong input', () => {
  const projects = useProjects('memory');
  let bus: OSSAEventBus;
  beforeEach(async () => {
    bus = await projects.busOf(project('a', { credentials: undefined as any }), project('b', { credentials: undefined as any }));
  });

  const whole = [undefined, null, 5, 'x', true, [], () => 1, new Date(), new Map(), 1n, Symbol('s')];

  const wrongProjects: Record<string, unknown[]> = {
    projectId: [...ids, undefined],
    name: [...texts, undefined, 'x'.repeat(257), huge],
    namespace: [...texts, undefined, huge],
    allowedEventTypes: [
      '**',
      null,
      5,
      {},
      undefined,
      new Set(['x']),
      [5],
      ['a b'],
      ['a*'],
      ['@b/x'],
      [undefined],
      [null],
      [huge],
      Array(1001).fill('x'),
    ],
    allowedTargets: ['*', null, 5, {}, undefined, [5], ['a/b'], ['b*'], [null], [''], Array(1001).fill('x')],
    credentials: ['secret', 5, null, [], () => 1, {}, circle],
    'credentials.apiKey': [...texts, undefined, huge],
    'credentials.secret': [...texts, undefined, 'fifteen bytes..', huge],
    'credentials.previousSecret': [...texts, 'fifteen bytes..', huge],
    rateLimiting: [5, null, [], 'x', {}],
    'rateLimiting.eventsPerSecond': [0, -1, 1e7, undefined, ...numbers],
    'rateLimiting.burstLimit': [0, -1, 1.5, 1e7, undefined, ...numbers],
    unknown: [1, 'x', {}],
    __proto__x: [1],
    'rateLimiting.burst': [5],
  };
  const config = project('c', { rateLimiting: { eventsPerSecond: 1, burstLimit: 1 } });

  test.each(named(wrongProjects))('registerProject, %s: %s', async (path, _, value) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.registerProject(withValue(config, path, value)));
    expect(error.details?.['argument']).toMatch(new RegExp(`^config\\.${path.replaceAll('.', '\\.')}`));
    expect(error.message.startsWith(error.details?.['argument'])).toBe(true);
    expect(error.message.length).toBeLessThan(500);
    await refusal('ERR_PROJECT_UNKNOWN', () => bus.getAvailableContracts('c'));
  });

  test.each([...whole, circle])('registerProject(%p)', async (value) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.registerProject(value as any));
    expect(error.details?.['argument']).toMatch(/^config/);
  });

  test('credentials with an unknown key are refused without showing it', async () => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () =>
      bus.registerProject(withValue(config, 'credentials', { apiKey: 'k', secret: 'long enough for it', 'a secret as a key': 1 })),
    );
    expect(error.details).toMatchObject({ argument: 'config.credentials' });
    expect(inspect(error)).not.toContain('a secret as a key');
  });

  const wrongContracts: Record<string, unknown[]> = {
    name: [...texts, undefined, 'a b', 'a@b', 'x'.repeat(129), huge],
    version: [...texts, undefined, '1', '1.0', 'v1.0.0', '^1.0.0', '01.0.0', `1.0.0-${huge}`],
    sourceProject: [...ids, undefined, '*'],
    targetProjects: ['b', null, 5, undefined, [], [5], ['a/b'], ['b', ''], [undefined]],
    eventTypes: ['x', null, undefined, [], [5], ['a b'], ['@b/x'], [huge]],
    metadata: [5, 'x', null, [], new Date(), new Map()],
    'metadata.description': [5, null, new Date(), huge],
    'metadata.author': [5, null, []],
    'metadata.createdAt': ['today', -1, null, new Date(Number.NaN), new Date(-1), Number.NaN, {}],
    'metadata.updatedAt': ['2026-01-01', new Date(Number.NaN), true],
    'metadata.tags': ['x', [5], [new Date()], null, {}],
    'metadata.other': [1],
    other: [1, new Date()],
  };

  test.each(named(wrongContracts))('registerContract, %s: %s', async (path, _, value) => {
    const error = await refusal('ERR_CONTRACT_INVALID', () => bus.registerContract(withValue(contract({}), path, value)));
    expect(error.details?.['path']).toMatch(new RegExp(`^contract\\.${path.replaceAll('.', '\\.')}`));
    expect(error.message.length).toBeLessThan(500);
    expect(bus.getAvailableContracts('a')).toEqual([]);
  });

  test.each([...whole, circle])('registerContract(%p)', async (value) => {
    const error = await refusal('ERR_CONTRACT_INVALID', () => bus.registerContract(value as any));
    expect(error.details?.['path']).toMatch(/^contract/);
  });

  const wrongRoutes: Record<string, unknown[]> = {
    name: [...texts, undefined, 'a b', huge],
    match: [5, 'x', null, undefined, [], () => 1, new Date()],
    targets: ['b', null, undefined, [], [5], ['a/b'], [null], {}],
    'match.sourceProject': [5, '', 'a b', '*', null, {}],
    'match.eventTypes': ['x', [], [5], ['a b'], ['@b/x'], null],
    'match.tags': ['x', [], [5], [''], [new Date()], null],
    'match.where': [5, 'x', null, [], () => 1, new Date(), { type: 'text' }, { pattern: '(?=a)' }, { $ref: 'http://x/y' }, { const: 1n }],
    'match.target': ['b'],
    priority: [1],
  };

  test.each(named(wrongRoutes))('registerRoute, %s: %s', async (path, _, value) => {
    const route = { name: 'r', match: { eventTypes: ['t'] }, targets: ['b'] };
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.registerRoute(withValue(route, path, value)));
    expect(error.details?.['argument']).toMatch(new RegExp(`^route\\.${path.replaceAll('.', '\\.')}`));
  });

  test.each([...whole, circle])('registerRoute(%p)', async (value) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.registerRoute(value as any));
    expect(error.details?.['argument']).toMatch(/^route/);
  });

  const wrongSends: Record<string, unknown[]> = {
    source: [5, null, undefined, {}, [], () => 1, new Date(), Symbol('s')],
    target: [5, null, undefined, {}, [], [5], [null], ['b', undefined], () => 1, new Date(), new Set(['b']), Array(1001).fill('b')],
    eventType: [5, null, undefined, '', 'a b', '*', 'a.**', '@b/x', 'x'.repeat(257), huge, {}],
    options: [5, 'x', [], () => 1, new Date(), new Map(), true],
    'options.ttl': [-1, ...numbers],
    'options.priority': ['urgent', 5, null],
    'options.delayMs': [-1, ...numbers],
    'options.correlationId': [5, '', null, {}],
    'options.causationId': [5, ''],
    'options.partitionKey': [5, null],
    'options.idempotencyKey': [5, '', huge],
    'options.tags': ['x', [5], null],
    'options.headers': ['x', { a: 5 }, new Map()],
    'options.contractVersion': [5, 'one', '', null, '1.x.y.z'],
    ...Object.fromEntries(
      ['deliverAt', 'signal', 'transient', 'waitForAck', 'retry', 'source', 'target', 'version'].map((key) => [`options.${key}`, [1]]),
    ),
  };

  test.each(named(wrongSends))('sendCrossProjectMessage, %s: %s', async (path, _, value) => {
    const call = withValue({ source: 'a', target: 'b', eventType: 't', options: {} }, path, value);
    const error = await refusal('ERR_INVALID_ARGUMENT', () =>
      bus.sendCrossProjectMessage(call.source, call.target, call.eventType, 1, call.options),
    );
    expect(error.details?.['argument']).toMatch(new RegExp(`^${path.replaceAll('.', '\\.')}`));
    expect(await bus.getStream('@b/t')).toBeNull();
  });

  test.each<[string, unknown, string]>([
    ['a circle', circle, 'ERR_NOT_SERIALIZABLE'],
    ['a BigInt', { a: 1n }, 'ERR_NOT_SERIALIZABLE'],
    ['a function', () => 1, 'ERR_NOT_SERIALIZABLE'],
    ['65 levels', JSON.parse('['.repeat(65) + ']'.repeat(65)), 'ERR_PAYLOAD_TOO_LARGE'],
    ['100,000 levels', JSON.parse('['.repeat(100_000) + ']'.repeat(100_000)), 'ERR_'],
    ['more than maxPayloadBytes', 'ü'.repeat(600_000), 'ERR_PAYLOAD_TOO_LARGE'],
  ])('data with %s', async (_, data, code) => {
    const failure = await bus.sendCrossProjectMessage('a', 'b', 't', data).then(String, (error) => error);
    expect(failure).toMatchObject({ name: 'OSSAError', code: expect.stringMatching(`^${code}`) });
    expect(failure.code).not.toBe('ERR_INTERNAL');
    expect(await bus.getStream('@b/t')).toBeNull();
  });

  test('unknown projects of any length are named in few words', async () => {
    for (const [source, target] of [
      [huge, 'b'],
      ['a', huge],
      ['a', ''],
    ]) {
      // biome-ignore format: pairs
      const error = await refusal('ERR_PROJECT_UNKNOWN', () => bus.sendCrossProjectMessage(source, target, 't', 1));
      expect(inspect(error).length).toBeLessThan(5000);
    }
  });

  const wrongHandlers: Record<string, unknown[]> = {
    projectId: ids.filter((id) => id !== huge),
    eventType: [5, null, undefined, '', 'a b', 'a*', '@b/x', 'x'.repeat(255), {}],
    handler: [5, null, undefined, 'x', {}],
    options: [5, 'x', [], () => 1],
    'options.requireSignatureValidation': ['yes', 1, null, {}],
    'options.group': [5, ''],
    'options.unknown': [1],
  };

  test.each(named(wrongHandlers))('setupCrossProjectHandler, %s: %s', async (path, _, value) => {
    const call = withValue({ projectId: 'b', eventType: 't', handler: () => 1, options: {} }, path, value);
    const error = await refusal('ERR_INVALID_ARGUMENT', () =>
      bus.setupCrossProjectHandler(call.projectId, call.eventType, call.handler, call.options),
    );
    expect(error.details?.['argument']).toMatch(new RegExp(`^${path.replaceAll('.', '\\.')}`));
    expect((await bus.getStatus()).eventBus.subscriptions).toBe(0);
  });

  test('requireSignatureValidation is none of the options of subscribe', async () => {
    await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, { requireSignatureValidation: true } as any));
  });

  test.each(named({ projectId: [...ids, undefined] }))('methods that take a %s: %s', async (_, __, value) => {
    const id = value as string;
    const calls: Array<() => unknown> = [
      () => bus.unregisterProject(id),
      () => bus.validateProjectSetup(id),
      () => bus.getAvailableContracts(id),
    ];
    if (value !== undefined && value !== null) calls.push(() => bus.getCrossProjectStats(id));
    for (const call of calls) expect((await refusal('ERR_INVALID_ARGUMENT', call)).details).toMatchObject({ argument: 'projectId' });
  });

  const wrongQueries: Record<string, unknown[]> = {
    projectId: [5, null, {}, [], new Date()],
    from: ['today', 5, null, new Date(Number.NaN), {}],
    to: ['today', 5, new Date(Number.NaN)],
    outcome: ['lost', 5, null, ''],
    limit: [0, -1, 1.5, 1001, ...numbers],
    cursor: ['', 'x', '1-1', '1.1', '1-1.x', 5, null, huge],
    since: [new Date()],
  };

  test.each(named(wrongQueries))('getAuditLog, %s: %s', async (key, _, value) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.getAuditLog({ [key]: value }));
    expect(error.details).toMatchObject({ argument: `query.${key}` });
  });

  test.each([5, 'x', [], () => 1, true, new Date(), new Map()])('getAuditLog(%p), exportAuditLog(%p)', async (value) => {
    for (const call of [() => bus.getAuditLog(value as any), () => bus.exportAuditLog(value as any).next()]) {
      expect((await refusal('ERR_INVALID_ARGUMENT', call)).details).toMatchObject({ argument: 'query' });
    }
  });

  test('what cannot be read is refused as well', async () => {
    const calls: Array<[string, () => unknown]> = [
      ['config', () => bus.registerProject(throwing as any)],
      ['contract', () => bus.registerContract(throwing as any)],
      ['contract.metadata', () => bus.registerContract({ ...contract({}), metadata: throwing } as any)],
      ['contract.schema', () => bus.registerContract(contract(throwing))],
      ['route', () => bus.registerRoute(throwing as any)],
      ['route.match', () => bus.registerRoute({ name: 'r', match: throwing as any, targets: ['b'] })],
      ['target', () => bus.sendCrossProjectMessage('a', [throwing] as any, 't', 1)],
      ['options', () => bus.sendCrossProjectMessage('a', 'b', 't', 1, throwing as any)],
      ['query', () => bus.getAuditLog(throwing as any)],
    ];
    for (const [where, call] of calls) {
      const { details } = await refusal(where.startsWith('contract') ? 'ERR_CONTRACT_INVALID' : 'ERR_INVALID_ARGUMENT', call);
      expect(details?.['argument'] ?? details?.['path']).toMatch(new RegExp(`^${where.replace('.', '\\.')}`));
    }
  });

  test.each(['limit', 'cursor'])('exportAuditLog has no %s', async (key) => {
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.exportAuditLog({ [key]: 1 } as any).next());
    expect(error.details).toMatchObject({ argument: `query.${key}` });
  });

  test.each<[string, unknown]>([
    ['securityEnabled', 'yes'],
    ['rateLimitingEnabled', 1],
    ['trustedKeys', 'key'],
    ['trustedKeys.a', 'no key but a secret'],
    ['trustedKeys.a', 5],
    ['unknown', 1],
  ])('the configuration crossProject.%s: %p', async (path, value) => {
    const crossProject = path.split('.').reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
    const error = await refusal('ERR_INVALID_CONFIG', () => projects.make(crossProject as any));
    expect(error.details).toMatchObject({ path: `crossProject.${path}` });
    expect(inspect(error)).not.toContain('no key but a secret');
  });
});

describe.each(stores)('crossProject.enabled false, on %s', (kind) => {
  const projects = useProjects(kind);

  test('each method says ERR_DISABLED, and the bus works', async () => {
    const bus = await projects.bus({ enabled: false });
    const calls = [
      () => bus.registerProject(project('a')),
      () => bus.unregisterProject('a'),
      () => bus.registerContract(contract({})),
      () => bus.registerRoute({ name: 'r', match: {}, targets: ['*'] }),
      () => bus.sendCrossProjectMessage('a', 'b', 't', 1),
      () => bus.setupCrossProjectHandler('b', 't', () => 1),
      () => bus.getAvailableContracts('a'),
      () => bus.validateProjectSetup('a'),
      () => bus.getCrossProjectStats(),
      () => bus.getAuditLog(),
      () => bus.exportAuditLog().next(),
      () => bus.verifyAuditLog(),
    ];
    for (const call of calls) expect((await refusal('ERR_DISABLED', call)).message).toMatch(/crossProject\.enabled/);
    expect(bus.getCrossProjectCommunication()).toBeUndefined();
    expect(await bus.getStatus()).not.toHaveProperty('crossProject');
    await bus.publish('t', 1);
  });
});

describe.each(storesWithCluster)('secrets, on %s', (kind) => {
  const projects = useProjects(kind);
  const redis = connectTo(redisUrl());
  afterAll(() => redis.disconnect());
  const SECRETS = {
    apiKey: 'api-key-that-nobody-may-see',
    secret: 'the-secret-that-nobody-may-see',
    previousSecret: 'the-one-before-nobody-may-see',
  };

  test('no error, log line, event, answer or key in Redis holds a secret or an apiKey', async () => {
    const seen: unknown[] = [];
    const bus = await projects.bus({}, { monitoring: { tracing: { enabled: true, samplingRate: 1 } } });
    const told = [
      'event:published',
      'event:consumed',
      'event:failed',
      'event:retried',
      'event:dead-lettered',
      'subscription:created',
      'error',
    ];
    for (const name of told) bus.on(name, (event: unknown) => void seen.push(event));
    const attempt = (action: () => unknown) =>
      Promise.resolve()
        .then(action)
        .then(
          (value) => seen.push(value),
          (error) => seen.push(error, error?.stack, error?.cause),
        );
    const { previousSecret, ...credentials } = SECRETS;
    await attempt(() => bus.registerProject(project('a', { credentials: { ...credentials, secret: previousSecret } })));
    await attempt(() => bus.registerProject(project('a', { credentials })));
    await attempt(() => bus.registerProject(project('a', { credentials: SECRETS })));
    await attempt(() => bus.registerProject(project('b')));
    const wrong = [
      ...Object.keys(SECRETS).map((key) => ({ credentials: { ...SECRETS, [key]: [SECRETS.secret] } })),
      { credentials: SECRETS.secret },
      { credentials: { ...SECRETS, [SECRETS.secret]: SECRETS.apiKey } },
      { credentials: { ...SECRETS, secret: { get it() { throw new Error('unreadable'); }, secret: SECRETS.secret } } }, // biome-ignore format: one line
      { name: [SECRETS.secret] },
      { rateLimiting: SECRETS.secret },
      { secret: SECRETS.secret, apiKey: SECRETS.apiKey },
      { credentials: { ...SECRETS, previousSecret: 'short' } },
    ];
    for (const over of wrong) await attempt(() => bus.registerProject(project('a', over as any)));
    const got = await inbox(bus, 'b', 'good');
    await bus.setupCrossProjectHandler('b', 'bad', () => Promise.reject(new Error('boom')), { retry: quick(1) });
    await attempt(() => bus.registerContract(contract({})));
    await attempt(() => bus.sendCrossProjectMessage('a', 'b', 'good', 1));
    await attempt(() => bus.sendCrossProjectMessage('a', 'b', 'bad', 1));
    seen.push(await arrived(got, 1));
    await until(async () => (await bus.deadLetters.count()) === 1);
    for (const ask of [
      () => bus.getAuditLog(),
      () => bus.getCrossProjectStats(),
      () => bus.validateProjectSetup('a'),
      () => bus.getStatus(),
    ]) {
      await attempt(ask);
    }
    await attempt(() => bus.deadLetters.list());
    await attempt(() => bus.unregisterProject('a'));
    await attempt(() => bus.getAvailableContracts('b'));
    seen.push(bus.exportMetrics(), bus, bus.getCrossProjectCommunication(), projects.world.logs);
    expect(projects.world.logs.length).toBeGreaterThan(0);
    const text = inspect(seen, { depth: null, showHidden: true, maxArrayLength: null, maxStringLength: null }) + JSON.stringify(bus);
    for (const [name, secret] of Object.entries(SECRETS)) expect([name, text.includes(secret)]).toEqual([name, false]);
    if (kind !== 'redis') return;
    const keys = await redis.keys(`${projects.world.prefix}*`);
    expect(keys.length).toBeGreaterThan(5);
    for (const key of keys) {
      const dump = ((await redis.dumpBuffer(key)) as Buffer | null)?.toString('latin1') ?? '';
      for (const secret of Object.values(SECRETS)) expect(key + dump).not.toContain(secret);
    }
  });
});

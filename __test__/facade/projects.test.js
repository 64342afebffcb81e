'use strict';
const { createOSSAEventBus, fake, turns, until, OSSAError } = require('./bus');
const { toMessage } = require('../../dist/projects');

const RETRY = { maxAttempts: 3, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000, jitter: 'equal' };

let bus;
let native;
beforeEach(async () => {
  bus = await createOSSAEventBus();
  native = fake.buses.at(-1);
  native.calls.length = 0;
});
afterEach(() => bus.shutdown());

const contract = (metadata = {}) => ({
  name: 'c',
  version: '1.0.0',
  sourceProject: 'a',
  targetProjects: ['b'],
  eventTypes: ['t'],
  schema: { type: 'object' },
  metadata: { description: 'd', author: 'x', createdAt: new Date(5), updatedAt: new Date(7), ...metadata },
});

describe('sending', () => {
  test('a message crosses as a publish whose options say from whom and to whom', async () => {
    expect(await bus.sendCrossProjectMessage('a', ['b', 'c'], 't', { at: new Date(0) }, { ttl: 5, correlationId: undefined })).toBe('id-0');
    expect(await bus.sendCrossProjectMessage('a', '*', 't', undefined)).toBe('id-1');
    expect(native.records.map(([type, options, data]) => [type, options[0], JSON.parse(options.slice(1)), data])).toEqual([
      ['t', '@', { source: 'a', target: ['b', 'c'], options: { ttl: 5 } }, '{"at":"1970-01-01T00:00:00.000Z"}'],
      ['t', '@', { source: 'a', target: '*' }, 'null'],
    ]);
  });

  test('tabs and line ends in it do not end its record', async () => {
    await bus.sendCrossProjectMessage('a\t', ['b\n', '\r'], 't', '\n\t', { correlationId: 'x\ny' });
    expect(native.records).toHaveLength(1);
    expect(JSON.parse(native.records[0][1].slice(1))).toEqual({ source: 'a\t', target: ['b\n', '\r'], options: { correlationId: 'x\ny' } });
  });

  test('messages cross in the order of their calls, among other events', async () => {
    await Promise.all([bus.publish('p', 1), bus.sendCrossProjectMessage('a', 'b', 't', 2), bus.publish('p', 3)]);
    expect(native.published).toHaveLength(1);
    expect(native.records.map((record) => record[2])).toEqual(['1', '2', '3']);
  });

  test.each([
    ['source', [5, 'b', 't', 1]],
    ['target', ['a', undefined, 't', 1]],
    ['target', ['a', 5, 't', 1]],
    ['target', ['a', { b: 1 }, 't', 1]],
    ['eventType', ['a', 'b', 5, 1]],
    ['options', ['a', 'b', 't', 1, 'x']],
    ['options', ['a', 'b', 't', 1, []]],
    ['options', ['a', 'b', 't', 1, new Date()]],
  ])('a wrong %s does not cross: %p', async (argument, args) => {
    await expect(bus.sendCrossProjectMessage(...args)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
    expect(native.published).toHaveLength(0);
  });

  test('what is refused by the engine is an OSSAError with its details', async () => {
    native.auto = false;
    const sent = bus.sendCrossProjectMessage('a', 'b', 't', 1).catch((error) => error);
    await turns();
    const details = { projectId: 'a', retryAfterMs: 7 };
    native.onPublished(new Uint32Array(), [], JSON.stringify([[0, { code: 'ERR_RATE_LIMITED', message: 'm', retryable: true, details }]]));
    expect(await sent).toBeInstanceOf(OSSAError);
    expect(await sent).toMatchObject({ code: 'ERR_RATE_LIMITED', retryable: true, details });
  });
});

describe('what a handler is given', () => {
  const meta = (over) =>
    JSON.stringify({ v: 1, id: 'i', timestamp: 9, source: 'a', target: 'b', version: '1.2.0', priority: 'low', ...over });

  test('all of a signed message', () => {
    const message = { from: 'na', to: 'nb', contracts: ['c@1.2.0'], route: 'r', keyId: 'k' };
    expect(toMessage(meta({ dttl: 60, sig: 'sss', message, tags: ['x'] }), '{"n":1}', '@b/t/x.y', 2, RETRY)).toEqual({
      source: { projectId: 'a', namespace: 'na', version: '1.2.0' },
      target: { projectId: 'b', namespace: 'nb' },
      payload: {
        metadata: {
          ...{ id: 'i', type: 't/x.y', source: 'a', target: 'b', timestamp: new Date(9), version: '1.2.0' },
          ...{ priority: 'low', ttl: 60, tags: ['x'], attempt: 2 },
        },
        data: { n: 1 },
      },
      security: { signature: 'sss', timestamp: 9, nonce: 'i', keyId: 'k' },
      contracts: ['c@1.2.0'],
      route: 'r',
    });
  });

  test('of an unsigned one only what it has', () => {
    const message = toMessage(meta({ message: { from: 'na', to: 'nb' } }), 'null', '@b/t', 1, RETRY);
    expect(message.security).toEqual({ signature: '', timestamp: 9, nonce: 'i' });
    expect(message).not.toHaveProperty('contracts');
    expect(message).not.toHaveProperty('route');
    expect(toMessage(meta({ target: undefined }), '1', '@b/t', 1, RETRY)).toMatchObject({
      source: { namespace: '' },
      target: { projectId: '', namespace: '' },
    });
  });

  test('messages reach the handler of their subscription; data that is not JSON reaches none', async () => {
    const got = [];
    await bus.setupCrossProjectHandler('b', 't', (message, context) => void got.push([message, context.group]), { group: 'g' });
    const [[, args]] = native.calls.filter(([method]) => method === 'subscribe');
    expect(args).toEqual({ id: 1, eventType: 't', project: 'b', options: { group: 'g' }, iterator: false });
    const about = { source: 'a', target: 'b', message: { from: 'na', to: 'nb' } };
    const tokens = native.deliver(1, { type: '@b/t', data: 5, meta: about }, { type: '@b/t', text: '{broken', meta: about });
    await until(() => native.outcome.done.length === 1 && native.outcome.failed.length === 1);
    expect(got).toMatchObject([[{ payload: { data: 5, metadata: { type: 't' } }, target: { projectId: 'b' } }, 'default']]);
    expect(native.outcome.done).toEqual([tokens[0]]);
    expect(native.outcome.failed[0].slice(0, 2)).toEqual([tokens[1], 'malformed']);
  });

  test('a handler is a function, a project a text', async () => {
    for (const [args, argument] of [
      [['b', 't'], 'handler'],
      [['b', 't', null], 'handler'],
      [[5, 't', () => 1], 'projectId'],
      [['b', 5, () => 1], 'eventType'],
    ]) {
      await expect(bus.setupCrossProjectHandler(...args)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
    }
    expect(native.calls).toEqual([]);
  });

  test('unsubscribe() closes what subscribe() made, not handlers of projects of the same type', async () => {
    await bus.setupCrossProjectHandler('b', 't', () => 1);
    await bus.subscribe('t', () => 1);
    await bus.unsubscribe('t');
    expect(native.calls.filter(([method]) => method === 'unsubscribe')).toEqual([['unsubscribe', { id: 2 }]]);
  });
});

describe('times', () => {
  test('of contracts cross as ms and come back as Dates', async () => {
    native.answers['projects.registerContract'] = {};
    const given = contract();
    await bus.registerContract(given);
    const crossed = { ...contract(), metadata: { description: 'd', author: 'x', createdAt: 5, updatedAt: 7 } };
    expect(native.calls).toEqual([['projects.registerContract', crossed]]);
    expect(given).toEqual(contract());
    native.answers.contracts = [crossed];
    expect(bus.getAvailableContracts('a')).toEqual([contract()]);
  });

  test('of statistics and records are Dates, those of queries ms', async () => {
    native.answers['projects.stats'] = {
      totalProjects: 1,
      projectStats: [{ projectId: 'a', messagesSent: 1, messagesReceived: 0, lastActivity: 5 }],
    };
    expect((await bus.getCrossProjectStats('a')).projectStats[0].lastActivity).toEqual(new Date(5));
    await bus.getCrossProjectStats();
    native.answers['projects.audit'] = { items: [{ id: 'c:1', at: 9, outcome: 'sent' }], cursor: 'next' };
    const query = { from: new Date(1), to: new Date(2), projectId: 'a', outcome: 'sent', limit: 3, cursor: undefined };
    expect(await bus.getAuditLog(query)).toEqual({ items: [{ id: 'c:1', at: new Date(9), outcome: 'sent' }], cursor: 'next' });
    expect(native.calls).toEqual([
      ['projects.stats', { projectId: 'a' }],
      ['projects.stats', {}],
      ['projects.audit', { from: 1, to: 2, projectId: 'a', outcome: 'sent', limit: 3 }],
    ]);
  });

  test('an export asks page by page until there are no more, empty pages too', async () => {
    const pages = [{ items: [{ id: '1', at: 1 }], cursor: 'x' }, { items: [], cursor: 'y' }, { items: [{ id: '2', at: 2 }] }];
    native.answers['projects.audit'] = () => pages.shift();
    const lines = [];
    for await (const line of bus.exportAuditLog({ outcome: 'sent' })) lines.push(line);
    expect(lines).toEqual(['{"id":"1","at":"1970-01-01T00:00:00.001Z"}\n', '{"id":"2","at":"1970-01-01T00:00:00.002Z"}\n']);
    const limit = 500;
    expect(native.calls.map(([, query]) => query)).toEqual([
      { outcome: 'sent', limit },
      { outcome: 'sent', limit, cursor: 'x' },
      { outcome: 'sent', limit, cursor: 'y' },
    ]);
  });
});

describe('what does not cross', () => {
  const circle = {};
  circle.properties = { self: circle };

  test.each([
    ['contract.schema', () => ({ ...contract(), schema: () => 1 })],
    ['contract.schema/properties/self', () => ({ ...contract(), schema: circle })],
    ['contract.schema/a~1b/0', () => ({ ...contract(), schema: { 'a/b': [NaN] } })],
    ['contract.metadata.createdAt', () => contract({ createdAt: new Date(NaN) })],
  ])('a contract that is wrong at %s', async (path, make) => {
    await expect(bus.registerContract(make())).rejects.toMatchObject({ code: 'ERR_CONTRACT_INVALID', details: { path } });
    expect(native.calls).toEqual([]);
  });

  test('a route by data that has no JSON form', async () => {
    const route = { name: 'r', match: { where: { const: 1n } }, targets: ['b'] };
    const argument = 'route.match.where/const';
    await expect(bus.registerRoute(route)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', details: { argument } });
    expect(native.calls).toEqual([]);
  });

  test.each(['registerProject', 'registerContract', 'registerRoute'])(
    '%s without an argument is for the engine to refuse',
    async (method) => {
      await expect(bus[method]()).rejects.toMatchObject({ code: 'ERR_DISABLED' });
      expect(native.calls).toEqual([[`projects.${method.replace('registerProject', 'register')}`, null]]);
    },
  );
});

test('metrics are the text of the engine, its refusal an error', () => {
  expect(() => bus.exportMetrics()).toThrow(expect.objectContaining({ code: 'ERR_DISABLED' }));
  native.answers.prometheus = '# TYPE x counter\nx 1\n';
  expect(bus.exportMetrics()).toBe('# TYPE x counter\nx 1\n');
});

test('crossProject.enabled false: no view, and no statistics in the status', async () => {
  const without = await createOSSAEventBus(null, { crossProject: { enabled: false } });
  const engine = fake.buses.at(-1);
  engine.answers.status = { status: 'healthy', redis: { connected: true }, lastHealthCheck: 5 };
  expect(without.getCrossProjectCommunication()).toBeUndefined();
  expect(await without.getStatus()).not.toHaveProperty('crossProject');
  expect(engine.calls.map(([method]) => method)).toEqual(['connect', 'status', 'orchestration.stats', 'monitoring.stats']);
  await without.shutdown();
});

test('statistics that cannot be had are left out of the status', async () => {
  native.answers.status = { status: 'healthy', redis: { connected: true }, lastHealthCheck: 5 };
  delete native.answers['projects.stats'];
  expect(await bus.getStatus()).not.toHaveProperty('crossProject');
  native.answers['projects.stats'] = { totalProjects: 2, projectStats: [] };
  expect((await bus.getStatus()).crossProject).toEqual({ totalProjects: 2, projectStats: [] });
});

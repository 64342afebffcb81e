/** The handler over a bus that a test plays: what each address asks, and what is answered when the bus fails. */
'use strict';
const { createServer, request } = require('node:http');
const { makeHandler } = require('../../dist/http/handler');
const { OSSAError } = require('../../dist');

const open = [];
afterEach(async () => {
  for (const server of open.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** Serves a bus of these methods. */
async function serve(bus, { source = {}, bodyTimeoutMs, token } = {}) {
  const failures = [];
  const warnings = [];
  const shown = {
    bus,
    registry: undefined,
    windows: () => [60],
    isOpen: () => true,
    warn: (text) => warnings.push(text),
    failed: (what, error) => failures.push([what, error]),
    ...source,
  };
  const options = token === undefined ? { basePath: '' } : { basePath: '', token };
  const server = createServer(makeHandler(shown, options, bodyTimeoutMs));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(server);
  const { port } = server.address();
  const ask = (path, { method = 'GET', headers = {}, send = (asked) => asked.end() } = {}) =>
    new Promise((resolve, reject) => {
      const asked = request({ port, host: '127.0.0.1', path, method, headers, agent: false }, async (response) => {
        let text = '';
        for await (const chunk of response) text += chunk;
        resolve({
          status: response.statusCode,
          headers: response.headers,
          text,
          body: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text,
        });
      });
      asked.on('error', reject);
      send(asked);
    });
  return { ask, failures, warnings };
}

const time = new Date('2026-01-02T03:04:05.678Z');

test('each address answers with what its method says, times as ISO 8601', async () => {
  const answers = {
    getDashboardData: { overview: { status: 'healthy' }, realtime: { latency: [1, Number.NaN], timestamp: [time] } },
    getAnalytics: { windowSeconds: 60, from: time },
    getActiveAlerts: [{ id: 'a', timestamp: time }],
    getGroups: [{ eventType: 't', group: 'g', pending: 1, lag: null, consumers: [] }],
    exportMetrics: 'ossa_up 1\n',
    healthCheck: { status: 'degraded', timestamp: time, components: {} },
    getAgents: [{ id: 'agent' }],
    getPools: [{ id: 'pool' }],
    getOrchestrationStats: { totalAgents: 1 },
    getTask: { id: 'a/b' },
  };
  const asked = [];
  const bus = Object.fromEntries(
    Object.entries(answers).map(([name, answer]) => [
      name,
      (...args) => {
        asked.push([name, ...args]);
        return name.startsWith('getA') || name === 'getPools' || name === 'exportMetrics' ? answer : Promise.resolve(answer);
      },
    ]),
  );
  const { ask } = await serve(bus);
  const wire = (value) => JSON.parse(JSON.stringify(value));
  expect((await ask('/api/dashboard')).body).toEqual({
    overview: { status: 'healthy' },
    realtime: { latency: [1, null], timestamp: [time.toISOString()] },
  });
  expect((await ask('/api/analytics?window=300')).body).toEqual({ ...wire(answers.getAnalytics), windows: [60] });
  expect((await ask('/api/analytics')).status).toBe(200);
  expect((await ask('/api/alerts')).body).toEqual(wire(answers.getActiveAlerts));
  expect((await ask('/api/groups')).body).toEqual(answers.getGroups);
  expect((await ask('/metrics')).text).toBe('ossa_up 1\n');
  expect((await ask('/api/health')).body).toEqual(wire(answers.healthCheck));
  expect((await ask('/readyz')).status).toBe(200);
  expect((await ask('/api/agents')).body).toEqual(answers.getAgents);
  expect((await ask('/api/pools')).body).toEqual(answers.getPools);
  expect((await ask('/api/orchestration')).body).toEqual(answers.getOrchestrationStats);
  expect((await ask('/api/tasks/a%2Fb')).body).toEqual(answers.getTask);
  expect(asked).toContainEqual(['getAnalytics', 300]);
  expect(asked).toContainEqual(['getAnalytics', undefined]);
  expect(asked).toContainEqual(['getTask', 'a/b']);
  for (const path of [
    '/api/dashboard?x=1',
    '/api/groups?group=g',
    '/api/analytics?window=1.5',
    '/api/analytics?window=0',
    '/api/analytics?windows=60',
  ])
    expect((await ask(path)).body.error.code).toBe('ERR_INVALID_ARGUMENT');
});

test.each([
  ['ERR_INVALID_ARGUMENT', 400],
  ['ERR_NOT_PERMITTED', 403],
  ['ERR_DISABLED', 404],
  ['ERR_PAYLOAD_TOO_LARGE', 413],
  ['ERR_RATE_LIMITED', 429],
  ['ERR_REDIS', 500],
  ['ERR_INTERNAL', 500],
  ['ERR_CONNECTION', 503],
  ['ERR_TIMEOUT', 503],
  ['ERR_CLOSED', 503],
])('%s of the bus is %i', async (code, status) => {
  const error = new OSSAError('told so', { code, details: { argument: 'x' } });
  const { ask, failures } = await serve({
    getGroups: () => Promise.reject(error),
    getAgents: () => {
      throw error;
    },
  });
  for (const path of ['/api/groups', '/api/agents'])
    expect(await ask(path)).toMatchObject({ status, body: { error: { code, message: 'told so', details: { argument: 'x' } } } });
  expect(failures).toHaveLength(status === 500 ? 2 : 0);
});

test('what nobody foresaw is logged, and says nothing to the client', async () => {
  const error = new TypeError('a secret in a message');
  const { ask, failures } = await serve({
    getGroups: () => Promise.reject(error),
    getPools: () => ({
      toJSON() {
        throw error;
      },
    }),
  });
  for (const path of ['/api/groups', '/api/pools']) {
    const { status, text } = await ask(path);
    expect([status, JSON.parse(text).error.code]).toEqual([500, 'ERR_INTERNAL']);
    expect(text).not.toContain('secret');
  }
  expect(failures.map(([, thrown]) => thrown)).toEqual([error, error]);
});

test('readiness follows Redis, and whether the bus takes work, not how handlers fare; those who ask at once share a look', async () => {
  let status = 'healthy';
  let isOpen = true;
  let redis = 'healthy';
  let looks = 0;
  const healthCheck = async () => {
    looks++;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { status, timestamp: time, components: { redis: { status: redis } } };
  };
  const { ask } = await serve({ healthCheck }, { source: { isOpen: () => isOpen }, token: 'token' });
  const all = await Promise.all(Array.from({ length: 5 }, () => ask('/readyz')));
  expect(all.map((reply) => reply.status)).toEqual([200, 200, 200, 200, 200]);
  expect(all[0].body).toEqual({ status: 'healthy' });
  expect(looks).toBeLessThan(5);
  status = 'degraded';
  expect(await ask('/readyz')).toMatchObject({ status: 200, body: { status } });
  status = 'unhealthy';
  expect(await ask('/readyz')).toMatchObject({ status: 200, body: { status } });
  redis = 'unhealthy';
  expect(await ask('/readyz')).toMatchObject({ status: 503, body: { status } });
  status = redis = 'healthy';
  isOpen = false;
  expect(await ask('/readyz')).toMatchObject({ status: 503, body: { status: 'unhealthy' } });
});

test('what pages ask for all the time is looked for once by all that ask, until something is changed', async () => {
  let looks = 0;
  const look = async () => ++looks;
  const { ask } = await serve({
    getDashboardData: look,
    healthCheck: look,
    getGroups: look,
    deadLetters: { count: look, purge: async () => 1 },
  });
  const paths = ['/api/dashboard', '/api/health', '/api/groups', '/api/dead-letters/count', '/api/dead-letters/count?group=g'];
  const round = () => Promise.all(paths.flatMap((path) => Array.from({ length: 10 }, () => ask(path))));
  const replies = await round();
  expect([looks, new Set(replies.map(({ text }) => text)).size]).toEqual([5, 5]);
  await round();
  expect(looks).toBe(5);
  const headers = { 'content-type': 'application/json' };
  await ask('/api/dead-letters/purge', { method: 'POST', headers, send: (asked) => asked.end('{"group":"g"}') });
  await round();
  expect(looks).toBe(10);
});

test('an answer that failed is not given again, and none after the bus has ended', async () => {
  let isOpen = true;
  let looks = 0;
  const getGroups = () => (++looks === 1 ? Promise.reject(new OSSAError('away', { code: 'ERR_CONNECTION' })) : Promise.resolve([]));
  const { ask } = await serve({ getGroups }, { source: { isOpen: () => isOpen } });
  expect((await ask('/api/groups')).status).toBe(503);
  expect((await ask('/api/groups')).status).toBe(200);
  expect((await ask('/api/groups')).status).toBe(200);
  expect(looks).toBe(2);
  isOpen = false;
  await ask('/api/groups');
  expect(looks).toBe(3);
});

test('wrong tokens are in the log, not one line for each', async () => {
  const { ask, warnings } = await serve({ getPools: () => [] }, { token: 'right' });
  await ask('/api/pools');
  await ask('/api/pools', { headers: { authorization: 'Bearer right' } });
  expect(warnings).toEqual([]);
  for (let n = 0; n < 5; n++) expect((await ask('/api/pools', { headers: { authorization: 'Bearer guessed' } })).status).toBe(401);
  expect(warnings).toEqual(['HTTP: a request with a wrong token']);
});

test('a body that comes too slowly is refused, and its connection closed', async () => {
  const { ask } = await serve({ deadLetters: { purge: () => Promise.reject(new Error('must not be asked')) } }, { bodyTimeoutMs: 50 });
  const headers = { 'content-type': 'application/json', 'content-length': '100' };
  const reply = await ask('/api/dead-letters/purge', { method: 'POST', headers, send: (asked) => asked.write('{') });
  expect(reply).toMatchObject({ status: 408, headers: { connection: 'close' }, body: { error: { code: 'ERR_BODY_TIMEOUT' } } });
});

test('a search that meets a purge leaves no letter out', async () => {
  const letter = (id) => ({ id, eventType: 't', group: 'g', reason: 'handler', error: 'x', event: {} });
  let letters = ['1', '2', '3', '4', '5'].map(letter);
  const list = async ({ cursor }) => ({ items: letters.filter(({ id }) => cursor === undefined || id > cursor) });
  const { ask } = await serve({ deadLetters: { list } });
  const first = (await ask('/api/dead-letters?text=x&limit=2')).body;
  expect(first.items.map(({ id }) => id)).toEqual(['1', '2']);
  letters = letters.filter(({ id }) => id !== '2');
  const second = (await ask(`/api/dead-letters?text=x&limit=5&cursor=${first.cursor}`)).body;
  expect(second.items.map(({ id }) => id)).toEqual(expect.arrayContaining(['3', '4', '5']));
});

describe('the last refusals', () => {
  /** A log of records, so many ms old, oldest first, in pages as the bus gives them. */
  const logOf = (ages, outcome = () => 'denied') => {
    const now = Date.now();
    const records = ages.map((age, n) => ({ id: String(n), at: new Date(now - age), outcome: outcome(n) }));
    const asked = [];
    const getAuditLog = async ({ from, limit, cursor, outcome: only }) => {
      asked.push(now - from.getTime());
      const found = records.filter(({ at, outcome }) => at >= from && (only === undefined || outcome === only));
      const start = Number(cursor ?? 0);
      return { items: found.slice(start, start + limit), ...(start + limit < found.length ? { cursor: String(start + limit) } : {}) };
    };
    return { getAuditLog, asked };
  };

  test('are found however long ago they were, the newest first', async () => {
    const { ask } = await serve(logOf([4 * 86_400_000, 3 * 3_600_000, 120_000, 1000]));
    const { items, complete } = (await ask('/api/audit?outcome=refused')).body;
    expect(items.map(({ id }) => id)).toEqual(['3', '2', '1', '0']);
    expect(complete).toBe(true);
  });

  test('many of late need no look further back', async () => {
    const log = logOf([86_400_000, ...Array.from({ length: 10 }, (_, n) => 10_000 - n)]);
    const { ask } = await serve(log);
    const { items, ...rest } = (await ask('/api/audit?outcome=refused&limit=3')).body;
    expect(rest).toMatchObject({ complete: false, missing: 'older' });
    expect(items.map(({ id }) => id)).toEqual(['10', '9', '8']);
    expect(Math.max(...log.asked)).toBeLessThan(62_000);
  });

  test('of one rare outcome are found among many others', async () => {
    const log = logOf(
      Array.from({ length: 9_000 }, () => 1000),
      (n) => (n === 8_500 ? 'forged' : 'delivered'),
    );
    const { ask } = await serve(log);
    expect((await ask('/api/audit?outcome=refused')).body).toMatchObject({ items: [], complete: false, missing: 'newer' });
    expect((await ask('/api/audit?outcome=refused&only=forged')).body).toMatchObject({ items: [{ id: '8500' }], complete: true });
    for (const query of ['outcome=refused&only=sent', 'only=forged', 'outcome=denied&only=forged'])
      expect((await ask(`/api/audit?${query}`)).body.error.code).toBe('ERR_INVALID_ARGUMENT');
  });

  test('beyond what one request looks through it says so', async () => {
    const busy = Array.from({ length: 5_500 }, () => 1000);
    const { ask } = await serve(logOf(busy));
    expect((await ask('/api/audit?outcome=refused&limit=1')).body).toMatchObject({
      complete: false,
      missing: 'newer',
      items: [{ id: '4999' }],
    });
    // What was found in a time that could be looked through counts more.
    const { ask: askQuiet } = await serve(logOf([...busy.map(() => 600_000), 1000]));
    expect((await askQuiet('/api/audit?outcome=refused')).body).toMatchObject({ complete: true, items: [{ id: '5500' }] });
  });
});

/** httpHandler() and serve(): every address, on real sockets. */
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createOSSAEventBus, type DeepPartial, type OSSAEventBus, type OSSAEventBusConfig, ServiceRegistry } from '@bluefly/ossa';
import { ask, post } from './support/http';
import { project } from './support/projects';
import { until, within } from './support/wait';
import { freshPrefix, quick, refusal } from './support/world';

const open: Array<() => unknown> = [];
afterEach(async () => {
  for (const end of open.splice(0).reverse()) await end();
});

async function makeBus(over: DeepPartial<OSSAEventBusConfig> = {}, registry: ServiceRegistry | null = null): Promise<OSSAEventBus> {
  const logs = { debug() {}, info() {}, warn() {}, error() {} };
  const bus = await createOSSAEventBus(registry, { ...over, eventBus: { redis: { url: 'memory://' }, logger: logs, ...over.eventBus } });
  open.push(() => bus.shutdown({ drainTimeoutMs: 0 }));
  return bus;
}

/** A served bus, and where. */
async function served(options: Parameters<OSSAEventBus['serve']>[0] = {}, over: DeepPartial<OSSAEventBusConfig> = {}) {
  const bus = await makeBus(over);
  const serving = await bus.serve({ port: 0, ...options });
  return { bus, url: serving.url, serving };
}

/** A server of the test's own around a handler. */
async function mounted(listener: RequestListener): Promise<string> {
  const server: Server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Dead letters of `type`, one for each datum. */
async function bury(bus: OSSAEventBus, type: string, data: unknown[], group = 'g'): Promise<void> {
  const before = await bus.deadLetters.count({ eventType: type });
  const subscription = await bus.subscribe(type, ({ data }: any) => Promise.reject(new Error(data?.error ?? 'broken')), {
    group,
    retry: quick(0),
  });
  for (const datum of data) await bus.publish(type, datum);
  await until(async () => (await bus.deadLetters.count({ eventType: type })) === before + data.length);
  await subscription.close();
}

describe('addresses', () => {
  test('liveness and readiness', async () => {
    const { url } = await served();
    expect(await ask(url, '/healthz')).toMatchObject({ status: 200, json: { status: 'ok' } });
    const ready = await ask(url, '/readyz');
    expect(ready).toMatchObject({ status: 200, json: { status: 'healthy', components: { eventBus: { status: 'healthy' } } } });
  });

  test('metrics are text in the format of Prometheus', async () => {
    const { bus, url } = await served();
    await bus.registerProject(project('a'));
    await bus.registerProject(project('b'));
    await bus.sendCrossProjectMessage('a', 'b', 't', 1);
    const reply = await ask(url, '/metrics');
    expect(reply.status).toBe(200);
    expect(reply.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(reply.text).toMatch(/^# HELP ossa_/m);
    expect(reply.text).toMatch(/^ossa_cross_project_messages_total\{.*\} \d+$/m);
  });

  test('the status of the parts, and their health', async () => {
    const { bus, url } = await served();
    await bus.publish('a', 1);
    expect((await ask(url, '/api/status')).json).toMatchObject({ eventBus: { status: 'healthy', metrics: { eventsPublished: 1 } } });
    expect((await ask(url, '/api/health')).json).toMatchObject({ status: 'healthy', timestamp: expect.stringMatching(/^\d{4}-.*Z$/) });
  });

  test('what monitoring measured: dashboard, analytics, groups, alerts', async () => {
    const { bus, url } = await served();
    await bus.subscribe('a', () => undefined, { group: 'readers' });
    await bus.publish('a', 1);
    await until(() => bus.getMetrics().eventsConsumed === 1);
    expect((await ask(url, '/api/dashboard')).json).toMatchObject({
      overview: { status: 'healthy', totalEvents: expect.any(Number) },
      realtime: { timestamp: expect.any(Array), queueDepth: expect.any(Array) },
      activeAlerts: [],
    });
    expect((await ask(url, '/api/analytics?window=300')).json).toMatchObject({ windowSeconds: 300, windows: [60, 300, 900, 3600] });
    expect(await ask(url, '/api/analytics?window=7')).toMatchObject({ status: 400, json: { error: { code: 'ERR_INVALID_ARGUMENT' } } });
    expect((await ask(url, '/api/groups')).json).toContainEqual(
      expect.objectContaining({ eventType: 'a', group: 'readers', consumers: [expect.objectContaining({ alive: true })] }),
    );
    expect((await ask(url, '/api/alerts')).json).toEqual([]);
  });

  test('agents, pools, figures and tasks', async () => {
    const { url } = await served();
    expect((await ask(url, '/api/agents')).json).toEqual([]);
    expect((await ask(url, '/api/pools')).json).toEqual([]);
    expect((await ask(url, '/api/orchestration')).json).toMatchObject({ totalAgents: 0, queueDepth: 0 });
    expect(await ask(url, '/api/tasks/none')).toMatchObject({ status: 404, json: { error: { code: 'ERR_NOT_FOUND' } } });
  });

  test('projects, and the audit log with the last refusals', async () => {
    const { bus, url } = await served();
    await bus.registerProject(project('a', { allowedEventTypes: ['fine'] }));
    await bus.registerProject(project('b'));
    for (let n = 0; n < 3; n++) {
      await bus.sendCrossProjectMessage('a', 'b', 'fine', n);
      await refusal('ERR_NOT_PERMITTED', () => bus.sendCrossProjectMessage('a', 'b', `not.allowed.${n}`, n));
    }
    expect((await ask(url, '/api/projects')).json).toMatchObject({ totalProjects: 2, messagesSent: 3 });
    const refused = async () => (await ask(url, '/api/audit?outcome=refused')).json;
    await until(async () => (await refused()).items.length === 3);
    const found = await refused();
    expect(found.complete).toBe(true);
    expect(found.items.map(({ outcome, eventType }: any) => [outcome, eventType])).toEqual([
      ['denied', 'not.allowed.2'],
      ['denied', 'not.allowed.1'],
      ['denied', 'not.allowed.0'],
    ]);
    expect((await ask(url, '/api/audit?outcome=refused&limit=1')).json.items).toMatchObject([{ eventType: 'not.allowed.2' }]);
    expect((await ask(url, '/api/audit?outcome=refused&projectId=c')).json.items).toEqual([]);
    const first = (await ask(url, '/api/audit?outcome=denied&limit=2')).json;
    expect(first.items).toMatchObject([{ eventType: 'not.allowed.0' }, { eventType: 'not.allowed.1' }]);
    const second = (await ask(url, `/api/audit?outcome=denied&limit=2&cursor=${encodeURIComponent(first.cursor)}`)).json;
    expect(second.items).toMatchObject([{ eventType: 'not.allowed.2' }]);
    for (const query of [
      'outcome=nonsense',
      'from=yesterday',
      'limit=0',
      'limit=1001',
      'cursor=nonsense',
      'nonsense=1',
      'outcome=refused&from=1',
    ])
      expect(await ask(url, `/api/audit?${query}`)).toMatchObject({ status: 400, json: { error: { code: 'ERR_INVALID_ARGUMENT' } } });
  });

  test('services of the registry that the bus was given', async () => {
    const registry = new ServiceRegistry({ redis: { url: 'memory://', keyPrefix: freshPrefix() } });
    const bus = await makeBus({ serviceRegistry: { healthMonitoring: false, contractDiscovery: false } }, registry);
    open.unshift(() => registry.close());
    const { url } = await bus.serve({ port: 0 });
    await registry.register({ name: 'orders', endpoint: 'http://127.0.0.1:1/', version: '1.0.0', capabilities: [] });
    const { services, status } = (await ask(url, '/api/services')).json;
    expect(services.map(({ name }: any) => name)).toContain('orders');
    expect(status).toMatchObject({ connected: true, services: { totalServices: services.length } });
  });

  test('parts that are switched off are 404 with ERR_DISABLED', async () => {
    const { url } = await served({}, { crossProject: { enabled: false }, orchestration: { enabled: false } });
    for (const path of [
      '/api/services',
      '/api/projects',
      '/api/audit',
      '/api/audit?outcome=refused',
      '/api/agents',
      '/api/tasks/t',
      '/api/orchestration',
    ])
      expect(await ask(url, path)).toMatchObject({ status: 404, json: { error: { code: 'ERR_DISABLED', message: expect.any(String) } } });
  });

  test('what is known of an event; names with characters that mean something in addresses', async () => {
    const { bus, url } = await served();
    const id = await bus.publish('order.placed', { total: 7 });
    expect((await ask(url, `/api/events/order.placed/${id}`)).json).toMatchObject({
      state: 'stored',
      event: { data: { total: 7 } },
      groups: [],
    });
    const odd = await bus.publish('a:b/c', 1);
    expect((await ask(url, `/api/events/${encodeURIComponent('a:b/c')}/${odd}`)).json).toMatchObject({ event: { metadata: { id: odd } } });
    expect(await ask(url, `/api/events/other/${id}`)).toMatchObject({ status: 404, json: { error: { code: 'ERR_NOT_FOUND' } } });
    expect(await ask(url, '/api/events/a/nonsense')).toMatchObject({ status: 400, json: { error: { code: 'ERR_INVALID_ARGUMENT' } } });
    expect(await ask(url, '/api/events/a/%E0%A4%A')).toMatchObject({ status: 400, json: { error: { code: 'ERR_INVALID_ARGUMENT' } } });
  });

  test('a server without a bus any more says so, and is alive', async () => {
    const bus = await makeBus();
    const url = await mounted(bus.httpHandler());
    await bus.shutdown();
    expect(await ask(url, '/healthz')).toMatchObject({ status: 200 });
    expect(await ask(url, '/readyz')).toMatchObject({ status: 503, json: { status: 'unhealthy' } });
    expect(await ask(url, '/api/status')).toMatchObject({ status: 503, json: { error: { code: 'ERR_CLOSED' } } });
  });

  test('a bus that lets its handlers finish is alive, and not ready', async () => {
    const { bus, url } = await served();
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let running = false;
    await bus.subscribe('slow', () => {
      running = true;
      return held;
    });
    await bus.publish('slow', 1);
    await until(() => running);
    const ending = bus.shutdown();
    expect(await ask(url, '/healthz')).toMatchObject({ status: 200 });
    expect(await ask(url, '/readyz')).toMatchObject({ status: 503 });
    release();
    await ending;
    await expect(ask(url, '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('dead letters', () => {
  test('are listed in pages, and filtered', async () => {
    const { bus, url } = await served();
    await bury(bus, 'order', [1, 2, 3]);
    await bury(bus, 'mail', [4], 'mailer');
    const all = (await ask(url, '/api/dead-letters?full=1')).json;
    expect(all).toMatchObject({ scanned: 4 });
    expect(all.items.map(({ event }: any) => event.data).sort()).toEqual([1, 2, 3, 4]);
    expect(all.cursor).toBeUndefined();
    const first = (await ask(url, '/api/dead-letters?full=1&eventType=order&limit=2')).json;
    const second = (await ask(url, `/api/dead-letters?full=1&eventType=order&limit=2&cursor=${encodeURIComponent(first.cursor)}`)).json;
    expect([...first.items, ...second.items].map(({ event }: any) => event.data)).toEqual([1, 2, 3]);
    expect((await ask(url, '/api/dead-letters?group=mailer')).json.items).toMatchObject([{ eventType: 'mail', group: 'mailer' }]);
    const later = new Date(Date.now() + 60_000).toISOString();
    expect((await ask(url, `/api/dead-letters?from=${later}`)).json.items).toEqual([]);
    expect((await ask(url, `/api/dead-letters?to=${later}&from=0`)).json.items).toHaveLength(4);
    expect((await ask(url, '/api/dead-letters/count')).json).toEqual({ count: 4 });
    expect((await ask(url, '/api/dead-letters/count?eventType=order&group=g')).json).toEqual({ count: 3 });
  });

  test('are searched by text in id, type, group, error and the event, with a cursor to go on', async () => {
    const { bus, url } = await served();
    const data = Array.from({ length: 450 }, (_, n) => ({
      n,
      note: n % 100 === 7 ? 'NEEDLE' : 'hay',
      error: n === 440 ? 'no route' : 'broken',
    }));
    await bury(bus, 'many', data);
    const search = async (query: string) => (await ask(url, `/api/dead-letters?${query}`)).json;
    const found: number[] = [];
    let cursor = '';
    do {
      const page = await search(`full=1&text=needle&limit=2${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      expect(page.items.length).toBeLessThanOrEqual(2);
      found.push(...page.items.map(({ event }: any) => event.data.n));
      cursor = page.cursor ?? '';
    } while (cursor !== '');
    expect(found).toEqual([7, 107, 207, 307, 407]);
    expect((await search('text=No%20Route')).items).toMatchObject([{ error: 'no route' }]);
    const [{ id }] = (await search('text=no%20route')).items;
    expect((await search(`text=${encodeURIComponent(id)}`)).items).toHaveLength(1);
    expect(await search('text=nowhere')).toEqual({ items: [], scanned: 450 });
    for (const query of [
      'text=a&cursor=nonsense',
      'text=a&cursor=WzEsMl0',
      'cursor=nonsense',
      'limit=101',
      'full=yes',
      'ids=1&full=1',
      'ids=1&limit=2001',
      'limit=x',
      'from=soon',
      'group=a&group=b',
      'q=a',
    ])
      expect(await ask(url, `/api/dead-letters?${query}`)).toMatchObject({
        status: 400,
        json: { error: { code: 'ERR_INVALID_ARGUMENT' } },
      });
  });

  test('one search looks through a bounded number', async () => {
    const { bus, url } = await served();
    await bury(
      bus,
      'many',
      Array.from({ length: 2100 }, (_, n) => ({ n })),
    );
    const first = (await ask(url, '/api/dead-letters?full=1&text=%22n%22:2099')).json;
    expect(first).toMatchObject({ items: [], scanned: 2000, cursor: expect.any(String) });
    const second = (await ask(url, `/api/dead-letters?full=1&text=%22n%22:2099&cursor=${first.cursor}`)).json;
    expect(second).toMatchObject({ items: [{ event: { data: { n: 2099 } } }], scanned: 100 });
  });

  test('are listed without the data of their events, which one letter has', async () => {
    const { bus, url } = await served();
    await bury(bus, 'order', [{ note: 'é'.repeat(1000) }, 2]);
    const { items } = (await ask(url, '/api/dead-letters')).json;
    expect(items).toMatchObject([
      { preview: `{"note":"${'é'.repeat(291)}`, dataBytes: 2011, event: { metadata: { type: 'order' } } },
      { preview: '2', dataBytes: 1 },
    ]);
    for (const { event } of items) expect(Object.keys(event)).toEqual(['metadata']);
    const [{ id }] = items;
    const one = (query = '') => ask(url, `/api/dead-letters/${encodeURIComponent(id)}${query}`);
    expect((await one()).json).toMatchObject({ id, event: { data: { note: 'é'.repeat(1000) } } });
    expect((await one('?eventType=order&group=g')).json).toMatchObject({ id });
    for (const query of ['?eventType=mail', '?group=other']) expect((await one(query)).status).toBe(404);
    expect((await ask(url, '/api/dead-letters/nonsense')).json.error.code).toBe('ERR_INVALID_ARGUMENT');
    await bus.deadLetters.purge({ ids: [id] });
    expect(await one()).toMatchObject({ status: 404, json: { error: { code: 'ERR_NOT_FOUND' } } });
  });

  test('long ones come in answers of bounded size, and none is left out', async () => {
    const { bus, url } = await served();
    const data = Array.from({ length: 65 }, (_, n) => ({ n, filling: 'x'.repeat(200_000) }));
    await bury(bus, 'long', data);
    const walk = async (query: string, take: (page: any) => unknown[]) => {
      const found: unknown[] = [];
      let [cursor, pages, longest] = ['', 0, 0];
      do {
        const reply = await ask(url, `/api/dead-letters?${query}${cursor && `&cursor=${cursor}`}`);
        found.push(...take(reply.json));
        longest = Math.max(longest, reply.text.length);
        cursor = reply.json.cursor ?? '';
        pages++;
      } while (cursor !== '');
      return { found, pages, longest };
    };
    const numbers = data.map(({ n }) => n);
    const full = await walk('full=1&limit=100', ({ items }) => items.map(({ event }: any) => event.data.n));
    expect(full.found).toEqual(numbers);
    expect(full.longest).toBeLessThan(1_400_000);
    const brief = await walk('limit=100', ({ items }) => items.map(({ preview }: any) => Number(/\d+/.exec(preview)?.[0])));
    expect(brief.found).toEqual(numbers);
    expect(brief.longest).toBeLessThan(40_000);
    expect(brief.pages).toBe(4);
    const ids = await walk('ids=1', ({ ids }) => ids);
    expect(new Set(ids.found).size).toBe(65);
    // 8 MiB are 42 of them; they are read 20 at a time.
    expect((await ask(url, '/api/dead-letters?text=nowhere')).json).toMatchObject({
      items: [],
      scanned: 60,
      cursor: expect.any(String),
    });
  });

  test('are put back, and deleted', async () => {
    const { bus, url } = await served();
    await bury(bus, 'order', [1, 2, 3]);
    await bury(bus, 'mail', [4]);
    const [{ id }] = (await ask(url, '/api/dead-letters?eventType=order')).json.items;
    expect(await post(url, '/api/dead-letters/redrive', { ids: [id] })).toMatchObject({ status: 200, json: { redriven: 1 } });
    const seen: unknown[] = [];
    await bus.subscribe('order', ({ data }) => void seen.push(data), { group: 'g' });
    await until(() => seen.length === 1);
    expect(await post(url, '/api/dead-letters/redrive', { ids: [id] })).toMatchObject({ json: { redriven: 0 } });
    expect(await post(url, '/api/dead-letters/purge', { eventType: 'order' })).toMatchObject({ status: 200, json: { purged: 2 } });
    expect(await post(url, '/api/dead-letters/purge', { group: 'g' })).toMatchObject({ json: { purged: 1 } });
    expect(await bus.deadLetters.count()).toBe(0);
  });

  test.each([
    ['no filter', {}, 'ERR_INVALID_ARGUMENT'],
    ['a misspelt filter', { eventTypes: 'a' }, 'ERR_INVALID_ARGUMENT'],
    ['an id that is none', { ids: ['nonsense'] }, 'ERR_INVALID_ARGUMENT'],
    ['ids of another kind', { ids: 'a' }, 'ERR_INVALID_ARGUMENT'],
    ['an array', [], 'ERR_BAD_REQUEST'],
    ['null', null, 'ERR_BAD_REQUEST'],
    ['text', 'a', 'ERR_BAD_REQUEST'],
  ])('%s in place of what is meant changes nothing', async (_, body, code) => {
    const { bus, url } = await served();
    await bury(bus, 'order', [1]);
    for (const deed of ['redrive', 'purge'])
      expect(await post(url, `/api/dead-letters/${deed}`, body)).toMatchObject({ status: 400, json: { error: { code } } });
    expect(await bus.deadLetters.count()).toBe(1);
  });
});

describe('requests that are wrong', () => {
  test('addresses that are not there, and methods that they do not take', async () => {
    const { url } = await served();
    for (const path of [
      '/nothing',
      '/api',
      '/api/',
      '/api/dead-letters/',
      '/api/events/a',
      '/api/events//x',
      '/assets/../main.js',
      '/assets/%2e%2e/x',
      '//metrics',
    ])
      expect(await ask(url, path)).toMatchObject({ status: 404, json: { error: { code: 'ERR_NOT_FOUND' } } });
    expect(await ask(url, '/api/status', { method: 'POST' })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } });
    expect(await ask(url, '/api/dead-letters/purge')).toMatchObject({ status: 405, headers: { allow: 'POST' } });
    for (const path of ['/', '/assets/main.js', '/healthz', '/readyz', '/metrics'])
      for (const method of ['DELETE', 'OPTIONS', 'PUT']) expect((await ask(url, path, { method })).status).toBe(405);
    expect(await ask(url, '*', { method: 'OPTIONS' })).toMatchObject({ status: 400 });
    expect(await ask(url, `${url}/healthz`)).toMatchObject({ status: 200 });
  });

  test('HEAD is GET without a body', async () => {
    const { url } = await served();
    for (const path of ['/healthz', '/api/health', '/', '/metrics']) {
      const [head, get] = [await ask(url, path, { method: 'HEAD' }), await ask(url, path)];
      expect([head.status, head.text]).toEqual([200, '']);
      expect(head.headers['content-type']).toBe(get.headers['content-type']);
    }
  });

  test('bodies: too long, no JSON, of another type, cut off', async () => {
    const { url } = await served();
    const purge = '/api/dead-letters/purge';
    const type = { 'content-type': 'application/json' };
    const code = (code: string) => ({ json: { error: { code } } });
    const long = JSON.stringify({ ids: ['x'.repeat(70_000)] });
    expect(await ask(url, purge, { method: 'POST', headers: type, body: long })).toMatchObject({
      status: 413,
      ...code('ERR_BODY_TOO_LARGE'),
    });
    const chunked = (asked: any) => {
      asked.write(long.slice(0, 40_000));
      asked.write(long.slice(40_000));
    };
    expect(await ask(url, purge, { method: 'POST', headers: type, send: chunked })).toMatchObject({ status: 413 });
    for (const body of ['', '{', 'undefined', '{"ids":[}'])
      expect(await ask(url, purge, { method: 'POST', headers: type, body })).toMatchObject({ status: 400, ...code('ERR_INVALID_JSON') });
    for (const headers of [{}, { 'content-type': 'text/plain' }, { 'content-type': 'application/x-www-form-urlencoded' }] as Array<
      Record<string, string>
    >)
      expect(await ask(url, purge, { method: 'POST', headers, body: '{}' })).toMatchObject({ status: 415, ...code('ERR_CONTENT_TYPE') });
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.end(`POST ${purge} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"ids"`);
    await new Promise((resolve) => socket.once('close', resolve).resume());
    expect((await ask(url, '/healthz')).status).toBe(200);
  });

  test('what is no HTTP at all does not end the server', async () => {
    const { url } = await served();
    for (const text of [
      '\0\x01\x02',
      'GET / HTTP/9.9\r\n\r\n',
      `GET /${'a'.repeat(20_000)} HTTP/1.1\r\n\r\n`,
      'POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
    ]) {
      const socket = connect(Number(new URL(url).port), '127.0.0.1');
      socket.on('error', () => undefined).write(text);
      await within(5000, 'the end of the connection', new Promise((resolve) => socket.once('close', resolve).resume()));
    }
    expect((await ask(url, '/healthz')).status).toBe(200);
  });
});

describe('who may ask', () => {
  const token = 'a-token-that-nobody-guesses';
  const basic = (password: string) => ({ authorization: `Basic ${Buffer.from(`anyone:${password}`).toString('base64')}` });

  test('with a token all but liveness and readiness ask for it', async () => {
    const { url } = await served({ token });
    for (const path of ['/', '/assets/main.js', '/metrics', '/api/status', '/api/dead-letters', '/nothing']) {
      const without = await ask(url, path);
      expect(without).toMatchObject({ status: 401, json: { error: { code: 'ERR_UNAUTHORIZED' } } });
      expect(without.headers['www-authenticate']).toBe('Bearer realm="event bus"');
    }
    // A browser asks for a password where somebody opens the page, and not where a page asks for figures.
    const challenge = async (headers: Record<string, string>) => (await ask(url, '/', { headers })).headers['www-authenticate'];
    expect(await challenge({ accept: 'text/html,*/*;q=0.8' })).toMatch(/^Basic realm="[^"]+"/);
    expect(await challenge({ accept: '*/*', 'sec-fetch-mode': 'navigate' })).toMatch(/^Basic /);
    expect(await challenge({ accept: 'text/html', 'sec-fetch-mode': 'cors' })).toMatch(/^Bearer /);
    expect((await post(url, '/api/dead-letters/purge', { group: 'g' })).status).toBe(401);
    const right = [{ authorization: `Bearer ${token}` }, { authorization: `bearer ${token}` }, basic(token)];
    for (const headers of right) expect((await ask(url, '/api/status', { headers })).status).toBe(200);
    expect((await post(url, '/api/dead-letters/purge', { group: 'g' }, { authorization: `Bearer ${token}` })).status).toBe(200);
    const wrong = [
      token,
      `Bearer ${token}x`,
      `Bearer ${token.slice(1)}`,
      'Bearer',
      'Bearer  ',
      `Digest ${token}`,
      'Basic ',
      'Basic %%%',
      basic('').authorization,
    ];
    wrong.push(`Basic ${Buffer.from(token).toString('base64')}`, basic(`${token}:`).authorization);
    for (const authorization of wrong) expect((await ask(url, '/api/status', { headers: { authorization } })).status).toBe(401);
    expect((await ask(url, `/api/status?token=${token}`)).status).toBe(401);
  });

  test('readiness says more to those who have it', async () => {
    const { url } = await served({ token });
    expect((await ask(url, '/healthz')).json).toEqual({ status: 'ok' });
    expect((await ask(url, '/readyz')).json).toEqual({ status: 'healthy' });
    expect((await ask(url, '/readyz', { headers: basic(token) })).json).toMatchObject({ components: { eventBus: {} } });
  });

  test('without a token, on loopback, the Host header must name this machine', async () => {
    const { url } = await served();
    const port = new URL(url).port;
    for (const host of ['localhost', `localhost:${port}`, 'LOCALHOST', `127.0.0.1:${port}`, '127.0.0.2', '[::1]:80', 'bus.localhost'])
      expect((await ask(url, '/api/status', { headers: { host } })).status).toBe(200);
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '10.0.0.1',
      '[::2]',
      'localhost:80:80',
    ]) {
      expect(await ask(url, '/api/status', { headers: { host } })).toMatchObject({
        status: 403,
        json: { error: { code: 'ERR_FORBIDDEN' } },
      });
      expect((await post(url, '/api/dead-letters/purge', { group: 'g' }, { host })).status).toBe(403);
    }
    expect((await ask(url, '/readyz', { headers: { host: 'evil.example' } })).json).toEqual({ status: 'healthy' });
    const { url: guarded } = await served({ token });
    expect((await ask(guarded, '/api/status', { headers: { host: 'bus.example', ...basic(token) } })).status).toBe(200);
  });

  test('pages of other sites change nothing', async () => {
    const { bus, url } = await served();
    await bury(bus, 'order', [1]);
    const purge = (headers: Record<string, string>) => post(url, '/api/dead-letters/purge', { eventType: 'order' }, headers);
    const { host } = new URL(url);
    for (const headers of [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: `http://localhost:${new URL(url).port}` },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site', origin: `http://${host}` },
      { 'sec-fetch-site': 'nonsense' },
    ] as Array<Record<string, string>>)
      expect(await purge(headers)).toMatchObject({ status: 403, json: { error: { code: 'ERR_FORBIDDEN' } } });
    expect(await bus.deadLetters.count()).toBe(1);
    expect(await purge({ origin: `http://${host}`, 'sec-fetch-site': 'same-origin' })).toMatchObject({ status: 200, json: { purged: 1 } });
    expect((await purge({ origin: `http://${host}` })).status).toBe(200);
    // A proxy in front has another name; what the browser says of the site holds.
    expect((await purge({ origin: 'https://bus.example', 'sec-fetch-site': 'same-origin' })).status).toBe(200);
  });

  test('pages of other sites do not even ask, where there is no token', async () => {
    const { url } = await served();
    const { url: guarded } = await served({ token });
    for (const site of ['cross-site', 'same-site']) {
      const headers = { 'sec-fetch-site': site };
      for (const path of ['/api/status', '/api/dead-letters?text=a', '/metrics'])
        expect(await ask(url, path, { headers })).toMatchObject({ status: 403, json: { error: { code: 'ERR_FORBIDDEN' } } });
      // A link to the page is followed.
      for (const path of ['/', '/healthz', '/readyz']) expect((await ask(url, path, { headers })).status).toBe(200);
      expect((await ask(guarded, '/api/status', { headers: { ...headers, ...basic(token) } })).status).toBe(200);
    }
    for (const site of ['same-origin', 'none'])
      expect((await ask(url, '/api/status', { headers: { 'sec-fetch-site': site } })).status).toBe(200);
  });

  test('every answer keeps browsers from showing, reading and guessing it', async () => {
    const { url } = await served();
    for (const path of ['/', '/assets/main.js', '/api/status', '/healthz', '/nothing', '/metrics']) {
      const { headers } = await ask(url, path, { headers: { origin: 'https://evil.example' } });
      expect(headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'; style-src 'self'");
      expect(headers['content-security-policy']).toContain("frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
      expect(headers).toMatchObject({
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
      });
      expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
    }
    expect((await ask(url, '/api/status')).headers['cache-control']).toBe('no-store');
  });
});

describe('the page', () => {
  test('comes with its assets, which need not be sent twice', async () => {
    const { url } = await served();
    const page = await ask(url, '/');
    expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
    const names = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name]) => name as string);
    expect(names.length).toBeGreaterThan(3);
    for (const name of names) {
      // Relative: wherever it is mounted.
      expect(name).toMatch(/^assets\//);
      const first = await ask(url, `/${name}`);
      expect([first.status, first.headers['cache-control']]).toEqual([200, 'no-cache']);
      const again = await ask(url, `/${name}`, { headers: { 'if-none-match': first.headers.etag as string } });
      expect([again.status, again.text]).toEqual([304, '']);
    }
    expect((await ask(url, '/assets/vendor/uPlot.LICENSE.txt')).text).toMatch(/^The MIT License/);
  });

  test('a mounted handler finds its place in the address', async () => {
    const bus = await makeBus();
    const based = await mounted(bus.httpHandler({ basePath: '/ops/bus/' }));
    expect((await ask(based, '/ops/bus/healthz')).status).toBe(200);
    expect((await ask(based, '/ops/bus/api/status')).status).toBe(200);
    expect((await ask(based, '/ops/bus/')).text).toMatch(/^<!doctype html>/i);
    expect(await ask(based, '/ops/bus')).toMatchObject({ status: 308, headers: { location: './bus/' } });
    for (const path of ['/healthz', '/', '/ops', '/ops/business/healthz', '/ops/bus.x']) expect((await ask(based, path)).status).toBe(404);

    /** Cuts off the mount path, as Express does. */
    const stripping =
      (mount: string, handler: RequestListener): RequestListener =>
      (request, response) => {
        Object.assign(request, { originalUrl: request.url });
        request.url = request.url?.slice(mount.length) || '/';
        if (!request.url.startsWith('/')) request.url = `/${request.url}`;
        handler(request, response);
      };
    for (const basePath of [undefined, '/bus', '/ops/bus']) {
      const url = await mounted(stripping('/ops/bus', bus.httpHandler(basePath === undefined ? {} : { basePath })));
      expect((await ask(url, '/ops/bus/api/status?')).status).toBe(200);
      expect((await ask(url, '/ops/bus/')).status).toBe(200);
      expect(await ask(url, '/ops/bus')).toMatchObject({ status: 308, headers: { location: './bus/' } });
      expect((await ask(url, '/ops/bus/nothing')).status).toBe(404);
      expect((await post(url, '/ops/bus/api/dead-letters/purge', { group: 'g' })).status).toBe(200);
    }
  });

  test('a redirect leads nowhere else', async () => {
    const bus = await makeBus();
    const url = await mounted((request, response) => {
      Object.assign(request, { originalUrl: request.url });
      request.url = '/';
      bus.httpHandler()(request, response);
    });
    for (const path of ['//evil.example', '/javascript:alert(1)', '/a\\b', '//evil.example/x'])
      expect((await ask(url, path)).headers.location).toMatch(/^\.\/[^/]+\/$/);
  });

  test('a body that a framework parsed before is taken; one that it swallowed is told', async () => {
    const bus = await makeBus();
    const parse =
      (keep: boolean): RequestListener =>
      async (request, response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer);
        if (keep) Object.assign(request, { body: JSON.parse(Buffer.concat(chunks).toString()) });
        bus.httpHandler()(request, response);
      };
    expect(await post(await mounted(parse(true)), '/api/dead-letters/purge', { group: 'g' })).toMatchObject({
      status: 200,
      json: { purged: 0 },
    });
    const swallowed = await post(await mounted(parse(false)), '/api/dead-letters/purge', { group: 'g' });
    expect(swallowed).toMatchObject({
      status: 400,
      json: { error: { code: 'ERR_BAD_REQUEST', message: expect.stringMatching(/before/) } },
    });
  });
});

describe('options, and the life of a server', () => {
  test.each([
    ['port', { port: -1 }],
    ['port', { port: 65_536 }],
    ['port', { port: 1.5 }],
    ['port', { port: '3000' }],
    ['port', { port: null }],
    ['host', { host: '' }],
    ['host', { host: 'a b' }],
    ['host', { host: 7 }],
    ['token', { token: '' }],
    ['token', { token: 'two words' }],
    ['token', { token: 'ä' }],
    ['token', { token: null }],
    ['basePath', { basePath: '/a' }],
    ['tokn', { tokn: 'x' }],
  ])('serve: %s of %j is refused', async (name, options) => {
    const bus = await makeBus();
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.serve(options as object));
    expect(error.details).toEqual({ argument: `options.${name}` });
    expect(error.message).toContain(`options.${name}`);
  });

  test.each([
    ['basePath', { basePath: 'bus' }],
    ['basePath', { basePath: '/a//b' }],
    ['basePath', { basePath: '/../a' }],
    ['basePath', { basePath: '/a?b' }],
    ['basePath', { basePath: 1 }],
    ['token', { token: '' }],
    ['port', { port: 1 }],
  ])('httpHandler: %s of %j is refused', async (name, options) => {
    const bus = await makeBus();
    const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.httpHandler(options as object));
    expect(error.details).toEqual({ argument: `options.${name}` });
    for (const wrong of ['x', 1, [], () => 1]) await refusal('ERR_INVALID_ARGUMENT', () => bus.httpHandler(wrong as object));
  });

  test('a port in use and an address of another machine are told by the option', async () => {
    const { bus, serving } = await served();
    const inUse = await refusal('ERR_INVALID_ARGUMENT', () => bus.serve({ port: serving.port }));
    expect(inUse).toMatchObject({
      message: expect.stringContaining(`${serving.port} is in use`),
      details: { argument: 'options.port', system: 'EADDRINUSE' },
    });
    const elsewhere = await refusal('ERR_INVALID_ARGUMENT', () => bus.serve({ port: 0, host: '192.0.2.1' }));
    expect(elsewhere).toMatchObject({ message: expect.stringContaining("'192.0.2.1'"), details: { argument: 'options.host' } });
  });

  test('who serves to others without a token is warned', async () => {
    const warnings: string[] = [];
    const logger = { debug() {}, info() {}, error() {}, warn: (text: string) => void warnings.push(text) };
    const { bus } = await served({}, { eventBus: { logger } });
    await bus.serve({ port: 0, host: '0.0.0.0', token: 'a-token' });
    await bus.serve({ port: 0, host: '127.0.0.2' });
    expect(warnings).toEqual([]);
    const open = await bus.serve({ port: 0, host: '0.0.0.0' });
    expect(warnings).toEqual([expect.stringContaining('0.0.0.0 without a token')]);
    expect((await ask(`http://127.0.0.1:${open.port}`, '/api/status', { headers: { host: 'evil.example' } })).status).toBe(403);
  });

  test('several may be served; each ends by itself, with connections that idle', async () => {
    const bus = await makeBus();
    const [one, other] = [await bus.serve({ port: 0 }), await bus.serve({ port: 0, host: 'localhost' })];
    expect(one).toMatchObject({ port: expect.any(Number), url: `http://127.0.0.1:${one.port}` });
    expect((await ask(one.url, '/healthz')).status).toBe(200);
    const idle = connect(one.port, '127.0.0.1');
    await new Promise<void>((resolve) => idle.once('data', () => resolve()).write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n'));
    const ended = new Promise((resolve) => idle.once('close', resolve));
    await within(1500, 'close()', Promise.all([one.close(), one.close(), ended]));
    await expect(ask(one.url, '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await one.close();
    expect(
      (await ask(other.url.replace('localhost', '127.0.0.1'), '/readyz').catch(() => ask(`http://[::1]:${other.port}`, '/readyz'))).status,
    ).toBe(200);
  });

  test('a request that never ends does not hold up the end', async () => {
    const { bus, serving } = await served();
    const socket = connect(serving.port, '127.0.0.1');
    socket.write(
      'POST /api/dead-letters/purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
    );
    const ended = new Promise((resolve) => socket.on('error', () => undefined).once('close', resolve));
    // The server has it when it answers the next one.
    expect((await ask(serving.url, '/healthz')).status).toBe(200);
    await within(8000, 'shutdown()', bus.shutdown());
    await ended;
  });

  test('it ends with the bus, whoever closes that, and none begins after', async () => {
    const { bus, url } = await served();
    await bus.getEventBus().disconnect();
    await expect(ask(url, '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await refusal('ERR_CLOSED', () => bus.serve({ port: 0 }));
    await refusal('ERR_CLOSED', () => bus.httpHandler());
  });
});

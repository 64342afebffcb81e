/** Events that services get over HTTP, by what their capabilities name. */
import type { OSSAEventBus, ServiceCapability, ServiceRegistry } from '@bluefly/ossa';
import { freePort } from './support/server';
import { handles, type Reply, routed, routeOf, type Site, service, useServices } from './support/services';
import { gate, until } from './support/wait';
import { quick, refusal, storesWithCluster } from './support/world';

/** Events up to 20 ms older than a registration may count as later: what is to be after what was done begins well behind that. */
async function later(): Promise<void> {
  const now = Date.now();
  await until(() => Date.now() > now + 40, { everyMs: 1 });
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const services = useServices(kind);
  let registry: ServiceRegistry;
  let bus: OSSAEventBus;
  let site: Site;

  /** A bus, and a service 'orders' that gets its events. */
  async function begin(capabilities: ServiceCapability[] = [handles('order.*')], over: object = {}): Promise<void> {
    registry = services.registry();
    const retry = { defaults: { retry: quick(3, 20) } };
    bus = await services.bus({ eventBus: retry, serviceRegistry: { contractDiscovery: false }, ...over }, registry);
    site = await services.site();
    await registry.register(service('orders', site, ...capabilities));
    await routed(bus, 'orders');
  }

  const dead = async (group = 'service:orders') => (await bus.deadLetters.list({ group })).items;
  const groupsOf = async (type: string) => ((await bus.getStream(type))?.stats.groups ?? []).map(({ name }) => name);
  /** Nothing of the group is left to be done. */
  const settled = (type: string, group = 'service:orders') =>
    until(async () => {
      const found = (await bus.getStream(type))?.stats.groups.find(({ name }) => name === group);
      return found !== undefined && found.pending === 0 && !found.lag;
    });

  describe('which', () => {
    test.each([
      ['agent-orchestration', ['agent.started', 'agent.made-up', 'orchestration.scale_up'], ['agent', 'agent.a.b', 'task.started']],
      ['task-management', ['task.assigned', 'task.completed'], ['agent.started', 'task']],
      ['performance-monitoring', ['performance.metrics', 'performance.threshold'], ['task.started', 'performance.a.b']],
      ['resource-management', ['resource.exhausted', 'resource.allocated'], ['performance.metrics']],
      ['anything', [], ['agent.started', 'task.started', 'anything']],
    ])('%s names %j, and not %j', async (name, named, others) => {
      await begin([{ name, version: '1.0.0' }, handles('last')]);
      for (const type of [...others, ...named, 'last']) await bus.publish(type, { type } as any);
      const data = await site.got(named.length + 1);
      expect(data.map(({ type }) => type).sort()).toEqual([...named, 'last'].sort());
      for (const type of [...named, 'last']) await settled(type);
      expect(site.posts.length).toBe(named.length + 1);
    });

    test('inputs.events are types and patterns, beside what the capability names', async () => {
      await begin([{ ...handles('order.**', 'user.created'), name: 'task-management' }]);
      for (const type of ['order.a.b', 'order', 'user.created', 'user.deleted', 'task.started', 'payment.made'])
        await bus.publish(type, type as any);
      expect((await site.got(4)).sort()).toEqual(['order', 'order.a.b', 'task.started', 'user.created']);
      expect(await routeOf(bus, 'orders')).toMatchObject({
        group: 'service:orders',
        patterns: ['order.**', 'task.*', 'user.created'],
        paused: false,
      });
    });

    test('what is no pattern is logged once, and the rest of them counts', async () => {
      await begin([handles('order.*', 'no type'), { name: 'b', version: '1.0.0', inputs: { events: 'order.*' } }]);
      await bus.publish('order.placed', 1);
      await site.got(1);
      await registry.updateService('orders', { version: '1.0.1' });
      await bus.publish('order.placed', 2);
      await site.got(2);
      expect(services.logged(/capabilities\[0\]\.inputs\.events\[1\]/)).toHaveLength(1);
      expect(services.logged(/capabilities\[1\]\.inputs\.events is no list/)).toHaveLength(1);
    });

    test('an event that several patterns match is sent once', async () => {
      await begin([handles('order.*', 'order.placed', 'order.**', '*.placed')]);
      for (let n = 0; n < 10; n++) await bus.publish('order.placed', n);
      expect((await site.got(10)).sort()).toEqual(Array.from({ length: 10 }, (_, n) => n));
      await settled('order.placed');
      expect(site.posts.length).toBe(10);
    });

    test('each service gets them all, however many others and handlers there are', async () => {
      await begin();
      const other = await services.site();
      await registry.register(service('billing', other, handles('order.placed')));
      await routed(bus, 'billing');
      const got: number[] = [];
      await bus.subscribe<number>('order.placed', (event) => void got.push(event.data));
      for (let n = 0; n < 5; n++) await bus.publish('order.placed', n);
      for (const data of [await site.got(5), await other.got(5)]) expect(data.sort()).toEqual([0, 1, 2, 3, 4]);
      await until(() => got.length === 5);
      expect((await groupsOf('order.placed')).sort()).toEqual(['default', 'service:billing', 'service:orders']);
    });

    test('none from before its registration', async () => {
      const early = await services.bus({}, null);
      for (let n = 0; n < 3; n++) await early.publish('order.placed', `early ${n}`);
      await later();
      await begin();
      await bus.publish('order.placed', 'late');
      expect(await site.got(1)).toEqual(['late']);
      await settled('order.placed');
      expect(site.posts.length).toBe(1);
    });

    test('from its registration on, though no bus was there', async () => {
      const early = await services.bus({}, null);
      registry = services.registry();
      site = await services.site();
      await early.publish('order.placed', 'before');
      await later();
      await registry.register(service('orders', site, handles('order.*')));
      await early.publish('order.placed', 'between');
      bus = await services.bus({}, registry);
      expect(await site.got(1)).toEqual(['between']);
    });
  });

  describe('as what', () => {
    test('the body is the event, headers say what it is', async () => {
      await begin();
      const headers = {
        traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
        tracestate: 'a=1',
        baggage: 'k=wert%20ü',
        other: 'o',
      };
      const before = Date.now();
      const id = await bus.publish(
        'order.placed',
        { n: 1.5, at: new Date(0) },
        {
          ...{
            correlationId: 'körrelation 100%',
            causationId: 'c\r\nx-injected: y',
            source: 'söurce',
            target: 't',
            priority: 'high' as const,
          },
          ...{ ttl: 60, tags: ['x'], headers, partitionKey: 'k' },
        },
      );
      await site.got(1);
      const [post] = site.posts;
      expect(post).toMatchObject({ method: 'POST', path: '/events' });
      const { metadata, data } = JSON.parse(post.body);
      expect(data).toEqual({ n: 1.5, at: '1970-01-01T00:00:00.000Z' });
      expect(metadata).toEqual({
        ...{ id, type: 'order.placed', source: 'söurce', target: 't', version: '1.0.0', attempt: 1, timestamp: expect.any(String) },
        ...{
          correlationId: 'körrelation 100%',
          causationId: 'c\r\nx-injected: y',
          priority: 'high',
          ttl: 60,
          tags: ['x'],
          headers,
          partitionKey: 'k',
        },
      });
      expect(new Date(metadata.timestamp).toISOString()).toBe(metadata.timestamp);
      expect(Math.abs(Date.parse(metadata.timestamp) - before)).toBeLessThan(60_000);
      expect(post.headers).toMatchObject({
        ...{ 'content-type': 'application/json', 'x-event-type': 'order.placed', 'x-event-id': id, 'idempotency-key': id },
        ...{ 'x-event-source': 's%C3%B6urce', 'x-event-group': 'service:orders', 'x-event-attempt': '1' },
        ...{ 'x-correlation-id': 'k%C3%B6rrelation 100%25', 'x-causation-id': 'c%0D%0Ax-injected: y' },
        ...{ traceparent: headers.traceparent, tracestate: 'a=1', baggage: 'k=wert%2520%C3%BC' },
      });
      for (const name of ['x-injected', 'other']) expect(post.headers).not.toHaveProperty(name);
    });

    test('without what an event does not have', async () => {
      await begin();
      await bus.publish('order.placed', null);
      expect(await site.got(1)).toEqual([null]);
      const { headers } = site.posts[0];
      for (const name of ['x-correlation-id', 'x-causation-id', 'traceparent', 'tracestate', 'baggage'])
        expect(headers).not.toHaveProperty(name);
    });

    test.each([
      [
        'text of all kinds',
        { text: '\u0000\u001f"\\/ äöü 漢字 🙂 \u2028\u2029 \ud83d', __proto__x: 1, nested: [[], {}, null, true, -0.5e-10] },
      ],
      ['a megabyte', { text: 'ä🙂'.repeat(170_000) }],
    ])('data with %s comes byte for byte as it was published', async (_, data) => {
      await begin();
      await bus.publish('order.placed', data);
      await site.got(1);
      expect(site.posts[0].body.endsWith(`,"data":${JSON.stringify(data)}}`)).toBe(true);
      expect(Number(site.posts[0].headers['content-length'])).toBe(Buffer.byteLength(site.posts[0].body));
    });

    test('at eventsPath, and below the path of an endpoint', async () => {
      await begin();
      await registry.updateService('orders', { metadata: { eventsPath: '/hooks/bus' } });
      await bus.publish('order.placed', 1);
      await site.got(1);
      await registry.updateService('orders', { endpoint: `${site.endpoint}/v1/` });
      await bus.publish('order.placed', 2);
      await site.got(2);
      expect(site.posts.map(({ path }) => path)).toEqual(['/hooks/bus', '/v1/hooks/bus']);
    });

    test('eight requests at once, however many patterns it names', async () => {
      await begin([{ ...handles('order.*', 'user.*', 'order.**'), name: 'agent-orchestration' }]);
      const hold = gate();
      site.events = async () => {
        await hold.opened;
        return 200;
      };
      for (let n = 0; n < 10; n++) for (const type of ['order.placed', 'user.created', 'agent.made-up']) await bus.publish(type, n);
      await until(() => site.posts.length >= 8);
      // Others of the bus go on meanwhile.
      await bus.request('echo', 1, { timeoutMs: 500 }).catch(() => undefined);
      expect(site.atOnce).toBe(8);
      hold.open();
      await site.got(30);
      expect(site.atOnce).toBe(8);
    });
  });

  describe('what an answer means', () => {
    test('2xx: done', async () => {
      await begin();
      site.events = ({ body }) => JSON.parse(body).data;
      const statuses = [200, 201, 202, 204, 299];
      for (const status of statuses) await bus.publish('order.placed', status);
      await site.got(statuses.length);
      await settled('order.placed');
      expect(await dead()).toEqual([]);
      expect(await routeOf(bus, 'orders')).toMatchObject({ delivered: statuses.length, failed: 0, circuit: 'closed' });
    });

    test("4xx: a dead letter at once, 'permanent'", async () => {
      await begin();
      site.events = ({ body }) => ({ status: JSON.parse(body).data, body: { error: 'no such order' } });
      const statuses = [400, 401, 404, 409, 410, 422];
      for (const status of statuses) {
        const id = await bus.publish('order.placed', status);
        const letter = await until(async () => (await dead()).find(({ event }) => event.metadata.id === id));
        expect(letter).toMatchObject({ group: 'service:orders', reason: 'permanent', attempts: 1, event: { data: status } });
        expect(letter?.error).toContain(`HTTP status ${status}`);
        expect(letter?.error).toContain('no such order');
      }
      expect(site.posts.length).toBe(statuses.length);
      expect(await routeOf(bus, 'orders')).toMatchObject({ delivered: 0, failed: statuses.length, circuit: 'closed' });
    });

    test.each<[string, Reply, RegExp]>([
      ['408', 408, /408/],
      ['429', 429, /429/],
      ['500', { status: 500, body: 'disk full' }, /500: disk full/],
      ['a redirect', { status: 307, headers: { location: '/elsewhere' } }, /redirect to .*\/elsewhere/],
      ['a lost connection', 'close', /127\.0\.0\.1/],
      ['no answer', 'hang', /within 300 ms/],
    ])("%s: again by the bus's retry settings, then a dead letter, 'max-attempts'", async (_, reply, error) => {
      await begin(undefined, { serviceRegistry: { http: { timeoutMs: 300 } } });
      site.events = () => reply;
      await bus.publish('order.placed', 1);
      const [letter] = (await until(async () => {
        const letters = await dead();
        return letters.length > 0 ? letters : undefined;
      }))!;
      expect(letter).toMatchObject({ group: 'service:orders', reason: 'max-attempts', attempts: 4, error: expect.stringMatching(error) });
      expect(site.posts.map(({ path, headers }) => `${path} ${headers['x-event-attempt']}`)).toEqual(
        [1, 2, 3, 4].map((n) => `/events ${n}`),
      );
      const bodies = site.posts.map(({ body }) => JSON.parse(body).metadata);
      expect(new Set(bodies.map(({ id }) => id)).size).toBe(1);
      expect(bodies.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4]);
    });

    test('a connection that is refused: again, until somebody listens there', async () => {
      await begin([handles('order.*')], { eventBus: { defaults: { retry: quick(100, 50) } } });
      const port = await freePort();
      await registry.updateService('orders', { endpoint: `http://127.0.0.1:${port}` });
      await bus.publish('order.placed', 1);
      await until(async () => ((await routeOf(bus, 'orders'))?.failed ?? 0) >= 2);
      await registry.updateService('orders', { endpoint: site.endpoint });
      await site.got(1);
      expect(Number(site.posts[0].headers['x-event-attempt'])).toBeGreaterThan(2);
    });

    test.each([429, 500])('%d with Retry-After: after that time, not before', async (status) => {
      await begin();
      site.events = (_, n) => (n === 1 ? { status, headers: { 'retry-after': '1' } } : 200);
      await bus.publish('order.placed', 1);
      await site.got(2);
      const [first, second] = site.posts;
      expect(second.at - first.at).toBeGreaterThanOrEqual(990);
      expect(second.headers['x-event-attempt']).toBe('2');
    });

    test('dead letters can be sent once more, to the service that failed', async () => {
      await begin();
      site.events = (_, n) => (n === 1 ? 400 : 200);
      await bus.publish('order.placed', 1);
      await until(async () => (await dead()).length === 1);
      await bus.deadLetters.redrive({ group: 'service:orders' });
      expect(await site.got(2)).toEqual([1, 1]);
      expect(await dead()).toEqual([]);
    });

    test('request(): what the service says is the answer', async () => {
      await begin([handles('price.*')]);
      site.events = ({ body }) => {
        const { n } = JSON.parse(body).data;
        return n === 0
          ? 204
          : n === 1
            ? { status: 200, body: 'no JSON' }
            : n === 2
              ? 422
              : { status: 200, body: { price: n * 2, ä: '🙂' } };
      };
      expect(await bus.request('price.asked', { n: 7 })).toEqual({ price: 14, ä: '🙂' });
      expect(await bus.request('price.asked', { n: 0 })).toBeNull();
      expect((await refusal('ERR_REMOTE', () => bus.request('price.asked', { n: 1 }))).message).toMatch(/no JSON/);
      expect((await refusal('ERR_REMOTE', () => bus.request('price.asked', { n: 2 }))).message).toMatch(/422/);
    });
  });

  test('the circuit: open after five failures in a row, events wait without an attempt, then one goes first, then all', async () => {
    await begin([handles('order.*')], { eventBus: { defaults: { retry: quick(50, 10) } } });
    let well = false;
    const hold = gate();
    site.events = async () => {
      if (!well) return 500;
      await hold.opened;
      return 200;
    };
    await bus.publish('order.placed', 0);
    await until(async () => (await routeOf(bus, 'orders'))?.circuit === 'open', { show: () => site.posts.length });
    expect(site.posts.length).toBe(5);
    expect(await routeOf(bus, 'orders')).toMatchObject({ paused: true, failed: 5 });
    // All deliveries of five minutes failed: that is critical.
    expect(await bus.healthCheck()).toMatchObject({ status: 'unhealthy', components: { serviceRegistry: { status: 'degraded' } } });
    const opened = site.posts[4].at;
    for (let n = 1; n < 20; n++) await bus.publish('order.placed', n);
    well = true;
    await until(() => site.posts.length > 5, { timeoutMs: 4000 });
    expect(site.posts[5].at - opened).toBeGreaterThanOrEqual(1950);
    expect(await routeOf(bus, 'orders')).toMatchObject({ circuit: 'half-open', paused: false });
    // Others are there to be sent, and wait for how this one ends.
    await until(() => bus.getMetrics().eventsInFlight > 1);
    expect(site.posts.length).toBe(6);
    hold.open();
    await until(() => site.posts.length >= 25);
    expect(await routeOf(bus, 'orders')).toMatchObject({ circuit: 'closed', paused: false });
    const accepted = site.posts.slice(5);
    expect(accepted.map(({ body }) => JSON.parse(body).data).sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, n) => n));
    // Waiting was no attempt.
    expect(accepted.filter(({ headers }) => headers['x-event-attempt'] !== '1')).toHaveLength(1);
    expect(await dead()).toEqual([]);
    expect(services.logged(/'orders' fails again and again/)).toHaveLength(1);
    expect(services.logged(/'orders' answers again/)).toHaveLength(1);
  });

  test('a new endpoint ends the wait of an open circuit', async () => {
    await begin([handles('order.*')], { eventBus: { defaults: { retry: quick(50, 10) } } });
    site.events = () => 500;
    await bus.publish('order.placed', 1);
    await until(async () => (await routeOf(bus, 'orders'))?.circuit === 'open');
    const next = await services.site();
    await registry.updateService('orders', { endpoint: next.endpoint });
    await next.got(1, 1500);
    await until(async () => (await routeOf(bus, 'orders'))?.circuit === 'closed');
  });

  test('what wants to be asked later does not open the circuit', async () => {
    await begin([handles('order.*')], { eventBus: { defaults: { retry: quick(20, 5) } } });
    site.events = (_, n) => (n <= 12 ? 429 : 200);
    await bus.publish('order.placed', 1);
    await site.got(13);
    // It has come; that it was answered is known a moment later.
    await settled('order.placed');
    expect(await routeOf(bus, 'orders')).toMatchObject({ circuit: 'closed', delivered: 1, failed: 12 });
  });

  test('maintenance pauses, and what comes meanwhile is sent afterwards', async () => {
    await begin();
    await registry.updateService('orders', { health: { status: 'maintenance', lastCheck: new Date() } });
    await until(async () => (await routeOf(bus, 'orders'))?.paused);
    for (let n = 0; n < 5; n++) await bus.publish('order.placed', n);
    await later();
    const other = await services.site();
    await registry.register(service('other', other, handles('order.*')));
    await routed(bus, 'other');
    await bus.publish('order.placed', 5);
    await other.got(1);
    expect(site.posts).toEqual([]);
    await registry.updateService('orders', { health: { status: 'healthy', lastCheck: new Date() } });
    expect((await site.got(6)).sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect(site.posts.every(({ headers }) => headers['x-event-attempt'] === '1')).toBe(true);
  });

  test('a capability that goes takes its group with it; when it comes back, it is about what comes then', async () => {
    await begin([handles('order.*'), handles('user.*')]);
    await bus.publish('order.placed', 1);
    await bus.publish('user.created', 1);
    await site.got(2);
    await registry.updateService('orders', { capabilities: [handles('order.*')] });
    await until(async () => (await groupsOf('user.created')).length === 0, { timeoutMs: 5000 });
    await bus.publish('user.created', 2);
    await bus.publish('order.placed', 2);
    await site.got(3);
    await later();
    await registry.updateService('orders', { capabilities: [handles('order.*', 'user.*')] });
    await until(async () => (await routeOf(bus, 'orders'))?.patterns.length === 2);
    await bus.publish('user.created', 3);
    await bus.publish('order.placed', 3);
    await site.got(5);
    await settled('user.created');
    await settled('order.placed');
    const seen = site.posts.map(({ headers, body }) => `${headers['x-event-type']} ${JSON.parse(body).data}`);
    expect(seen.sort()).toEqual(['order.placed 1', 'order.placed 2', 'order.placed 3', 'user.created 1', 'user.created 3']);
    expect(await routeOf(bus, 'orders')).toMatchObject({ delivered: 5, failed: 0 });
  });

  test('unregister() deletes its group, with what waits, whichever process reads for it', async () => {
    await begin();
    const others = [await services.bus(), await services.bus()];
    await registry.updateService('orders', { health: { status: 'maintenance', lastCheck: new Date() } });
    for (const each of [bus, ...others]) await until(async () => (await routeOf(each, 'orders'))?.paused !== false);
    await bus.publish('order.placed', 1);
    expect(await groupsOf('order.placed')).toEqual(['service:orders']);
    await later();
    await registry.unregister('orders');
    await until(async () => (await groupsOf('order.placed')).length === 0, { timeoutMs: 5000 });
    for (const each of [bus, ...others]) expect(await routeOf(each, 'orders')).toBeUndefined();
    await registry.register(service('orders', site, handles('order.*')));
    await bus.publish('order.placed', 2);
    // Not that nothing else comes: a read under way may bring the group back as it was, in the moment of its end.
    await until(() => site.data.includes(2));
  });

  test('one that expired gets what came meanwhile when it is there again', async () => {
    bus = await services.bus();
    site = await services.site();
    const short = services.registry({ serviceTtlSeconds: 1 });
    await short.register(service('orders', site, handles('order.*')));
    await routed(bus, 'orders');
    await bus.publish('order.placed', 1);
    await site.got(1);
    await short.close();
    await until(async () => (await routeOf(bus, 'orders')) === undefined, { timeoutMs: 5000 });
    await bus.publish('order.placed', 2);
    await services.registry().register(service('orders', site, handles('order.*')));
    await bus.publish('order.placed', 3);
    expect((await site.got(3)).sort()).toEqual([1, 2, 3]);
  });

  test('two processes read for a service, and another takes the place of one that goes', async () => {
    await begin();
    const buses = [bus, await services.bus(), await services.bus(), await services.bus()];
    const reading = async () => {
      const routes = await Promise.all(buses.map((each) => routeOf(each, 'orders')));
      return buses.filter((_, n) => routes[n] !== undefined);
    };
    await until(async () => (await reading()).length === 2, { timeoutMs: 5000 });
    const [first] = await reading();
    buses.splice(buses.indexOf(first), 1);
    await first.shutdown();
    await until(async () => (await reading()).length === 2, { timeoutMs: 5000 });
    for (let n = 0; n < 50; n++) await buses[0].publish('order.placed', n);
    expect((await site.got(50)).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  });

  test('a group of the program under the name of a service holds up that service alone, and is told', async () => {
    registry = services.registry();
    bus = await services.bus({}, registry);
    await bus.subscribe('order.*', () => undefined, { group: 'service:orders', startFrom: 'latest' });
    const [orders, billing] = [await services.site(), await services.site()];
    await registry.register(service('orders', orders, handles('order.*')));
    await registry.register(service('billing', billing, handles('order.*')));
    await routed(bus, 'billing');
    await bus.publish('order.placed', 1);
    await billing.got(1);
    await until(async () => (await bus.getServiceRegistryIntegration()!.getStatus()).problem?.includes('service:orders'));
    expect(services.logged(/service:orders/)).toHaveLength(1);
    expect(orders.posts).toEqual([]);
  });

  describe('what may be asked', () => {
    test.each([
      ['deny', { deny: ['127.0.0.0/8'] }],
      ['allow', { allow: ['10.0.0.0/8'] }],
    ])('http.%s: a service that is not to be asked gets nothing, and that is logged once', async (_, http) => {
      registry = services.registry();
      bus = await services.bus({ serviceRegistry: { http } }, registry);
      site = await services.site();
      await registry.register(service('orders', site, handles('order.*')));
      await until(() => services.logged(/'orders' gets no events/).length > 0);
      await bus.publish('order.placed', 1);
      await registry.updateService('orders', { version: '1.0.1' });
      expect(await routeOf(bus, 'orders')).toBeUndefined();
      const found = await bus.getServiceRegistryIntegration()!.discoverContracts('orders');
      expect(found.refused).toEqual([{ service: 'orders', contract: '', reason: expect.stringMatching(/127\.0\.0\.1/) }]);
      await until(async () => (await registry.health('orders'))?.error !== undefined);
      expect(services.logged(/'orders' gets no events/)).toEqual([expect.stringMatching(/^warn .*127\.0\.0\.1/)]);
      expect(site.asked).toEqual([]);
    });

    test('http.allow: those that are named get their events', async () => {
      registry = services.registry();
      site = await services.site();
      const other = await services.site();
      bus = await services.bus({ serviceRegistry: { http: { allow: [`127.0.0.1:${site.port}`] } } }, registry);
      await registry.register(service('other', other, handles('order.*')));
      await registry.register(service('orders', site, handles('order.*')));
      await routed(bus, 'orders');
      await bus.publish('order.placed', 1);
      await site.got(1);
      expect(other.asked).toEqual([]);
    });
  });

  test('shutdown() waits for what is on its way, and leaves the rest to others', async () => {
    await begin();
    const hold = gate();
    site.events = async () => {
      await hold.opened;
      return 200;
    };
    for (let n = 0; n < 20; n++) await bus.publish('order.placed', n);
    await until(() => site.posts.length === 8);
    // A store in memory ends with the last bus that uses it.
    await services.bus({}, null);
    const ending = bus.shutdown();
    hold.open();
    await ending;
    const last = site.posts.length;
    expect(last).toBeLessThanOrEqual(20);
    bus = await services.bus({}, registry);
    await site.got(20);
    expect(site.posts.every(({ headers }) => headers['x-event-attempt'] === '1')).toBe(true);
  });
});

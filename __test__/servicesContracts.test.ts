/** Contracts that services offer at `/events/contracts`. */
import type { OSSAEventBus, ServiceRegistry } from '@bluefly/ossa';
import { contract, project } from './support/projects';
import { type Reply, type Site, service, useServices } from './support/services';
import { until } from './support/wait';
import { refusal, storesWithCluster } from './support/world';

/** A contract as a service gives it: its source is left out. */
function offered(name: string, over: object = {}): any {
  const { sourceProject: _, ...rest } = contract({ type: 'object', required: ['n'], properties: { n: { type: 'integer' } } }, { name });
  return { ...rest, eventTypes: [`${name}.made`], ...over };
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const services = useServices(kind);
  let registry: ServiceRegistry;
  let bus: OSSAEventBus;
  let site: Site;

  /** A bus that asks each service once, when it comes, and the service 'maker' whose project is without credentials. */
  async function begin(answer: Reply, { projectOver = {}, serviceRegistry = {} }: { projectOver?: object; serviceRegistry?: object } = {}) {
    registry = services.registry();
    bus = await services.bus({ serviceRegistry: { discoveryRefreshInterval: 3_600_000, ...serviceRegistry } }, registry);
    await bus.registerProject(project('maker', { credentials: undefined, ...projectOver }));
    site = await services.site();
    site.contracts = () => answer;
    await registry.register(service('maker', site));
  }

  const discover = (name?: string) => bus.getServiceRegistryIntegration()!.discoverContracts(name);
  const names = () =>
    bus
      .getAvailableContracts('maker')
      .map(({ name }) => name)
      .sort();

  test.each([
    ['a list', (contracts: any[]) => contracts],
    ["an object with 'contracts'", (contracts: any[]) => ({ contracts, page: 1 })],
  ])('%s of contracts is found by itself, and messages are held against them', async (_, shape) => {
    const tagged = offered('b', { metadata: { ...contract({}).metadata, tags: ['mine', 'discovered'] }, sourceProject: 'maker' });
    await begin({ status: 200, body: shape([offered('a'), tagged]) });
    await bus.registerProject(project('user'));
    await until(() => names().length === 2, { timeoutMs: 8000 });
    const [a, b] = bus.getAvailableContracts('maker').sort((x, y) => x.name.localeCompare(y.name));
    expect(a).toMatchObject({
      name: 'a',
      version: '1.0.0',
      sourceProject: 'maker',
      eventTypes: ['a.made'],
      metadata: { tags: ['discovered'] },
    });
    expect(b.metadata.tags).toEqual(['mine', 'discovered']);
    await bus.sendCrossProjectMessage('maker', 'user', 'a.made', { n: 1 });
    const error = await refusal('ERR_CONTRACT_VIOLATION', () => bus.sendCrossProjectMessage('maker', 'user', 'a.made', { n: 'one' }));
    expect(JSON.stringify(error.details)).toContain('/n');
    expect(site.asked.filter(({ path }) => path === '/events/contracts')).toHaveLength(1);
    expect(site.asked.find(({ path }) => path === '/events/contracts')?.headers['accept']).toBe('application/json');
    await until(async () => (await bus.getServiceRegistryIntegration()!.getStatus()).contracts.registered === 2);
    // Once more they are the same ones.
    expect(await discover()).toEqual({ registered: 2, refused: [] });
    expect(names()).toEqual(['a', 'b']);
  });

  test.each<[string, Reply]>([
    ['404', 404],
    ['204', 204],
    ['an empty list', { status: 200, body: [] }],
  ])('%s is: none', async (_, answer) => {
    await begin(answer);
    expect(await discover('maker')).toEqual({ registered: 0, refused: [] });
    expect(names()).toEqual([]);
  });

  test.each<[string, Reply, RegExp]>([
    ['500', 500, /HTTP status 500/],
    ['403', 403, /HTTP status 403/],
    ['no JSON', { status: 200, body: '<html>' }, /no JSON/],
    ['nothing', { status: 200, body: '' }, /no JSON/],
    ['a text', { status: 200, body: '"contracts"' }, /no list of contracts/],
    ['another object', { status: 200, body: { items: [] } }, /no list of contracts/],
    ['more than a thousand', { status: 200, body: Array.from({ length: 1001 }, () => ({})) }, /1000/],
    ['too much', { status: 200, body: `[${' '.repeat(40_000)}]` }, /longer than 32768 bytes/],
    ['no answer', 'hang', /within 400 ms/],
    ['a lost connection', 'close', /127\.0\.0\.1/],
  ])('%s is told as the reason, and nothing is registered', async (_, answer, reason) => {
    await begin(answer, { serviceRegistry: { http: { maxResponseBytes: 32_768, timeoutMs: 400 } } });
    const found = await discover('maker');
    expect(found).toEqual({ registered: 0, refused: [{ service: 'maker', contract: '', reason: expect.stringMatching(reason) }] });
    expect(names()).toEqual([]);
  });

  test('what is wrong is refused, each with its reason, and leaves the others', async () => {
    const body = [
      offered('stranger', { sourceProject: 'user' }),
      offered('broken', { schema: { type: 'no such type' } }),
      offered('unversioned', { version: 'one' }),
      offered('untagged', { metadata: { ...contract({}).metadata, tags: 'discovered' } }),
      offered('reach', { eventTypes: ['@user/x'] }),
      'no contract',
      null,
      { name: 5 },
      offered('good'),
    ];
    await begin({ status: 200, body });
    const found = await discover('maker');
    expect(found.registered).toBe(1);
    expect(found.refused.map(({ service, contract }) => [service, contract])).toEqual(
      ['stranger', 'broken', 'unversioned', 'untagged', 'reach', '', '', ''].map((name) => ['maker', name]),
    );
    const reasons = found.refused.map(({ reason }) => reason);
    for (const [n, reason] of [
      /sourceProject.*maker.*user/,
      /schema/,
      /version/,
      /tags/,
      /eventTypes/,
      /no object/,
      /no object/,
      /name/,
    ].entries()) {
      expect(reasons[n]).toMatch(reason);
    }
    expect(names()).toEqual(['good']);
    const { contracts } = await bus.getServiceRegistryIntegration()!.getStatus();
    expect(contracts.registered).toBeGreaterThanOrEqual(1);
    expect(contracts.refused).toBeGreaterThanOrEqual(8);
  });

  test('of a project whose secret is elsewhere they are refused, and taken by the process that has it', async () => {
    registry = services.registry();
    const owner = await services.bus({ serviceRegistry: { contractDiscovery: false } });
    bus = await services.bus({ serviceRegistry: { contractDiscovery: false } }, registry);
    await owner.registerProject(project('maker'));
    site = await services.site();
    site.contracts = () => ({ status: 200, body: [offered('a')] });
    await registry.register(service('maker', site));
    const { registered, refused } = await discover('maker');
    expect([registered, refused]).toEqual([0, [{ service: 'maker', contract: 'a', reason: expect.stringMatching(/'maker'.*secret/) }]]);
    expect(await owner.getServiceRegistryIntegration()!.discoverContracts('maker')).toEqual({ registered: 1, refused: [] });
    expect(owner.getAvailableContracts('maker').map(({ name }) => name)).toEqual(['a']);
  });

  test('of a service whose name is none for a project they are refused', async () => {
    await begin(404);
    const named = await services.site();
    named.contracts = () => ({ status: 200, body: [offered('a')] });
    await registry.register(service('eu/maker', named));
    const { registered, refused } = await discover('eu/maker');
    expect([registered, refused]).toEqual([
      0,
      [{ service: 'eu/maker', contract: 'a', reason: expect.stringMatching(/sourceProject.*eu\/maker/) }],
    ]);
  });

  test('refusals are logged once, however often they are found', async () => {
    await begin(
      { status: 200, body: [offered('stranger', { sourceProject: 'user' })] },
      { serviceRegistry: { discoveryRefreshInterval: 100 } },
    );
    await until(() => site.asked.filter(({ path }) => path.endsWith('/contracts')).length >= 3, { timeoutMs: 15_000 });
    expect(services.logged(/'stranger' that the service 'maker' offers is refused/)).toEqual([expect.stringMatching(/^warn /)]);
  });

  test('each service is asked by one process at a time, however many there are', async () => {
    await begin({ status: 200, body: [offered('a')] });
    await services.bus({ serviceRegistry: { discoveryRefreshInterval: 3_600_000 } });
    await services.bus({ serviceRegistry: { discoveryRefreshInterval: 3_600_000 } });
    const others = await Promise.all([1, 2, 3].map(() => services.site()));
    for (const [n, other] of others.entries()) await registry.register(service(`other-${n}`, other));
    const counts = () => [site, ...others].map(({ asked }) => asked.filter(({ path }) => path.endsWith('/contracts')).length);
    await until(() => counts().every((count) => count > 0), { timeoutMs: 10_000, show: counts });
    expect(counts()).toEqual([1, 1, 1, 1]);
  });

  test('contractDiscovery: false asks nobody by itself', async () => {
    await begin({ status: 200, body: [offered('a')] }, { serviceRegistry: { contractDiscovery: false } });
    const asking = await services.site();
    await services.bus({ serviceRegistry: { discoveryRefreshInterval: 50, contractDiscovery: false } });
    await registry.register(service('other', asking));
    // Probes go on, meanwhile.
    await until(() => asking.asked.length > 0);
    expect([...site.asked, ...asking.asked].filter(({ path }) => path.endsWith('/contracts'))).toEqual([]);
    expect(await discover('maker')).toEqual({ registered: 1, refused: [] });
  });

  test('without messages between projects there are none', async () => {
    registry = services.registry();
    bus = await services.bus({ crossProject: { enabled: false } }, registry);
    site = await services.site();
    await registry.register(service('maker', site));
    await until(() => site.asked.length > 0);
    expect((await refusal('ERR_DISABLED', () => discover())).message).toMatch(/crossProject\.enabled/);
    expect(site.asked.filter(({ path }) => path.endsWith('/contracts'))).toEqual([]);
    expect(bus.exportMetrics()).toContain('ossa_service_registry_services_total');
    expect((await registry.discover({ namePattern: 'ossa-event-bus' }))[0].capabilities.map(({ name }) => name)).toEqual(['event-bus']);
  });

  test('a service that is not there, or no name, is ERR_INVALID_ARGUMENT', async () => {
    await begin(404);
    expect((await refusal('ERR_INVALID_ARGUMENT', () => discover('nobody'))).details).toMatchObject({ argument: 'service' });
    for (const wrong of [5, {}, '']) await refusal('ERR_INVALID_ARGUMENT', () => discover(wrong as any));
  });
});

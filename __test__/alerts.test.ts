/** Alerts: each threshold, once an episode, told to listeners, as an event and to a webhook. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type AlertEvent, createOSSAEventBus, type DeepPartial, OSSAEventBus, type OSSAEventBusConfig } from '@bluefly/ossa';
import { Webhook } from 'standardwebhooks';
import { TestServer } from './support/server';
import { gate, pause, until } from './support/wait';
import { freshPrefix, redisUrl, refusal, stores } from './support/world';

type Alerting = DeepPartial<OSSAEventBusConfig['monitoring']['alerting']>;
type Told = ['+' | '-', AlertEvent & { resolvedAt?: Date }];

const open = new Set<OSSAEventBus>();
const servers = new Set<Server>();

afterEach(async () => {
  await Promise.all([...open].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
  open.clear();
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  servers.clear();
});

/** Thresholds that nothing in these tests passes, but for those that a test is about. */
const HIGH = {
  maxErrorRate: 100,
  maxLatency: 60_000,
  maxQueueDepth: 1e6,
  minThroughput: 0,
  maxMemoryUsage: 100,
  maxConnectionUtilization: 100,
};

async function create(alerting: Alerting, url = 'memory://', over: DeepPartial<OSSAEventBusConfig> = {}) {
  const logs: string[] = [];
  const write = (level: string) => (message: string) => void logs.push(`${level} ${message}`);
  const logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  const bus = new OSSAEventBus(null, {
    orchestration: { enabled: false },
    ...over,
    eventBus: { redis: { url, keyPrefix: freshPrefix() }, logger },
    monitoring: {
      metrics: { collectionInterval: 20, aggregationWindows: [1, 60] },
      alerting: { ...alerting, thresholds: { ...HIGH, ...alerting.thresholds } },
    },
  });
  const told: Told[] = [];
  bus.on('alert:triggered', (alert: AlertEvent) => void told.push(['+', alert]));
  bus.on('alert:resolved', (alert: AlertEvent) => void told.push(['-', alert]));
  open.add(bus);
  await bus.initialize();
  return { bus, told, logs };
}

/** One receiver; answers with what `answer` says, and notes what it got. */
async function receiver(answer: (n: number, request: IncomingMessage) => { status: number; headers?: Record<string, string> }) {
  const got: Array<{ headers: Record<string, string>; body: string }> = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      got.push({ headers: request.headers as Record<string, string>, body });
      const { status, headers } = answer(got.length, request);
      response.writeHead(status, headers).end();
    });
  });
  servers.add(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { got, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?token=very-secret-token` };
}

/** Ten deliveries that fail. */
async function fail(bus: OSSAEventBus) {
  await bus.subscribe('doomed', () => Promise.reject(new Error('no')), { group: 'g', errorStrategy: 'dlq' });
  await bus.publishBatch(Array.from({ length: 10 }, () => ({ eventType: 'doomed', data: 1 })));
}

describe.each(stores)('on %s', (kind) => {
  const url = () => (kind === 'memory' ? 'memory://' : redisUrl());

  test('the error rate: raised once, told as an event, over when the window is', async () => {
    const { bus, told } = await create({ thresholds: { maxErrorRate: 5 } }, url());
    const events: any[] = [];
    await bus.subscribe('performance.threshold', ({ data }) => void events.push(data), { group: 'watch' });
    await fail(bus);
    await until(() => told.length === 1);
    const [sign, alert] = told[0]!;
    expect(sign).toBe('+');
    expect(alert).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      severity: 'critical',
      title: expect.any(String),
      description: expect.stringContaining('more than 5 %'),
      timestamp: expect.any(Date),
      metric: 'errorRate',
      currentValue: 100,
      threshold: 5,
      context: { service: 'ossa-event-bus', pid: process.pid },
    });
    expect(bus.getActiveAlerts()).toEqual([expect.objectContaining({ id: alert.id, metric: 'errorRate', timestamp: alert.timestamp })]);
    expect((await bus.getDashboardData()).activeAlerts.map(({ id }) => id)).toEqual([alert.id]);
    expect(bus.exportMetrics()).toContain('ossa_eventbus_alerts_active{metric="errorRate"} 1\n');
    expect((await bus.healthCheck()).components['monitoring']).toMatchObject({ status: 'degraded' });
    await until(() => events.length === 1);
    expect(events[0]).toMatchObject({
      metric: 'errorRate',
      threshold: 5,
      currentValue: 100,
      severity: 'critical',
      source: 'ossa-event-bus',
    });

    await until(() => told.length === 2);
    const over = { id: alert.id, currentValue: 0, resolvedAt: expect.any(Date), description: expect.stringContaining('0 % again') };
    expect(told[1]).toEqual(['-', expect.objectContaining(over)]);
    expect(bus.getActiveAlerts()).toEqual([]);
    expect(bus.exportMetrics()).toContain('ossa_eventbus_alerts_active{metric="errorRate"} 0\n');
    // Another episode is another alert.
    await bus.publishBatch(Array.from({ length: 10 }, () => ({ eventType: 'doomed', data: 1 })));
    await until(() => told.length === 4);
    expect(told.map(([sign]) => sign).join('')).toBe('+-+-');
    expect(told[2]![1].id).not.toBe(alert.id);
  });

  test('latency: of handlers that take long', async () => {
    const { bus, told } = await create({ thresholds: { maxLatency: 50 } }, url());
    await bus.subscribe('slow', () => pause(80), { group: 'g' });
    await bus.publishBatch(Array.from({ length: 6 }, () => ({ eventType: 'slow', data: 1 })));
    await until(() => told.length === 2);
    expect(told[0]![1]).toMatchObject({ metric: 'latency', severity: 'warning' });
    expect(told[0]![1].currentValue).toBeGreaterThanOrEqual(75);
  });

  test('queue depth: of what handlers hold and what is not read', async () => {
    const { bus, told } = await create({ thresholds: { maxQueueDepth: 20 } }, url());
    const held = gate();
    await bus.subscribe('held', () => held.opened, { group: 'g', maxUnacknowledged: 2 });
    await bus.publishBatch(Array.from({ length: 30 }, () => ({ eventType: 'held', data: 1 })));
    await until(() => told.length === 1);
    expect(told[0]![1]).toMatchObject({ metric: 'queueDepth', currentValue: 30, threshold: 20 });
    held.open();
    await until(() => told.length === 2);
    expect(told[1]![0]).toBe('-');
  });
});

test('throughput: too little of it, once a window was measured', async () => {
  const { bus, told } = await create({ thresholds: { minThroughput: 20 } });
  await until(() => told.length === 1);
  expect(told[0]![1]).toMatchObject({ metric: 'throughput', threshold: 20 });
  const stop = Date.now() + 15_000;
  while (told.length === 1 && Date.now() < stop) {
    await bus.publishBatch(Array.from({ length: 10 }, () => ({ eventType: 'busy', data: 1 })));
    await pause(50);
  }
  expect(told[1]?.[0]).toBe('-');
});

test('memory: percent of what the process may have', async () => {
  const { told } = await create({ thresholds: { maxMemoryUsage: 0 } });
  await until(() => told.length === 1);
  expect(told[0]![1]).toMatchObject({ metric: 'memoryUsage', threshold: 0 });
});

test('connections: places in use while the server stands still', async () => {
  const server = await TestServer.start();
  try {
    const { bus, told } = await create({ thresholds: { maxConnectionUtilization: 0.1 } }, server.url);
    server.pause();
    const sent = bus.publish('t', 1).catch(() => undefined);
    await until(() => told.length === 1);
    expect(told[0]![1]).toMatchObject({ metric: 'connectionUtilization', threshold: 0.1 });
    server.resume();
    await sent;
    await until(() => told.length === 2);
  } finally {
    await server.stop();
  }
});

test('switched off, nothing is judged', async () => {
  const { bus, told } = await create({ enabled: false, thresholds: { maxErrorRate: 0, maxMemoryUsage: 0 } });
  await fail(bus);
  const collected = () => bus.getMonitoring()?.getMonitoringStats().metricsCollected ?? 0;
  await until(() => bus.getMetrics().eventsFailed === 10);
  const then = collected();
  await until(() => collected() > then + 3);
  expect([told, bus.getActiveAlerts()]).toEqual([[], []]);
});

describe('the webhook', () => {
  const webhookSecret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

  test('gets both words of an episode, signed as Standard Webhooks says', async () => {
    const { got, url } = await receiver(() => ({ status: 200 }));
    const { bus, told, logs } = await create({ webhookUrl: url, webhookSecret, thresholds: { maxErrorRate: 5 } });
    await fail(bus);
    await until(() => got.length === 2);
    const hook = new Webhook(webhookSecret);
    const [raised, over] = got.map(({ body, headers }) => hook.verify(body, headers) as any);
    const [, alert] = told[0]!;
    expect(raised).toEqual({
      type: 'alert.triggered',
      timestamp: alert.timestamp.toISOString(),
      data: { ...alert, timestamp: alert.timestamp.toISOString() },
    });
    expect(over).toMatchObject({ type: 'alert.resolved', data: { id: alert.id, resolvedAt: told[1]![1].resolvedAt?.toISOString() } });
    expect(got.map(({ headers }) => headers['webhook-id'])).toEqual([`${alert.id}.triggered`, `${alert.id}.resolved`]);
    expect(got[0]!.headers['content-type']).toBe('application/json');
    expect(() => new Webhook(`whsec_${Buffer.alloc(32, 8).toString('base64')}`).verify(got[0]!.body, got[0]!.headers)).toThrow();
    expect(logs.join('\n')).not.toMatch(/very-secret-token|whsec_/);
  });

  test('of one alert does not hold up another, and shutdown tries once more what waits, and says what nobody took', async () => {
    const { got, url } = await receiver(() => ({ status: 503, headers: { 'retry-after': '60' } }));
    const { bus, logs } = await create({ webhookUrl: url, thresholds: { maxErrorRate: 5, maxMemoryUsage: 0 } });
    await fail(bus);
    const metrics = () => new Set(got.map(({ body }) => JSON.parse(body).data.metric));
    await until(() => metrics().size === 2);
    const asked = got.length;
    await bus.shutdown();
    expect(got.length).toBeGreaterThanOrEqual(asked + 2);
    expect(
      logs.filter((line) => line.startsWith('warn') && line.includes('webhookUrl did not take an alert')).length,
    ).toBeGreaterThanOrEqual(2);
  });

  test('is asked again with the same id where it cannot take it now', async () => {
    const { got, url } = await receiver((n) => (n === 1 ? { status: 503, headers: { 'retry-after': '0' } } : { status: 204 }));
    const { bus } = await create({ webhookUrl: url, thresholds: { maxErrorRate: 5 } });
    await fail(bus);
    await until(() => got.length === 3);
    expect(got[0]!.body).toBe(got[1]!.body);
    expect(got[0]!.headers['webhook-id']).toBe(got[1]!.headers['webhook-id']);
    expect(got[0]!.headers).not.toHaveProperty('webhook-signature');
    expect(JSON.parse(got[2]!.body).type).toBe('alert.resolved');
  });

  test.each([
    ['refuses', { status: 400 }, '400'],
    ['redirects', { status: 307, headers: { location: 'http://127.0.0.1:1/' } }, 'redirect'],
  ])('that %s is not asked again, and a warning says so without the URL', async (_, answer, why) => {
    const { got, url } = await receiver(() => answer);
    const { bus, told, logs } = await create({ webhookUrl: url, thresholds: { maxErrorRate: 5 } });
    await fail(bus);
    await until(() => told.length === 2 && got.length === 2);
    await until(() => logs.some((line) => line.startsWith('warn') && line.includes('webhookUrl') && line.includes(why)));
    expect(logs.join('\n')).not.toContain('very-secret-token');
  });

  test('that is away does not hold up anything, shutdown included', async () => {
    const { bus, told } = await create({ webhookUrl: 'http://127.0.0.1:1/', thresholds: { maxErrorRate: 5 } });
    await fail(bus);
    await until(() => told.length === 2);
    const began = Date.now();
    await bus.shutdown();
    expect(Date.now() - began).toBeLessThan(8000);
  });

  test.each([
    ['a secret that is none', { webhookUrl: 'http://127.0.0.1:1/', webhookSecret: 'very-secret' }, 'monitoring.alerting.webhookSecret'],
    ['a secret without a URL', { webhookSecret }, 'monitoring.alerting.webhookSecret'],
    ['a URL that is none', { webhookUrl: 'ftp://x' }, 'monitoring.alerting.webhookUrl'],
  ])('%s is refused with its path', async (_, alerting, path) => {
    const error = await refusal('ERR_INVALID_CONFIG', () => createOSSAEventBus(null, { monitoring: { alerting } }));
    expect(error.details?.['path']).toBe(path);
    expect(error.message).not.toContain('very-secret');
  });
});

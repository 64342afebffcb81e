/** Metrics, analytics, the dashboard's figures, groups, health: what was measured against what was done. */
import { spawnSync } from 'node:child_process';
import { createOSSAEventBus, type DeepPartial, OSSAEventBus, type OSSAEventBusConfig } from '@bluefly/ossa';
import { TestServer } from './support/server';
import { gate, pause, until, within } from './support/wait';
import { clusterNodes, freshPrefix, redisUrl, refusal, type StoreKind, storesWithCluster } from './support/world';

const open = new Set<OSSAEventBus>();

afterEach(async () => {
  await Promise.all([...open].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
  open.clear();
});

function addressOf(kind: StoreKind, prefix: string) {
  if (kind === 'memory') return { url: `memory://${prefix.replaceAll(':', '-')}` };
  return kind === 'cluster' ? { cluster: { nodes: clusterNodes() } } : { url: redisUrl() };
}

async function create(kind: StoreKind, over: DeepPartial<OSSAEventBusConfig> = {}, prefix = freshPrefix()): Promise<OSSAEventBus> {
  const quick = { collectionInterval: 50 };
  const bus = await createOSSAEventBus(null, {
    orchestration: { enabled: false },
    ...over,
    eventBus: { ...over.eventBus, redis: { ...addressOf(kind, prefix), keyPrefix: prefix, ...over.eventBus?.redis } },
    monitoring: { ...over.monitoring, metrics: { ...quick, ...over.monitoring?.metrics } },
  });
  open.add(bus);
  return bus;
}

/** Value of a sample: `metric('name', { label: 'value' })`; undefined where there is none. */
function reader(text: string) {
  return (name: string, labels: Record<string, string> = {}): number | undefined => {
    const inner = Object.entries(labels)
      .map(([label, value]) => `${label}="${value}"`)
      .join(',');
    const start = inner === '' ? `${name} ` : `${name}{${inner}} `;
    const line = text.split('\n').find((line) => line.startsWith(start));
    return line === undefined ? undefined : Number(line.slice(start.length));
  };
}

/** 90 events of two types, of which every third fails once and comes again, and ten go to the dead letters. */
async function workload(bus: OSSAEventBus) {
  const counts = { published: 0, handled: 0, thrown: 0 };
  const failing = new Set<number>();
  const retry = { maxAttempts: 3, initialDelay: 10, jitter: 'none' } as const;
  const handler = async ({ data }: { data: any }) => {
    await pause(5);
    if (data.n % 3 === 0 && !failing.has(data.n)) {
      failing.add(data.n);
      counts.thrown++;
      throw new Error(`order ${data.n} is not there`);
    }
    counts.handled++;
  };
  await bus.subscribe('order.placed', handler, { group: 'shop', retry });
  const refuse = () => {
    counts.thrown++;
    throw new TypeError('no');
  };
  await bus.subscribe('order.refused', refuse, { group: 'shop', errorStrategy: 'dlq' });
  await bus.publishBatch(Array.from({ length: 80 }, (_, n) => ({ eventType: 'order.placed', data: { n } })));
  await bus.publishBatch(Array.from({ length: 10 }, (_, n) => ({ eventType: 'order.refused', data: { n } })));
  counts.published = 90;
  await until(() => counts.handled === 80 && bus.getMetrics().eventsConsumed === 80 && bus.getMetrics().eventsFailed === 37);
  return counts;
}

describe.each(storesWithCluster)('on %s', (kind) => {
  test('metrics, analytics, dashboard and groups agree with what was counted outside', async () => {
    const prefix = freshPrefix();
    // An alert would be one event more.
    const quiet = { monitoring: { alerting: { enabled: false } } };
    const bus = await create(kind, quiet, prefix);
    const counts = await workload(bus);
    expect(counts).toEqual({ published: 90, handled: 80, thrown: 37 });

    await until(() => reader(bus.exportMetrics())('ossa_eventbus_group_pending', { group: 'shop' }) === 0);
    const text = bus.exportMetrics();
    const metric = reader(text);
    const of = (event_type: string) => ({ event_type });
    expect(metric('ossa_eventbus_events_published_total', of('order.placed'))).toBe(80);
    expect(metric('ossa_eventbus_events_published_total', of('order.refused'))).toBe(10);
    expect(metric('ossa_eventbus_events_consumed_total', of('order.placed'))).toBe(80);
    expect(metric('ossa_eventbus_events_failed_total', of('order.placed'))).toBe(27);
    expect(metric('ossa_eventbus_events_retried_total', of('order.placed'))).toBe(27);
    expect(metric('ossa_eventbus_events_failed_total', of('order.refused'))).toBe(10);
    expect(metric('ossa_eventbus_events_dead_lettered_total', { reason: 'handler' })).toBe(10);
    expect(metric('ossa_eventbus_processing_seconds_count', of('order.placed'))).toBe(107);
    expect(metric('ossa_eventbus_processing_seconds_sum', of('order.placed'))).toBeGreaterThan(107 * 0.004);
    expect(metric('ossa_eventbus_end_to_end_seconds_count', of('order.placed'))).toBe(80);
    expect(metric('ossa_eventbus_publish_seconds_count', of('order.placed'))).toBe(80);
    expect(metric('ossa_eventbus_publish_seconds_bucket', { event_type: 'order.placed', le: '+Inf' })).toBe(80);
    expect(metric('ossa_eventbus_group_pending', { group: 'shop' })).toBe(0);
    expect(metric('ossa_eventbus_subscriptions')).toBe(2);
    expect(metric('ossa_eventbus_connected')).toBe(1);
    expect(metric('ossa_system_memory_used_bytes')).toBeGreaterThan(10_000_000);
    expect(metric('ossa_system_memory_limit_bytes')).toBeGreaterThan(metric('ossa_system_memory_used_bytes') as number);
    expect(metric('ossa_system_cpu_usage_percent')).toBeGreaterThanOrEqual(0);
    expect(metric('ossa_system_uptime_seconds')).toBeGreaterThan(0);

    const { total, byEventType, windowSeconds } = bus.getAnalytics();
    expect(windowSeconds).toBe(60);
    expect(total).toMatchObject({ published: 90, consumed: 80, failed: 37, retried: 27, deadLettered: 10, expired: 0 });
    expect(total.errorRate).toBeCloseTo((37 / 117) * 100, 5);
    expect(byEventType.map(({ eventType, published }) => [eventType, published])).toEqual([
      ['order.placed', 80],
      ['order.refused', 10],
    ]);
    const { processingTime, endToEndTime, publishTime } = byEventType[0]!;
    expect([processingTime.count, endToEndTime.count, publishTime.count]).toEqual([107, 80, 80]);
    expect(processingTime.p50).toBeGreaterThanOrEqual(4.5);
    expect(processingTime.p50).toBeLessThanOrEqual(processingTime.p95);
    expect(processingTime.p99).toBeLessThanOrEqual(processingTime.max);
    expect(bus.getMonitoring()?.getAnalytics(300).total.published).toBe(90);

    // What Redis counts is what all processes did: a second one sees it, too.
    const other = await create(kind, quiet, prefix);
    for (const each of [bus, other]) {
      const { overview, topMetrics, realtime } = await each.getDashboardData();
      expect(overview.totalEvents).toBe(90);
      expect(topMetrics.topEventTypes).toEqual([
        { type: 'order.placed', count: 80 },
        { type: 'order.refused', count: 10 },
      ]);
      expect(Object.values(realtime).map((points) => points.length)).toEqual([30, 30, 30, 30, 30]);
      expect(realtime.timestamp.every((at, i, all) => i === 0 || at.getTime() - all[i - 1]!.getTime() === 10_000)).toBe(true);
    }
    await until(async () => (await bus.getDashboardData()).realtime.eventsPerSecond.reduce((sum, each) => sum + each, 0) > 11.6);
    const { realtime, topMetrics, overview } = await bus.getDashboardData();
    expect(realtime.eventsPerSecond.reduce((sum, each) => sum + each * 10, 0)).toBeCloseTo(117, 5);
    expect(realtime.latency.some((ms) => ms > 4)).toBe(true);
    expect(overview.errorRate).toBeCloseTo((37 / 117) * 100, 5);
    expect(topMetrics.errorsByType).toEqual([
      { error: 'order # is not there', count: 27 },
      { error: 'no', count: 10 },
    ]);
    expect(topMetrics.slowestOperations[0]?.operation).toMatch(/^(process|publish) order\./);
    expect(topMetrics.slowestOperations.map(({ operation }) => operation)).toContain('process order.placed');

    const groups = await other.getGroups();
    expect(groups).toEqual([
      { eventType: 'order.placed', group: 'shop', pending: 0, lag: 0, consumers: [{ name: expect.any(String), alive: true }] },
      { eventType: 'order.refused', group: 'shop', pending: 0, lag: 0, consumers: [{ name: expect.any(String), alive: true }] },
    ]);
  });

  test('queue depth is what waits for the groups of this process, and of no others', async () => {
    const prefix = freshPrefix();
    const [bus, other] = [await create(kind, {}, prefix), await create(kind, {}, prefix)];
    const held = gate();
    await bus.subscribe('slow', () => held.opened, { group: 'slow', maxUnacknowledged: 3 });
    await bus.publishBatch(Array.from({ length: 25 }, () => ({ eventType: 'slow', data: 1 })));
    await until(() => reader(bus.exportMetrics())('ossa_eventbus_queue_depth') === 25);
    const metric = reader(bus.exportMetrics());
    const group = { group: 'slow' };
    expect((metric('ossa_eventbus_group_pending', group) as number) + (metric('ossa_eventbus_group_lag', group) as number)).toBe(25);
    expect(metric('ossa_eventbus_events_in_flight')).toBeGreaterThanOrEqual(3);
    await until(() => reader(other.exportMetrics())('ossa_eventbus_queue_depth') === 0);
    held.open();
    await until(() => reader(bus.exportMetrics())('ossa_eventbus_queue_depth') === 0);
  });
});

describe('limits', () => {
  test('event types beyond a hundred are counted together', async () => {
    const bus = await create('memory');
    await bus.publishBatch(Array.from({ length: 150 }, (_, n) => ({ eventType: `kind.${n}`, data: n })));
    const text = bus.exportMetrics();
    expect(text.split('\n').filter((line) => line.startsWith('ossa_eventbus_events_published_total{')).length).toBe(101);
    expect(reader(text)('ossa_eventbus_events_published_total', { event_type: 'other' })).toBe(50);
    const { byEventType, total } = bus.getAnalytics();
    expect([byEventType.length, total.published]).toEqual([101, 150]);
    expect(byEventType[0]).toMatchObject({ eventType: 'other', published: 50 });
    // Redis counts every type.
    expect((await bus.getDashboardData()).overview.totalEvents).toBe(150);
  });

  test('a window that is not configured is refused, and says which are', async () => {
    const bus = await create('memory', { monitoring: { metrics: { aggregationWindows: [10, 120] } } });
    expect(bus.getAnalytics().windowSeconds).toBe(10);
    expect(bus.getAnalytics(120).windowSeconds).toBe(120);
    for (const wrong of [60, 0, -1, 10.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.getAnalytics(wrong));
      expect(error.message).toMatch(/10, 120/);
    }
    await refusal('ERR_INVALID_ARGUMENT', () => bus.getAnalytics('60' as any));
  });

  test('history is made of windows that follow each other', async () => {
    const bus = await create('memory', { monitoring: { metrics: { aggregationWindows: [1], retentionPeriod: 60_000 } } });
    let published = 0;
    await until(async () => {
      await bus.publish('tick', 1);
      published++;
      return bus.getAnalytics().history.length >= 3;
    });
    const { history, from, to } = bus.getAnalytics();
    expect(to.getTime() - from.getTime()).toBeLessThan(1300);
    for (const [i, span] of history.entries()) {
      expect(span.to.getTime() - span.from.getTime()).toBeGreaterThanOrEqual(1000);
      if (i > 0) expect(span.from).toEqual(history[i - 1]!.to);
    }
    const told = history.reduce((sum, { total }) => sum + total.published, 0);
    expect(told).toBeGreaterThan(0);
    expect(told).toBeLessThanOrEqual(published);
  });

  test('with metrics off there are none, alerts still work, and the key is named', async () => {
    const bus = await create('memory', { monitoring: { metrics: { enabled: false } } });
    for (const call of [() => bus.exportMetrics(), () => bus.getAnalytics(), () => bus.getDashboardData()]) {
      const error = await refusal('ERR_DISABLED', call);
      expect([error.message, error.details?.['path']]).toEqual([
        expect.stringContaining('monitoring.metrics.enabled'),
        'monitoring.metrics.enabled',
      ]);
    }
    expect(bus.getActiveAlerts()).toEqual([]);
    expect(bus.getMonitoring()?.getMonitoringStats().metricsCollected).toBeGreaterThanOrEqual(0);
  });
});

describe('health', () => {
  const quick = { eventBus: { redis: { connectTimeoutMs: 500, commandTimeoutMs: 500 } } };

  test('every component has details, and all is well', async () => {
    const bus = await create('redis', { orchestration: { enabled: true } });
    const health = await bus.healthCheck();
    expect(health).toMatchObject({ status: 'healthy', timestamp: expect.any(Date) });
    const names = ['eventBus', 'redis', 'process', 'crossProject', 'orchestration', 'monitoring'];
    expect(Object.keys(health.components)).toEqual(names);
    for (const name of names) expect(health.components[name]).toEqual({ status: 'healthy', details: expect.any(Object) });
    expect(await bus.getMonitoring()?.healthCheck()).toMatchObject({ status: 'healthy' });
  });

  test('a server that is away, or stands still, makes it unhealthy in time; it comes back', async () => {
    const server = await TestServer.start();
    try {
      const bus = await create('redis', {
        eventBus: { redis: { ...quick.eventBus.redis, url: server.url } },
        monitoring: { healthCheck: { timeout: 1000, interval: 50 } },
      });
      const heard: any[] = [];
      bus.on('health:status:changed', (event) => heard.push(event));
      server.pause();
      const still = await within(3000, 'healthCheck()', bus.healthCheck());
      expect(still).toMatchObject({ status: 'unhealthy', components: { redis: { status: 'unhealthy' } } });
      server.resume();
      await until(async () => (await bus.healthCheck()).status === 'healthy');
      await server.kill();
      await until(async () => (await bus.healthCheck()).status === 'unhealthy');
      await until(() => reader(bus.exportMetrics())('ossa_eventbus_connected') === 0);
      // What is known is still told.
      expect(bus.getAnalytics().total.published).toBeGreaterThanOrEqual(0);
      expect((await bus.getDashboardData()).overview.status).toBe('unhealthy');
      await until(() => heard.some(({ status }) => status === 'unhealthy'));
      await server.start();
      await until(async () => (await bus.healthCheck()).status === 'healthy');
      await until(() => heard.at(-1)?.status === 'healthy');
      expect(reader(bus.exportMetrics())('ossa_eventbus_reconnects_total')).toBeGreaterThanOrEqual(1);
      expect(bus.getMonitoring()?.getMonitoringStats().healthHistorySize).toBeGreaterThan(0);
    } finally {
      await server.stop();
    }
  });

  test('a part that does not answer in time is unhealthy, and says so', async () => {
    const server = await TestServer.start();
    try {
      const bus = await create('redis', { eventBus: { redis: { url: server.url } }, monitoring: { healthCheck: { timeout: 200 } } });
      server.pause();
      const health = await within(2000, 'healthCheck()', bus.healthCheck());
      expect(health.components['redis']).toEqual({
        status: 'unhealthy',
        details: { code: 'ERR_TIMEOUT', error: expect.stringContaining('200 ms') },
      });
      server.resume();
    } finally {
      await server.stop();
    }
  });

  test.each([
    ['criticalErrorRate', { criticalErrorRate: 10 }, 'deliveries failed'],
    ['criticalLatency', { criticalLatency: 1 }, 'ms'],
    ['criticalMemoryUsage', { criticalMemoryUsage: 0 }, 'memory'],
  ])('%s makes it unhealthy though the server is there', async (_, criticalThresholds, problem) => {
    const bus = await create('memory', {
      monitoring: {
        alerting: { enabled: false },
        healthCheck: { criticalThresholds: { criticalErrorRate: 100, ...criticalThresholds } },
      },
    });
    await workload(bus);
    await until(async () => (await bus.healthCheck()).status === 'unhealthy');
    const { components } = await bus.healthCheck();
    expect(components['process']).toMatchObject({ status: 'unhealthy', details: { problems: [expect.stringContaining(problem)] } });
    expect(components['redis']).toMatchObject({ status: 'healthy' });
    expect((await bus.getDashboardData()).overview.status).toBe('unhealthy');
  });

  test('before initialize and after shutdown it is unhealthy, and never rejects', async () => {
    const bus = new OSSAEventBus(null, { eventBus: { redis: { url: 'memory://' } } });
    expect((await bus.healthCheck()).status).toBe('unhealthy');
    await bus.initialize();
    await bus.shutdown();
    expect((await bus.healthCheck()).status).toBe('unhealthy');
  });

  test('getStatus has the figures of the monitoring', async () => {
    const bus = await create('memory');
    await until(async () => ((await bus.getStatus()).monitoring?.metricsCollected ?? 0) > 2);
    expect((await bus.getStatus()).monitoring).toEqual({
      metricsCollected: expect.any(Number),
      activeTraces: 0,
      activeAlerts: 0,
      healthHistorySize: expect.any(Number),
      uptimeSeconds: expect.any(Number),
    });
  });
});

const PROMTOOL = spawnSync('promtool', ['--version']).status === 0;

(PROMTOOL ? test : test.skip)(
  `promtool accepts the metrics${PROMTOOL ? '' : ' (skipped: promtool is missing, apt-get install prometheus)'}`,
  async () => {
    const bus = await create('memory', { orchestration: { enabled: true } });
    await workload(bus);
    const { status, stderr, stdout } = spawnSync('promtool', ['check', 'metrics'], { input: bus.exportMetrics(), encoding: 'utf8' });
    // The names are the specification's; nothing else is found.
    const given = ['ossa_agent_orchestration_pools_total non-counter metrics should not have "_total" suffix'];
    expect(
      `${stdout}${stderr}`
        .trim()
        .split('\n')
        .filter((line) => line !== '' && !given.includes(line)),
    ).toEqual([]);
    expect([0, 3]).toContain(status);
  },
);

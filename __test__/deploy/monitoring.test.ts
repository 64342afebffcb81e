/** docs/monitoring.md, which rules and dashboard are held against, is held against what a bus exports. */
import { spawnSync } from 'node:child_process';
import { documentedMetrics, needing, read } from '../support/deployment';
import { OSSAEventBus, ServiceRegistry } from '../support/package';
import { until } from '../support/wait';
import { freshPrefix, redisUrl, refusal } from '../support/world';

jest.setTimeout(60_000);

/** What is exported only when something goes wrong that does not go wrong here: spans that no receiver takes, an alert. */
const ABSENT = ['ossa_eventbus_alerts_active', 'ossa_tracing_spans_dropped_total'];

/** What a bus exports to which everything happened. */
async function exported(): Promise<string> {
  const redis = { url: redisUrl(), keyPrefix: freshPrefix() };
  const registry = new ServiceRegistry({ redis: { ...redis, keyPrefix: freshPrefix() } });
  const bus = new OSSAEventBus(registry, {
    eventBus: { redis, logger: { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined } },
    monitoring: { metrics: { collectionInterval: 100 } },
  });
  try {
    await bus.initialize();
    let attempts = 0;
    const retry = { maxAttempts: 1, initialDelay: 1, maxDelay: 1, jitter: 'none' } as const;
    const fails = () => {
      attempts++;
      throw new Error('as it was told to');
    };
    await bus.subscribe('doc.fails', fails, { group: 'g', retry });
    await bus.subscribe('doc.works', () => undefined, { group: 'g' });
    await bus.publish('doc.fails', 1);
    await bus.publish('doc.works', 1);
    await bus.createStream('doc.full', { maxLength: 1, retention: 'count', retentionValue: 0 });
    await bus.subscribe('doc.full', () => undefined, { group: 'g', autoAck: false });
    await bus.publish('doc.full', 1);
    await refusal('ERR_STREAM_FULL', () => bus.publish('doc.full', 2));
    for (const projectId of ['a', 'b']) {
      await bus.registerProject({ projectId, name: projectId, namespace: projectId, allowedEventTypes: ['**'], allowedTargets: ['*'] });
    }
    await bus.sendCrossProjectMessage('a', 'b', 'doc.message', 1);
    await until(async () => attempts === 2 && (await bus.deadLetters.count()) === 1);
    // Gauges are sampled, and services are told after they were looked at.
    const sampled = /^ossa_eventbus_group_lag\{/m;
    const services = /^ossa_service_registry_services_total\{/m;
    await until(() => sampled.test(bus.exportMetrics()) && services.test(bus.exportMetrics()), { show: () => bus.exportMetrics() });
    return bus.exportMetrics();
  } finally {
    await bus.shutdown({ drainTimeoutMs: 0 });
    await registry.close();
  }
}

let text: string;
beforeAll(async () => {
  text = await exported();
});

test('every metric is in the table with its type, and all of the table are exported', () => {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));
  const table = new Map(documentedMetrics().map(({ name, type }) => [name, type]));
  expect([...types].filter(([name, type]) => table.get(name as string) !== type)).toEqual([]);
  expect([...table.keys()].filter((name) => !types.has(name) && !ABSENT.includes(name))).toEqual([]);
});

test('every sample has the labels of the table', () => {
  const metrics = documentedMetrics();
  for (const [, sample, labels = ''] of text.matchAll(/^(ossa_\w+)(?:\{(.*)\})? \S+$/gm)) {
    const metric =
      metrics.find(({ name }) => name === sample) ?? metrics.find(({ name }) => name === sample?.replace(/_(bucket|sum|count)$/, ''));
    const its = [...labels.matchAll(/(\w+)="/g)].map(([, label]) => label as string).filter((label) => label !== 'le');
    expect([sample, its.sort()]).toEqual([sample, [...(metric?.labels ?? [])].sort()]);
  }
});

test('every metric says what it is', () => {
  const helped = new Set([...text.matchAll(/^# HELP (\S+) \S/gm)].map(([, name]) => name));
  expect([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name).filter((name) => !helped.has(name))).toEqual([]);
});

needing('promtool')('promtool finds fault with nothing but the names that are given, which the document lists', () => {
  const { stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  const found = `${stdout}${stderr}`
    .trim()
    .split('\n')
    .filter((line) => line !== '');
  const [, told = ''] = /`promtool check metrics` has something to say of them:([\s\S]*?)\n\n/.exec(read('docs/monitoring.md')) ?? [];
  const names = [...told.matchAll(/`(ossa_\w+)`/g)].map(([, name]) => name as string);
  expect(names.length).toBeGreaterThan(0);
  expect(found.filter((line) => !names.some((name) => line.startsWith(`${name} `)))).toEqual([]);
});

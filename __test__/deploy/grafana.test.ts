/** The Grafana dashboard: its queries are PromQL over metrics that are exported, and it is laid out as Grafana does. */
import { asked, documentedMetrics, read, sampleNames, yaml } from '../support/deployment';

const dashboard = JSON.parse(read('deploy/grafana/ossa-event-bus.json'));

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  gridPos: { x: number; y: number; w: number; h: number };
  datasource?: { uid: string };
  targets?: Array<{ refId: string; expr: string; legendFormat: string; datasource: { uid: string } }>;
}
const panels: Panel[] = dashboard.panels;
const graphs = panels.filter(({ type }) => type !== 'row');

/** A query as Prometheus gets it. */
const filled = (query: string) => query.replaceAll('$__rate_interval', '1m').replaceAll('$job', '.+').replaceAll('$instance', '.+');

test('it has a row for each part', () => {
  expect(panels.filter(({ type }) => type === 'row').map(({ title }) => title)).toEqual([
    ...['Throughput and latency', 'Errors, dead letters and retries', 'Queues, by group', 'Agent orchestration', 'Projects and services'],
    ...['Process', 'Redis connection and pool', 'Alerts and health', 'Tracing'],
  ]);
});

const queries = graphs.flatMap(({ title, targets = [] }) => targets.map(({ refId, expr }) => ({ title, refId, expr })));
describe.each(queries)('$title, query $refId', ({ expr }) => {
  test('asks for metrics that are exported, of the job and the instances that are chosen', () => {
    const metrics = documentedMetrics();
    const { metrics: wanted, labels } = asked(filled(expr));
    const names = sampleNames(metrics);
    expect(wanted.filter((name) => !names.has(name))).toEqual([]);
    const known = new Set(['job', 'instance', 'le', 'alertname', 'alertstate', ...metrics.flatMap((metric) => metric.labels)]);
    expect(labels.filter((label) => !known.has(label))).toEqual([]);
    if (!wanted.includes('ALERTS')) {
      expect(expr.match(/job=~"\$job", instance=~"\$instance"/g)).toHaveLength(wanted.length);
    }
  });
});

test('every metric is on it', () => {
  const shown = new Set(queries.flatMap(({ expr }) => asked(filled(expr)).metrics));
  const missing = documentedMetrics().filter(({ name, type }) => !shown.has(type === 'histogram' ? `${name}_bucket` : name));
  expect(missing.map(({ name }) => name)).toEqual([]);
});

test('counters are read as rates, gauges as they are', () => {
  const types = new Map(documentedMetrics().flatMap(({ name, type }) => [[name, type] as const]));
  for (const { expr } of queries) {
    for (const [, call, name] of filled(expr).matchAll(/(?:(\w+)\()?(ossa_\w+?)(?:_bucket|_sum|_count)?\{/g)) {
      const type = types.get(name as string);
      expect([name, ['rate', 'increase'].includes(call ?? '')]).toEqual([name, type !== 'gauge']);
    }
  }
});

test('the data source, the job and the instances are chosen on the page', () => {
  const variables: Array<{ name: string; type: string; query: unknown; definition?: string }> = dashboard.templating.list;
  expect(variables.map(({ name }) => name)).toEqual(['datasource', 'job', 'instance']);
  for (const panel of graphs) {
    expect(panel.datasource).toEqual({ type: 'prometheus', uid: '$' + '{datasource}' });
    for (const target of panel.targets ?? []) expect(target.datasource).toEqual(panel.datasource);
  }
  const names = sampleNames(documentedMetrics());
  for (const { definition } of variables.slice(1)) expect(names).toContain(/^label_values\((\w+)/.exec(definition ?? '')?.[1]);
});

test('panels say what they show, have ids of their own, and lie beside each other', () => {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  const taken = new Set<string>();
  for (const { title, description, type, gridPos } of panels) {
    expect(title).toMatch(/\S/);
    if (type !== 'row') expect(description).toMatch(/\S/);
    expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect([title, taken.has(`${x} ${y}`)]).toEqual([title, false]);
        taken.add(`${x} ${y}`);
      }
    }
  }
});

test('it can be imported and provisioned: it has a name of its own, and the schema of Grafana 12', () => {
  expect(dashboard).toMatchObject({ uid: 'ossa-event-bus', schemaVersion: 42 });
  expect(dashboard.id).toBeUndefined();
  const { datasources } = yaml('deploy/grafana/provisioning/datasources/prometheus.yml');
  expect(datasources).toMatchObject([{ type: 'prometheus', url: 'http://prometheus:9090' }]);
});

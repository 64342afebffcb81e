/** What somebody wants to see first: is it well, what is wrong, what is it doing. */
import { Chart } from '../chart.js';
import { get } from '../client.js';
import { el, fill } from '../dom.js';
import { absolute, ago, count, figure, millis, percent, plural, rate, span } from '../format.js';
import { Table } from '../table.js';
import { all, type Page, Section, statusCell, Tiles, toneOf, type View } from '../view.js';
import type { Alert, Dashboard, Health } from '../wire.js';

type Part = { name: string; status: string; why: string };

/** Parts of the bus by their names in healthCheck(). */
const PARTS: Readonly<Record<string, string>> = {
  eventBus: 'Event bus',
  serviceRegistry: 'Service registry',
  orchestration: 'Orchestration',
  crossProject: 'Projects',
  monitoring: 'Monitoring',
};

export function overview(_page: Page): View {
  const tiles = new Tiles(['Throughput', 'Error rate', 'Latency', 'Queue depth', 'Events', 'Dead letters', 'Up for']);
  const alerts = el('ul', { class: 'alerts' });
  const charts = {
    eventsPerSecond: new Chart({ title: 'Throughput', unit: 'Events per second', format: rate, colour: 'chart-1' }),
    latency: new Chart({ title: 'Latency', unit: 'Milliseconds', format: millis, colour: 'chart-2' }),
    errorRate: new Chart({ title: 'Error rate', unit: 'Percent of deliveries', format: percent, colour: 'chart-3' }),
    queueDepth: new Chart({ title: 'Queue depth', unit: 'Events waiting', format: count, colour: 'chart-4' }),
  };
  const types = top<Dashboard['topMetrics']['topEventTypes'][number]>(
    'Event types',
    'type',
    'Type',
    'Events',
    ({ type }) => type,
    (row) => count(row.count),
    ({ count }) => count,
    'Nothing was published yet.',
  );
  const slowest = top<Dashboard['topMetrics']['slowestOperations'][number]>(
    'Slowest operations',
    'operation',
    'Operation',
    'Average',
    ({ operation }) => operation,
    (row) => millis(row.avgTime),
    ({ avgTime }) => avgTime,
    'No handler has run yet.',
  );
  const errors = top<Dashboard['topMetrics']['errorsByType'][number]>(
    'Errors',
    'error',
    'Error',
    'Times',
    ({ error }) => error,
    (row) => count(row.count),
    ({ count }) => count,
    'No delivery has failed.',
  );
  const projects = top<Dashboard['topMetrics']['topProjects'][number]>(
    'Projects',
    'project',
    'Project',
    'Events',
    ({ project }) => project,
    (row) => count(row.events),
    ({ events }) => events,
    'No project has sent a message.',
  );
  const parts = new Table<Part>({
    caption: 'Parts of the bus',
    key: ({ name }) => name,
    empty: 'No part has told how it is.',
    columns: [
      { key: 'name', label: 'Part', cell: ({ name }) => PARTS[name] ?? name },
      { key: 'status', label: 'Status', cell: ({ status }) => statusCell(status) },
      { key: 'why', label: 'Why', cell: ({ why }) => ({ text: why, tone: 'wide' }) },
    ],
  });
  const grid = el('div', { class: 'charts' }, ...Object.values(charts).map(({ element }) => element));
  const tops = el('div', { class: 'columns' }, ...[types, slowest, errors, projects].map(({ section }) => section));
  const activeAlerts = new Section('Active alerts', '', alerts);
  const measured = new Section('Last 5 minutes', '', grid);
  const component = new Section('Parts', '', parts.element);
  const element = el(
    'div',
    { class: 'view' },
    el('h1', {}, 'Overview'),
    tiles.element,
    activeAlerts.element,
    measured.element,
    tops,
    component.element,
  );
  const onlyMeasured = [tiles.element, activeAlerts.element, tops];

  const showDashboard = (data: Dashboard) => {
    const { overview, realtime, topMetrics, activeAlerts } = data;
    tiles.set('Throughput', rate(overview.currentTPS));
    tiles.set('Error rate', percent(overview.errorRate), { tone: overview.errorRate >= 5 ? 'bad' : overview.errorRate > 0 ? 'warn' : '' });
    tiles.set('Latency', millis(realtime.latency.at(-1)), { title: 'The last point of the chart below' });
    tiles.set('Queue depth', count(realtime.queueDepth.at(-1)), {
      title: 'Events that wait for groups of this process, or are being handled',
    });
    tiles.set('Events', count(overview.totalEvents));
    tiles.set('Up for', span(overview.uptime * 1000));
    for (const [name, chart] of Object.entries(charts)) chart.update(realtime.timestamp, realtime[name as keyof typeof charts]);
    types.update(topMetrics.topEventTypes);
    slowest.update(topMetrics.slowestOperations);
    errors.update(topMetrics.errorsByType);
    projects.update(topMetrics.topProjects);
    showAlerts(alerts, activeAlerts);
  };
  const showHealth = (health: Health) => {
    parts.update(Object.entries(health.components).map(([name, { status, details }]) => ({ name, status, why: reason(details) })));
  };

  return {
    element,
    async load(_place, signal) {
      // Said once where monitoring is off; what would be empty then is not there.
      const data = get<Dashboard>('api/dashboard', {}, signal).finally(() => {
        for (const part of onlyMeasured) part.hidden = true;
      });
      await all([
        measured.show(data, (value) => {
          for (const part of onlyMeasured) part.hidden = false;
          showDashboard(value);
        }),
        component.show(get<Health>('api/health', {}, signal), showHealth),
        get<{ count: number }>('api/dead-letters/count', {}, signal).then(({ count: now }) => {
          tiles.set('Dead letters', count(now), { tone: now > 0 ? 'warn' : '', title: 'Over all processes' });
        }),
      ]);
    },
  };
}

/** A short table: what, and how much. */
function top<Row>(
  title: string,
  key: string,
  label: string,
  unit: string,
  name: (row: Row) => string,
  value: (row: Row) => string,
  by: (row: Row) => number,
  empty: string,
) {
  const table = new Table<Row>({
    caption: title,
    key: name,
    sort: '-value',
    empty,
    columns: [
      { key, label, cell: (row) => ({ text: name(row), tone: 'wide', title: name(row) }) },
      { key: 'value', label: unit, numeric: true, cell: value, by },
    ],
  });
  return { section: new Section(title, '', table.element).element, update: (rows: readonly Row[]) => table.update(rows) };
}

function showAlerts(list: HTMLElement, alerts: readonly Alert[]): void {
  const now = Date.now();
  if (alerts.length === 0) {
    fill(list, el('li', { class: 'empty' }, 'None. Alerts are raised by the thresholds of monitoring.alerting.'));
    return;
  }
  const bySeverity = [...alerts].sort((a, b) => rank(a.severity) - rank(b.severity));
  fill(list, ...bySeverity.map((alert) => alertItem(alert, now)));
}

const rank = (severity: Alert['severity']) => ['critical', 'warning', 'info'].indexOf(severity);

function alertItem({ severity, title, description, timestamp, metric, currentValue, threshold }: Alert, now: number): HTMLElement {
  const figures = `${metric} ${figure(currentValue)}, threshold ${figure(threshold)}`;
  return el(
    'li',
    { class: `alert ${severity === 'critical' ? 'bad' : severity === 'warning' ? 'warn' : 'off'}` },
    el('span', { class: `status ${toneOf(severity)}` }, severity),
    el('strong', {}, title),
    el('span', {}, description),
    el(
      'span',
      { class: 'note' },
      figures,
      ', since ',
      el('time', { datetime: timestamp, title: absolute(timestamp) }, ago(timestamp, now)),
    ),
  );
}

/** What of the details says why a part is as it is. */
function reason(details: unknown): string {
  if (typeof details !== 'object' || details === null) return '';
  const { error, problem, reason: why, redis, services, routes, failedAgents } = details as Record<string, any>;
  const said = [error, problem, why].filter((text): text is string => typeof text === 'string');
  if (redis?.connected === false) said.push('Redis cannot be reached');
  const unwell = (services?.unhealthyServices ?? 0) + (services?.degradedServices ?? 0);
  if (unwell > 0) said.push(`${plural(unwell, 'service')} not well`);
  const open = Array.isArray(routes) ? routes.filter((route) => route?.circuit !== 'closed').length : 0;
  if (open > 0) said.push(`${plural(open, 'circuit')} not closed`);
  if (typeof failedAgents === 'number' && failedAgents > 0) said.push(`${plural(failedAgents, 'agent')} failed`);
  return said.join('; ');
}

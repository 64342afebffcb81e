/** What somebody wants to see first: is it well, what is wrong, what is it doing. */
import { Chart } from '../chart.js';
import { get } from '../client.js';
import { el } from '../dom.js';
import { count, millis, percent, rate, span } from '../format.js';
import { PARTS, reason } from '../reason.js';
import { Table } from '../table.js';
import { all, type Page, Section, statusCell, Tiles, type View } from '../view.js';
import type { Dashboard, Health } from '../wire.js';
import { AlertList } from './alertList.js';

/** Whose figures these are. */
const HERE = 'This process';
const EVERYWHERE = 'All processes';

type Part = { name: string; status: string; why: string };

export function overview(page: Page): View {
  const tiles = new Tiles(['Throughput', 'Error rate', 'Latency', 'Queue depth', 'Up for']);
  const shared = new Tiles(['Events', 'Dead letters']);
  const alerts = new AlertList();
  const charts = {
    eventsPerSecond: new Chart({ title: 'Throughput', unit: 'Events per second', format: rate, colour: 'chart-1' }),
    latency: new Chart({ title: 'Latency', unit: 'Milliseconds', format: millis, colour: 'chart-2' }),
    errorRate: new Chart({ title: 'Error rate', unit: 'Percent of deliveries', format: percent, colour: 'chart-3' }),
    queueDepth: new Chart({ title: 'Queue depth', unit: 'Events waiting', format: count, colour: 'chart-4' }),
  };
  const types = top<Dashboard['topMetrics']['topEventTypes'][number]>(
    'Event types',
    EVERYWHERE,
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
    HERE,
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
    HERE,
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
    EVERYWHERE,
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
  const activeAlerts = new Section('Active alerts', HERE, alerts.element);
  const measured = new Section('Last 5 minutes', HERE, grid);
  const component = new Section('Parts', 'As this process sees them', parts.element);
  const here = scope(HERE, 'that answers this page', tiles);
  const element = el(
    'div',
    { class: 'view' },
    el('h1', {}, 'Overview'),
    el('div', { class: 'scopes' }, here, scope(EVERYWHERE, 'as they stand in Redis', shared)),
    activeAlerts.element,
    measured.element,
    tops,
    component.element,
  );
  const onlyMeasured = [here, activeAlerts.element, tops];

  const showDashboard = (data: Dashboard) => {
    const { overview, realtime, topMetrics, activeAlerts } = data;
    tiles.set('Throughput', rate(overview.currentTPS));
    tiles.set('Error rate', percent(overview.errorRate), { tone: overview.errorRate >= 5 ? 'bad' : overview.errorRate > 0 ? 'warn' : '' });
    tiles.set('Latency', millis(realtime.latency.at(-1)), { title: 'The last point of the chart below' });
    tiles.set('Queue depth', count(realtime.queueDepth.at(-1)), {
      title: 'Events that wait for groups of this process, or are being handled',
    });
    shared.set('Events', count(overview.totalEvents));
    tiles.set('Up for', span(overview.uptime * 1000));
    for (const [name, chart] of Object.entries(charts)) chart.update(realtime.timestamp, realtime[name as keyof typeof charts]);
    types.update(topMetrics.topEventTypes);
    slowest.update(topMetrics.slowestOperations);
    errors.update(topMetrics.errorsByType);
    projects.update(topMetrics.topProjects);
    alerts.update(activeAlerts);
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
        component.show(page.once<Health>('api/health', signal), showHealth),
        page.once<{ count: number }>('api/dead-letters/count', signal).then(({ count: now }) => {
          shared.set('Dead letters', count(now), { tone: now > 0 ? 'warn' : '' });
        }),
      ]);
    },
  };
}

/** Figures below the name of those whose they are. */
function scope(title: string, note: string, tiles: Tiles): HTMLElement {
  const heading = el('div', { class: 'section-head' }, el('h2', {}, title), el('p', { class: 'note' }, note));
  return el('section', { class: 'scope', 'aria-label': title }, heading, tiles.element);
}

/** A short table: what, and how much. */
function top<Row>(
  title: string,
  note: string,
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
  return { section: new Section(title, note, table.element).element, update: (rows: readonly Row[]) => table.update(rows) };
}

/** Services of the registry, how they are, and how events get to them. */
import { get } from '../client.js';
import { el } from '../dom.js';
import { absolute, ago, count, millis } from '../format.js';
import { Table } from '../table.js';
import { type Page, Section, searchField, setField, statusCell, Tiles, type View } from '../view.js';
import type { Services } from '../wire.js';

type Service = Services['services'][number];
type Route = Services['status']['routes'][number];

const urgency = (status: string) => ['unhealthy', 'degraded', 'maintenance', 'unknown', 'healthy'].indexOf(status);

export function services(page: Page): View {
  const tiles = new Tiles(['Services', 'Healthy', 'Degraded', 'Unhealthy', 'Unknown', 'Registry', 'Registered as']);
  const search = searchField('Service', { name: 'service', placeholder: 'part of a name or capability' }, (q) => page.choose({ q }, true));
  const list = new Table<Service>({
    caption: 'Services',
    key: ({ name }) => name,
    sort: 'status',
    onSort: (sort) => page.choose({ sort }, true),
    empty: '',
    columns: [
      { key: 'name', label: 'Service', cell: ({ name }) => ({ text: name, tone: 'mono' }), by: ({ name }) => name },
      {
        key: 'status',
        label: 'Health',
        cell: ({ health }) => statusCell(health.status, health.error),
        by: ({ health }) => urgency(health.status),
      },
      { key: 'why', label: 'Error', cell: ({ health }) => ({ text: health.error ?? '', tone: 'wide' }) },
      { key: 'version', label: 'Version', cell: ({ version }) => version, by: ({ version }) => version },
      { key: 'endpoint', label: 'Endpoint', cell: ({ endpoint }) => ({ text: endpoint, tone: 'mono' }), by: ({ endpoint }) => endpoint },
      {
        key: 'capabilities',
        label: 'Capabilities',
        cell: ({ capabilities }) => ({ text: capabilities.map(({ name }) => name).join(', '), tone: 'wide' }),
      },
      {
        key: 'time',
        label: 'Response time',
        numeric: true,
        cell: ({ health }) => millis(health.responseTime),
        by: ({ health }) => health.responseTime ?? -1,
      },
      {
        key: 'checked',
        label: 'Last check',
        cell: ({ health }) => ({ text: ago(health.lastCheck, Date.now()), title: absolute(health.lastCheck) }),
        by: ({ health }) => health.lastCheck,
      },
    ],
  });
  const routes = new Table<Route>({
    caption: 'Routes to services',
    key: ({ service, group }) => `${service} ${group}`,
    empty: 'No service takes events from this bus: a capability with inputs.events does.',
    columns: [
      { key: 'service', label: 'Service', cell: ({ service }) => ({ text: service, tone: 'mono' }) },
      { key: 'patterns', label: 'Events', cell: ({ patterns }) => ({ text: patterns.join(', '), tone: 'mono wide' }) },
      {
        key: 'circuit',
        label: 'Circuit',
        title: 'Open: it failed, and nothing is sent to it for now',
        cell: ({ circuit, paused }) => statusCell(circuit, paused ? 'paused' : undefined),
      },
      { key: 'delivered', label: 'Delivered', numeric: true, cell: ({ delivered }) => count(delivered) },
      {
        key: 'failed',
        label: 'Failed',
        numeric: true,
        cell: ({ failed }) => ({ text: count(failed), ...(failed > 0 ? { tone: 'warn' } : {}) }),
      },
    ],
  });
  const section = new Section(
    'Services',
    '',
    tiles.element,
    el('div', { class: 'filters' }, search.element),
    list.element,
    el('h3', {}, 'Routes'),
    routes.element,
  );

  return {
    element: el('div', { class: 'view' }, el('h1', {}, 'Services'), section.element),
    async load({ parameters }, signal) {
      const { q = '', sort } = parameters;
      setField(search.input, q);
      await section.show(get<Services>('api/services', {}, signal), ({ services: found, status }) => {
        const stats = status.services;
        tiles.set('Services', count(stats.totalServices));
        tiles.set('Healthy', count(stats.healthyServices));
        tiles.set('Degraded', count(stats.degradedServices), { tone: stats.degradedServices > 0 ? 'warn' : '' });
        tiles.set('Unhealthy', count(stats.unhealthyServices), { tone: stats.unhealthyServices > 0 ? 'bad' : '' });
        tiles.set('Unknown', count(stats.unknownServices));
        tiles.set('Registry', status.problem ?? (status.connected ? 'connected' : 'cannot be reached'), {
          tone: status.connected && !status.problem ? '' : 'bad',
        });
        tiles.set('Registered as', status.registeredAs ?? 'not registered');
        const wanted = q.toLowerCase();
        const rows = found.filter(({ name, capabilities }) =>
          [name, ...capabilities.map((each) => each.name)].some((text) => text.toLowerCase().includes(wanted)),
        );
        list.empty(
          found.length === 0
            ? 'No service is registered: registry.register() makes one known.'
            : 'No service or capability has this in its name.',
        );
        list.update(rows, { sort });
        routes.update(status.routes);
      });
    },
  };
}

/** Who reads what, what waits for them, and whether they are there. */
import { get } from '../client.js';
import { el } from '../dom.js';
import { count, plural } from '../format.js';
import { changed, formatPlace } from '../route.js';
import { type Cell, Table } from '../table.js';
import { type Page, Section, searchField, setField, statusCell, Tiles, type View } from '../view.js';
import type { Group } from '../wire.js';

const keyOf = ({ eventType, group }: Group) => JSON.stringify([eventType, group]);
const alive = ({ consumers }: Group) => consumers.filter((consumer) => consumer.alive).length;

export function groups(page: Page): View {
  const tiles = new Tiles(['Groups', 'Pending', 'Lag', 'Consumers', 'Without consumers']);
  const search = searchField('Group or type', { name: 'group', placeholder: 'part of a name' }, (q) => page.choose({ q }, true));
  const table = new Table<Group>({
    caption: 'Consumer groups',
    key: keyOf,
    sort: '-lag',
    onSort: (sort) => page.choose({ sort }, true),
    empty: '',
    columns: [
      {
        key: 'group',
        label: 'Group',
        cell: (row) => ({ text: row.group, href: formatPlace(changed(page.place, { selected: keyOf(row) })) }),
        by: ({ group }) => group,
      },
      {
        key: 'type',
        label: 'Event type',
        cell: ({ eventType }) => ({ text: eventType, tone: 'mono', title: eventType }),
        by: ({ eventType }) => eventType,
      },
      {
        key: 'pending',
        label: 'Pending',
        title: 'Delivered and not yet settled',
        numeric: true,
        cell: ({ pending }) => count(pending),
        by: ({ pending }) => pending,
      },
      { key: 'lag', label: 'Lag', title: 'Events that the group has not read', numeric: true, cell: lagCell, by: ({ lag }) => lag ?? -1 },
      { key: 'consumers', label: 'Consumers', numeric: true, cell: consumersCell, by: alive },
    ],
  });
  const consumers = new Table<Group['consumers'][number]>({
    caption: 'Consumers of the group',
    key: ({ name }) => name,
    empty: 'This group has no consumers: start a process that subscribes with its name.',
    columns: [
      { key: 'name', label: 'Consumer', cell: ({ name }) => ({ text: name, tone: 'mono' }) },
      {
        key: 'alive',
        label: 'State',
        cell: (row) => (row.alive ? statusCell('alive') : statusCell('gone', 'Its process has ended; others take over what it held')),
      },
    ],
  });
  const chosen = el('h2', {});
  const panel = el(
    'section',
    { class: 'panel', hidden: true, 'aria-label': 'Consumers' },
    el('div', { class: 'section-head' }, chosen),
    consumers.element,
  );
  const section = new Section(
    'All groups',
    'Over all processes, as they stand in Redis.',
    el('div', { class: 'filters' }, search.element),
    table.element,
  );

  return {
    everyMs: 5000,
    element: el('div', { class: 'view' }, el('h1', {}, 'Groups'), tiles.element, section.element, panel),
    async load({ parameters }, signal) {
      const { q = '', sort, selected = '' } = parameters;
      setField(search.input, q);
      await section.show(get<Group[]>('api/groups', {}, signal), (found) => {
        const wanted = q.toLowerCase();
        const rows = found.filter(({ group, eventType }) => `${group} ${eventType}`.toLowerCase().includes(wanted));
        const idle = found.filter((group) => alive(group) === 0).length;
        const unknown = found.some(({ lag }) => lag === null);
        tiles.set('Groups', count(found.length));
        tiles.set('Pending', count(sum(found, ({ pending }) => pending)));
        tiles.set('Lag', `${count(sum(found, ({ lag }) => lag ?? 0))}${unknown ? ' or more' : ''}`);
        tiles.set('Consumers', count(sum(found, alive)));
        tiles.set('Without consumers', count(idle), { tone: idle > 0 ? 'warn' : '' });
        table.empty(
          found.length === 0
            ? 'No group reads anything yet: subscribe(type, handler, { group }) makes one.'
            : 'No group or type has this in its name.',
        );
        table.update(rows, { sort, current: selected });
        const one = found.find((row) => keyOf(row) === selected);
        panel.hidden = one === undefined;
        if (one === undefined) return;
        chosen.textContent = `Consumers of ${one.group} on ${one.eventType}`;
        consumers.update(one.consumers);
      });
    },
  };
}

function lagCell({ lag }: Group): Cell {
  if (lag === null) return { text: 'unknown', tone: 'off', title: 'Redis cannot tell: more than 10,000 events would have to be counted' };
  return { text: count(lag), ...(lag > 0 ? { tone: 'warn' } : {}) };
}

function consumersCell(row: Group): Cell {
  const there = alive(row);
  const gone = row.consumers.length - there;
  if (there === 0)
    return {
      text: gone === 0 ? 'none' : `none, ${gone} gone`,
      tone: 'warn',
      title: 'Nobody reads for this group: events wait for it until their ttl',
    };
  return { text: gone === 0 ? count(there) : `${there}, ${gone} gone`, title: plural(there, 'consumer alive', 'consumers alive') };
}

const sum = <T>(rows: readonly T[], value: (row: T) => number): number => rows.reduce((total, row) => total + value(row), 0);

/** What the process did with each event type in a time, and how long it took. */
import { get } from '../client.js';
import { el } from '../dom.js';
import { clock, count, millis, percent, rate, span } from '../format.js';
import { type Column, Table } from '../table.js';
import { type Page, Section, searchField, setField, setOptions, Tiles, type View } from '../view.js';
import type { Analytics } from '../wire.js';

type Row = Analytics['byEventType'][number];

export function eventTypes(page: Page): View {
  const tiles = new Tiles(['Published', 'Consumed', 'Failed', 'Retried', 'Dead-lettered', 'Expired', 'Processing p95', 'End to end p95']);
  const windows = el('select', { name: 'window', onchange: () => page.choose({ window: windows.value }) });
  const search = searchField('Type', { name: 'type', placeholder: 'part of a name' }, (q) => page.choose({ q }, true));
  const figures = (
    key: string,
    label: string,
    title: string,
    value: (row: Row) => number,
    format: (value: number) => string,
    tone?: string,
  ): Column<Row> => ({
    key,
    label,
    title,
    numeric: true,
    cell: (row) => ({ text: format(value(row)), ...(tone && value(row) > 0 ? { tone } : {}) }),
    by: value,
  });
  const table = new Table<Row>({
    caption: 'Event types',
    key: ({ eventType }) => eventType,
    sort: '-published',
    onSort: (sort) => page.choose({ sort }, true),
    empty: '',
    columns: [
      {
        key: 'type',
        label: 'Type',
        cell: ({ eventType }) => ({ text: eventType, tone: 'mono', title: eventType }),
        by: ({ eventType }) => eventType,
      },
      figures('published', 'Published', 'Events that this process published', ({ published }) => published, count),
      figures('rate', 'Rate', 'Published a second', ({ publishedPerSecond }) => publishedPerSecond, rate),
      figures('consumed', 'Consumed', 'Deliveries that were acknowledged', ({ consumed }) => consumed, count),
      figures('consumeRate', 'Rate', 'Consumed a second', ({ consumedPerSecond }) => consumedPerSecond, rate),
      figures('failed', 'Failed', 'Deliveries that failed', ({ failed }) => failed, count, 'warn'),
      figures('errors', 'Errors', 'Percent of deliveries', ({ errorRate }) => errorRate, percent, 'warn'),
      figures('dead', 'Dead', 'Events that became dead letters', ({ deadLettered }) => deadLettered, count, 'bad'),
      figures('p50', 'p50', 'Half of the handlers took no longer', ({ processingTime }) => processingTime.p50, millis),
      figures('p95', 'p95', '95 percent of the handlers took no longer', ({ processingTime }) => processingTime.p95, millis),
      figures('p99', 'p99', '99 percent of the handlers took no longer', ({ processingTime }) => processingTime.p99, millis),
      figures(
        'end',
        'End to end p95',
        '95 percent of the events waited no longer in their stream for their handler',
        ({ endToEndTime }) => endToEndTime.p95,
        millis,
      ),
    ],
  });
  const measured = el('p', { class: 'note' });
  const filters = el(
    'div',
    { class: 'filters' },
    el('label', { class: 'field' }, el('span', {}, 'Window'), windows),
    search.element,
    measured,
  );
  const section = new Section('By event type', 'Of this process. Percentiles are right within 6 %.', filters, tiles.element, table.element);

  return {
    element: el('div', { class: 'view' }, el('h1', {}, 'Event types'), section.element),
    async load({ parameters }, signal) {
      const { window = '', q = '', sort } = parameters;
      setField(search.input, q);
      await section.show(get<Analytics>('api/analytics', { window }, signal), (data) => {
        setOptions(
          windows,
          data.windows.map((seconds) => [String(seconds), span(seconds * 1000)] as const),
          String(data.windowSeconds),
        );
        measured.textContent = `${clock(data.from)} to ${clock(data.to)}`;
        const { total } = data;
        tiles.set('Published', count(total.published), { beside: rate(total.publishedPerSecond) });
        tiles.set('Consumed', count(total.consumed), { beside: rate(total.consumedPerSecond) });
        tiles.set('Failed', count(total.failed), { beside: percent(total.errorRate), tone: total.failed > 0 ? 'warn' : '' });
        tiles.set('Retried', count(total.retried));
        tiles.set('Dead-lettered', count(total.deadLettered), { tone: total.deadLettered > 0 ? 'bad' : '' });
        tiles.set('Expired', count(total.expired));
        tiles.set('Processing p95', millis(total.processingTime.p95));
        tiles.set('End to end p95', millis(total.endToEndTime.p95));
        const rows = data.byEventType.filter(({ eventType }) => eventType.toLowerCase().includes(q.toLowerCase()));
        table.empty(
          data.byEventType.length === 0
            ? 'Nothing happened in this time. Choose a longer window, or publish an event.'
            : 'No type has this in its name.',
        );
        table.update(rows, { sort });
      });
    },
  };
}

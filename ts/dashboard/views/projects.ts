/** Projects that send each other messages, and what was refused of late. */
import { get } from '../client.js';
import { el, setText } from '../dom.js';
import { absolute, ago, count, millis, shortened, span } from '../format.js';
import { Table } from '../table.js';
import { all, type Page, Section, setField, setOptions, statusCell, Tiles, type View } from '../view.js';
import type { AuditRecord, Projects, Refusals } from '../wire.js';

type Row = NonNullable<Projects['projectStats']>[number];

const OUTCOMES = ['failed', 'denied', 'rate-limited', 'invalid', 'forged', 'replayed'] as const;
const SHOWN = '200';

export function projects(page: Page): View {
  const tiles = new Tiles(['Projects', 'Contracts', 'Sent', 'Received', 'Failed', 'Rate limit hits', 'Latency', 'Connections']);
  const table = new Table<Row>({
    caption: 'Projects',
    key: ({ projectId }) => projectId,
    sort: '-sent',
    onSort: (sort) => page.choose({ sort }, true),
    empty: 'No project is registered: registerProject() makes one known.',
    columns: [
      { key: 'id', label: 'Project', cell: ({ projectId }) => ({ text: projectId, tone: 'mono' }), by: ({ projectId }) => projectId },
      {
        key: 'sent',
        label: 'Sent',
        numeric: true,
        cell: ({ messagesSent }) => count(messagesSent),
        by: ({ messagesSent }) => messagesSent,
      },
      {
        key: 'received',
        label: 'Received',
        numeric: true,
        cell: ({ messagesReceived }) => count(messagesReceived),
        by: ({ messagesReceived }) => messagesReceived,
      },
      {
        key: 'last',
        label: 'Last activity',
        cell: ({ lastActivity }) =>
          new Date(lastActivity).getTime() > 0 ? { text: ago(lastActivity, Date.now()), title: absolute(lastActivity) } : 'never',
        by: ({ lastActivity }) => lastActivity,
      },
    ],
  });
  const refused = new Table<AuditRecord>({
    caption: 'Refusals',
    key: ({ id }) => id,
    empty: '',
    columns: [
      { key: 'at', label: 'When', cell: ({ at }) => ({ text: ago(at, Date.now()), title: absolute(at) }) },
      { key: 'outcome', label: 'Outcome', cell: ({ outcome }) => statusCell(outcome) },
      { key: 'from', label: 'From', cell: ({ sourceProject }) => ({ text: sourceProject, tone: 'mono' }) },
      { key: 'to', label: 'To', cell: ({ targetProject }) => ({ text: targetProject, tone: 'mono' }) },
      { key: 'type', label: 'Event type', cell: ({ eventType }) => ({ text: eventType, tone: 'mono' }) },
      { key: 'reason', label: 'Reason', cell: ({ reason = '' }) => ({ text: shortened(reason, 200), tone: 'wide', title: reason }) },
    ],
  });
  const outcome = el('select', { name: 'outcome', onchange: () => page.choose({ outcome: outcome.value }) });
  const project = el('select', { name: 'project', onchange: () => page.choose({ project: project.value }) });
  const reach = el('p', { class: 'note' });
  const filters = el(
    'div',
    { class: 'filters' },
    el('label', { class: 'field' }, el('span', {}, 'Outcome'), outcome),
    el('label', { class: 'field' }, el('span', {}, 'Project'), project),
    reach,
  );
  const section = new Section('Messages between projects', 'Counted over all processes.', tiles.element, table.element);
  const audit = new Section('Recent refusals', 'From the audit log, the newest first.', filters, refused.element);
  setOptions(outcome, [['', 'any'], ...OUTCOMES.map((name) => [name, name] as const)], '');

  return {
    element: el('div', { class: 'view' }, el('h1', {}, 'Projects'), section.element, audit.element),
    everyMs: 10_000,
    async load({ parameters }, signal) {
      const { sort, outcome: wanted = '', project: projectId = '' } = parameters;
      setField(outcome, wanted);
      await all([
        section.show(get<Projects>('api/projects', {}, signal), (data) => {
          tiles.set('Projects', count(data.totalProjects));
          tiles.set('Contracts', count(data.totalContracts));
          tiles.set('Sent', count(data.messagesSent));
          tiles.set('Received', count(data.messagesReceived));
          tiles.set('Failed', count(data.messagesFailed), { tone: data.messagesFailed > 0 ? 'warn' : '' });
          tiles.set('Rate limit hits', count(data.rateLimitHits), { tone: data.rateLimitHits > 0 ? 'warn' : '' });
          tiles.set('Latency', millis(data.averageLatency));
          tiles.set('Connections', count(data.activeConnections));
          const rows = data.projectStats ?? [];
          table.update(rows, { sort });
          const names = new Set([...rows.map((row) => row.projectId), ...(projectId === '' ? [] : [projectId])]);
          setOptions(project, [['', 'any'], ...[...names].sort().map((name) => [name, name] as const)], projectId);
        }),
        audit.show(
          get<Refusals>('api/audit', { outcome: 'refused', only: wanted, projectId, limit: SHOWN }, signal),
          ({ items, from, missing }) => {
            const time = span(Date.now() - new Date(from).getTime());
            setText(reach, reached(missing, time, items.length));
            refused.empty(
              missing === 'newer'
                ? 'None among the records that were looked through; it is not known whether there were others.'
                : wanted === ''
                  ? `Nothing was refused in the last ${time}.`
                  : `No message was ${wanted} in the last ${time}.`,
            );
            refused.update(items);
          },
        ),
      ]);
    },
  };
}

/** How far back was looked, and what is missing. */
function reached(missing: Refusals['missing'], time: string, shown: number): string {
  if (missing === 'newer')
    return `More records came in the last ${time} than can be looked through: the newest may be missing. Choose an outcome.`;
  return missing === 'older' ? `The last ${count(shown)}; there are more in the last ${time}.` : `Looked back ${time}.`;
}

/** Agents, their pools, and what they are doing. */
import { ApiError, get } from '../client.js';
import { el, fill } from '../dom.js';
import { absolute, ago, count, figure, millis, percent, plural } from '../format.js';
import { changed, formatPlace } from '../route.js';
import { Table } from '../table.js';
import { all, type Page, Section, statusCell, Tiles, type View } from '../view.js';
import type { Agent, Orchestration, Pool, Task } from '../wire.js';

export function agents(page: Page): View {
  const tiles = new Tiles(['Agents', 'Pools', 'Use', 'Tasks a minute', 'Response time', 'Errors', 'Queue']);
  const stats = new Section('Orchestration', 'As this process knows it.', tiles.element);
  const pools = new Table<Pool>({
    caption: 'Pools',
    key: ({ id }) => id,
    sort: '-queue',
    onSort: (poolSort) => page.choose({ poolSort }, true),
    empty: 'No pools yet: agents of one type are a pool.',
    columns: [
      { key: 'id', label: 'Pool', cell: ({ id }) => ({ text: id, tone: 'mono' }), by: ({ id }) => id },
      { key: 'agents', label: 'Agents', numeric: true, cell: ({ agents }) => count(agents.length), by: ({ agents }) => agents.length },
      {
        key: 'capacity',
        label: 'Capacity',
        title: 'Tasks that its agents take at a time',
        numeric: true,
        cell: ({ capacity }) => count(capacity),
        by: ({ capacity }) => capacity,
      },
      {
        key: 'use',
        label: 'Use',
        numeric: true,
        cell: ({ metrics }) => percent(metrics.utilization),
        by: ({ metrics }) => metrics.utilization,
      },
      {
        key: 'queue',
        label: 'Queue',
        title: 'Tasks that wait',
        numeric: true,
        cell: ({ metrics }) => count(metrics.queueDepth),
        by: ({ metrics }) => metrics.queueDepth,
      },
      {
        key: 'throughput',
        label: 'Tasks a minute',
        numeric: true,
        cell: ({ metrics }) => figure(metrics.throughput),
        by: ({ metrics }) => metrics.throughput,
      },
      {
        key: 'time',
        label: 'Response time',
        numeric: true,
        cell: ({ metrics }) => millis(metrics.avgResponseTime),
        by: ({ metrics }) => metrics.avgResponseTime,
      },
      {
        key: 'errors',
        label: 'Errors',
        numeric: true,
        cell: ({ metrics }) => percent(metrics.errorRate),
        by: ({ metrics }) => metrics.errorRate,
      },
    ],
  });
  const list = new Table<Agent>({
    caption: 'Agents',
    key: ({ id }) => id,
    sort: 'status',
    onSort: (sort) => page.choose({ sort }, true),
    empty: 'No agents yet: createAgent(bus, { agentId, agentType, capabilities, handler }) makes one.',
    columns: [
      { key: 'id', label: 'Agent', cell: ({ id }) => ({ text: id, tone: 'mono' }), by: ({ id }) => id },
      { key: 'type', label: 'Type', cell: ({ type }) => type, by: ({ type }) => type },
      { key: 'status', label: 'Status', cell: ({ status }) => statusCell(status), by: ({ status }) => urgency(status) },
      {
        key: 'circuit',
        label: 'Circuit',
        title: 'Open: it failed too often, and is given nothing for now',
        cell: ({ circuit }) => statusCell(circuit),
        by: ({ circuit }) => circuit,
      },
      {
        key: 'tasks',
        label: 'Tasks',
        title: 'Running, of those that it takes at a time',
        numeric: true,
        cell: ({ runningTasks, maxTasks }) => `${runningTasks.length} of ${maxTasks}`,
        by: ({ runningTasks }) => runningTasks.length,
      },
      {
        key: 'running',
        label: 'First task',
        cell: ({ runningTasks: [task] }) =>
          task === undefined ? '' : { text: task, tone: 'mono', href: formatPlace(changed(page.place, { task })) },
      },
      {
        key: 'done',
        label: 'Done',
        numeric: true,
        cell: ({ performance }) => count(performance.tasksCompleted),
        by: ({ performance }) => performance.tasksCompleted,
      },
      {
        key: 'success',
        label: 'Success',
        numeric: true,
        cell: ({ performance }) => percent(performance.successRate * 100),
        by: ({ performance }) => performance.successRate,
      },
      {
        key: 'time',
        label: 'Average',
        numeric: true,
        cell: ({ performance }) => millis(performance.avgCompletionTime),
        by: ({ performance }) => performance.avgCompletionTime,
      },
      { key: 'cpu', label: 'CPU', numeric: true, cell: ({ resources }) => percent(resources.cpu), by: ({ resources }) => resources.cpu },
      {
        key: 'memory',
        label: 'Memory',
        numeric: true,
        cell: ({ resources }) => percent(resources.memory),
        by: ({ resources }) => resources.memory,
      },
      {
        key: 'last',
        label: 'Last heard',
        cell: ({ lastActivity }) => ({ text: ago(lastActivity, Date.now()), title: absolute(lastActivity) }),
        by: ({ lastActivity }) => lastActivity,
      },
    ],
  });
  const poolSection = new Section('Pools', '', pools.element);
  const agentSection = new Section('Agents', '', list.element);
  const taskText = el('pre', { tabindex: '0', role: 'group', 'aria-label': 'The task as JSON' });
  const taskNote = el('p', { class: 'note' });
  const close = el('button', { type: 'button', onclick: () => page.choose({ task: '' }) }, 'Close');
  const taskPanel = el(
    'section',
    { class: 'panel', hidden: true, 'aria-label': 'Task' },
    el('div', { class: 'section-head' }, el('h2', {}, 'Task'), taskNote, close),
    taskText,
  );

  const showTask = async (id: string, signal: AbortSignal) => {
    taskPanel.hidden = id === '';
    if (id === '') return;
    const task = await get<Task>(`api/tasks/${encodeURIComponent(id)}`, {}, signal).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 404) return error.message;
      throw error;
    });
    taskNote.textContent =
      typeof task === 'string' ? '' : `${task.status}, ${plural(task.attempts, 'attempt')}, submitted ${ago(task.submittedAt, Date.now())}`;
    const text = typeof task === 'string' ? task : JSON.stringify(task, null, 2);
    if (taskText.textContent !== text) fill(taskText, text);
  };

  return {
    element: el('div', { class: 'view' }, el('h1', {}, 'Agents'), stats.element, poolSection.element, agentSection.element, taskPanel),
    async load({ parameters }, signal) {
      const { sort, poolSort, task = '' } = parameters;
      await all([
        stats.show(get<Orchestration>('api/orchestration', {}, signal), (data) => {
          tiles.set('Agents', count(data.totalAgents));
          tiles.set('Pools', count(data.totalPools));
          tiles.set('Use', percent(data.averageUtilization));
          tiles.set('Tasks a minute', figure(data.totalThroughput));
          tiles.set('Response time', millis(data.averageResponseTime));
          tiles.set('Errors', percent(data.errorRate), { tone: data.errorRate > 0 ? 'warn' : '' });
          tiles.set('Queue', count(data.queueDepth));
        }),
        poolSection.show(get<Pool[]>('api/pools', {}, signal), (rows) => pools.update(rows, { sort: poolSort })),
        agentSection.show(get<Agent[]>('api/agents', {}, signal), (rows) => list.update(rows, { sort })),
        showTask(task, signal),
      ]);
    },
  };
}

/** What needs looking at comes first. */
const urgency = (status: Agent['status']) => ['failed', 'draining', 'busy', 'idle', 'terminated'].indexOf(status);

/** Agents and tasks as users of an OSSAEventBus see them: agents here are programs of their own, which say everything by plain events. */
import { type DeadLetter, OSSAEventBus } from '@bluefly/ossa';
import { agentIs, task, taskIs, useOrchestras, viewOf } from './support/orchestras';
import { until } from './support/wait';
import { refusal, storesWithCluster } from './support/world';

const GROUP = 'ossa-orchestration';

/** Data that the built-in type of an event does not have. */
const raw = (data: unknown): any => data;

/** Dead letters of the orchestration. */
async function letters(bus: OSSAEventBus, eventType: string) {
  return (await bus.deadLetters.list({ eventType, group: GROUP })).items;
}

/** The first of them, once it is there, but for the one that was there before. */
async function letter(bus: OSSAEventBus, eventType: string, before?: string): Promise<DeadLetter> {
  return (await until(async () => (await letters(bus, eventType)).find(({ id }) => id !== before)))!;
}

/** Refuses what an event of this type lacks. */
const INCOMPLETE: Array<[string, object, string]> = [
  ['agent.spawned', { agentType: 'worker', capabilities: [] }, 'data.agentId'],
  ['agent.spawned', { agentId: 'a', capabilities: [] }, 'data.agentType'],
  ['agent.spawned', { agentId: 'a', agentType: 'worker' }, 'data.capabilities'],
  ['agent.spawned', { agentId: 'a', agentType: 'worker', capabilities: ['x', 7] }, 'data.capabilities[1]'],
  ['agent.spawned', { agentId: 'a', agentType: 'worker', capabilities: [], configuration: { maxTasks: 0 } }, 'data.configuration.maxTasks'],
  ['agent.started', {}, 'data.agentId'],
  ['agent.stopped', { reason: 'r' }, 'data.agentId'],
  ['agent.failed', { agentId: '' }, 'data.agentId'],
  ['agent.terminated', { agentId: 5 }, 'data.agentId'],
  ['performance.metrics', { metrics: { cpu: 1 } }, 'data.source'],
  ['performance.metrics', { source: 'a' }, 'data.metrics'],
  ['task.started', { taskId: 't' }, 'data.agentId'],
  ['task.completed', { agentId: 'a' }, 'data.taskId'],
  ['task.failed', { agentId: 'a' }, 'data.taskId'],
  ['task.cancelled', {}, 'data.taskId'],
];

/** Refuses tasks, by what is wrong with them. */
const WRONG: Array<[object, string]> = [
  [{ id: '' }, 'task.id'],
  [{ id: 7 }, 'task.id'],
  [{ id: undefined }, 'task.id'],
  [{ type: undefined }, 'task.type'],
  [{ priority: 'high' }, 'task.priority'],
  [{ requiredCapabilities: undefined }, 'task.requiredCapabilities'],
  [{ requiredCapabilities: ['work', 3] }, 'task.requiredCapabilities[1]'],
  [{ dependencies: [''] }, 'task.dependencies[0]'],
  [{ estimatedDuration: -1 }, 'task.estimatedDuration'],
  [{ maxAttempts: 0 }, 'task.maxAttempts'],
  [{ timeoutMs: 0 }, 'task.timeoutMs'],
  [{ retries: 3 }, 'task.retries'],
];

describe.each(storesWithCluster)('on %s', (kind) => {
  const orchestras = useOrchestras(kind);

  describe('agents', () => {
    test('are known by what they say of themselves', async () => {
      const bus = await orchestras.bus();
      const agent = await orchestras.agent(bus, 'a', { capabilities: ['b', 'a', 'b'], maxTasks: 2 });
      expect(viewOf(bus, 'a')).toMatchObject({
        id: 'a',
        type: 'worker',
        capabilities: ['a', 'b'],
        status: 'idle',
        poolId: 'worker',
        circuit: 'closed',
        runningTasks: [],
        maxTasks: 2,
        lastActivity: expect.any(Date),
      });
      await agent.report({ cpu: 25, memory: 50 });
      await until(() => viewOf(bus, 'a')?.resources.cpu === 25, { show: () => viewOf(bus, 'a') });
      // What is left of its processor and its memory.
      expect(viewOf(bus, 'a')).toMatchObject({ resources: { cpu: 25, memory: 50 }, performance: { loadFactor: 0.625 } });
      await bus.distributeTask(task('t', { requiredCapabilities: ['a'] }));
      await agentIs(bus, 'a', 'busy');
      expect(viewOf(bus, 'a')?.runningTasks).toEqual(['t']);
      await agent.say('agent.stopped', { draining: true });
      await agentIs(bus, 'a', 'draining');
      expect(await bus.distributeTask(task('u', { requiredCapabilities: ['a'] }))).toBeNull();
      await agent.complete('t', { duration: 40 });
      await taskIs(bus, 't', 'completed');
      await until(() => viewOf(bus, 'a')?.performance.tasksCompleted === 1);
      expect(viewOf(bus, 'a')).toMatchObject({ status: 'draining', performance: { avgCompletionTime: 40, successRate: 1, throughput: 1 } });
      await agent.say('agent.terminated');
      await agentIs(bus, 'a', 'terminated');
      await until(() => bus.getOrchestrationStats().totalAgents === 0, { show: () => bus.getOrchestrationStats() });
      expect(bus.getOrchestrationStats()).toMatchObject({ totalPools: 1, queueDepth: 1 });
    });

    test.each([
      ['agent.failed', { error: 'out of memory' }, 'failed', /failed: out of memory/],
      ['agent.terminated', { reason: 'enough' }, 'terminated', /terminated: enough/],
      ['agent.stopped', { reason: 'enough' }, 'terminated', /stopped: enough/],
    ])('%s gives what the agent had to others', async (type, data, status, why) => {
      const bus = await orchestras.bus();
      const [a, b] = [await orchestras.agent(bus, 'a'), await orchestras.agent(bus, 'b', { capabilities: ['other'] })];
      expect(await bus.distributeTask(task('t', { data: { n: 1 } }))).toBe('a');
      await until(() => a.got.length === 1);
      await a.begin('t', { attempt: 1 });
      await taskIs(bus, 't', 'running', 'a');
      await a.say(type, data);
      await agentIs(bus, 'a', status);
      expect(await taskIs(bus, 't', 'queued')).toMatchObject({ attempts: 1, error: expect.stringMatching(why) });
      const c = await orchestras.agent(bus, 'c', { work: 'complete' });
      expect(await taskIs(bus, 't', 'completed', 'c')).toMatchObject({ attempts: 2, result: 'by c' });
      expect(c.tasks).toMatchObject([{ taskId: 't', attempt: 2, data: { n: 1 } }]);
      expect(b.got).toEqual([]);
      await a.say('agent.started', { agentType: 'worker' });
      await agentIs(bus, 'a', 'idle');
    });

    test('that are silent have failed, what they had is done by others, and they are back when they are heard', async () => {
      const bus = await orchestras.bus({ agentTimeoutMs: 700 });
      const failures = await orchestras.said(bus, 'agent.failed');
      const a = await orchestras.agent(bus, 'a');
      expect(await bus.distributeTask(task('t'))).toBe('a');
      const b = await orchestras.agent(bus, 'b', { work: 'complete' });
      orchestras.reports(b);
      await taskIs(bus, 't', 'completed', 'b');
      expect(viewOf(bus, 'a')?.status).toBe('failed');
      expect(viewOf(bus, 'b')?.status).not.toBe('failed');
      await until(() => failures.length > 0);
      expect(failures).toMatchObject([
        { data: { agentId: 'a', error: expect.stringMatching(/agentTimeoutMs/) }, metadata: { source: GROUP } },
      ]);
      await a.report();
      await agentIs(bus, 'a', 'idle');
    });

    test('are seen the same by two buses, within 200 ms', async () => {
      const [one, other] = [await orchestras.bus(), await orchestras.bus()];
      const seen = [new Map<string, number>(), new Map<string, number>()];
      const ids = Array.from({ length: 10 }, (_, n) => `a${n}`);
      for (const id of ids) {
        await one.publish('agent.spawned', { agentId: id, agentType: 'worker', capabilities: [] });
        const look = () => {
          [one, other].forEach((bus, n) => {
            if (!seen[n].has(id) && viewOf(bus, id)) seen[n].set(id, Date.now());
          });
          return seen.every((times) => times.has(id));
        };
        await until(look, { everyMs: 2 });
      }
      const behind = ids.map((id) => Math.abs(seen[0].get(id)! - seen[1].get(id)!));
      expect(Math.max(...behind)).toBeLessThanOrEqual(200);
      await until(() => JSON.stringify(one.getAgents()) === JSON.stringify(other.getAgents()));
      const pools = [one, other].map((bus) => () => JSON.stringify(bus.getPools()));
      await until(() => pools[0]().includes('"capacity":10') && pools[0]() === pools[1](), { show: () => pools.map((pool) => pool()) });
    });

    test('are not made by events of agents that nobody knows', async () => {
      const bus = await orchestras.bus();
      const ghost = { agentId: 'ghost', agentType: 'worker', taskId: 't', reason: 'r', error: 'e', result: 1, duration: 1, timestamp: 1 };
      const types = ['agent.started', 'agent.stopped', 'agent.failed', 'agent.terminated'];
      for (const type of [...types, 'task.started', 'task.completed', 'task.failed', 'task.cancelled']) await bus.publish(type, raw(ghost));
      await bus.publish('performance.metrics', raw({ source: 'ghost', metrics: { cpu: 1 }, timestamp: 1 }));
      expect((await letter(bus, 'agent.started')).error).toMatch(/'ghost' is not known.*agent\.spawned/);
      await orchestras.agent(bus, 'a');
      expect(bus.getAgents().map(({ id }) => id)).toEqual(['a']);
      for (const type of types.slice(1)) expect(await letters(bus, type)).toEqual([]);
    });

    test('what an event lacks is named in its dead letter', async () => {
      const bus = await orchestras.bus();
      for (const [type, data] of INCOMPLETE) await bus.publish(type, raw(data));
      const all = async () => (await bus.deadLetters.list({ group: GROUP, limit: 100 })).items;
      await until(async () => (await all()).length >= INCOMPLETE.length);
      const found = await all();
      for (const [type, data, path] of INCOMPLETE) {
        const letter = found.find(({ eventType, event }) => eventType === type && JSON.stringify(event.data) === JSON.stringify(data));
        expect(letter).toMatchObject({ reason: 'permanent', attempts: 1 });
        expect(letter?.error).toContain(path);
      }
      expect(bus.getAgents()).toEqual([]);
    });

    test('beyond maxAgentsPerPool make further pools, none of which is overfull', async () => {
      const [bus, other] = [await orchestras.bus({ maxAgentsPerPool: 3 }), await orchestras.bus({ maxAgentsPerPool: 3 })];
      for (let n = 0; n < 7; n++) await orchestras.agent(bus, `a${n}`, { maxTasks: n + 1 });
      await until(() => bus.getPools().flatMap(({ agents }) => agents).length === 7, { show: () => bus.getPools() });
      const pools = bus.getPools();
      expect(pools.map(({ id }) => id).sort()).toEqual(['worker', 'worker-2', 'worker-3']);
      expect(pools.flatMap(({ agents }) => agents).sort()).toEqual(Array.from({ length: 7 }, (_, n) => `a${n}`));
      for (const { id, agents, capacity } of pools) {
        expect(agents.length).toBeLessThanOrEqual(3);
        const members = bus.getAgents().filter(({ poolId }) => poolId === id);
        expect(members.map((agent) => agent.id).sort()).toEqual([...agents].sort());
        expect(capacity).toBe(members.reduce((sum, { maxTasks }) => sum + maxTasks, 0));
      }
      expect(pools.reduce((sum, { capacity }) => sum + capacity, 0)).toBe(28);
      await until(() => JSON.stringify(other.getPools()) === JSON.stringify(bus.getPools()));
    });

    test('are known to a bus that comes later, and to the one that is left', async () => {
      const bus = await orchestras.bus();
      await orchestras.agent(bus, 'a');
      await bus.distributeTask(task('t', { data: 7 }));
      const later = await orchestras.bus();
      await agentIs(later, 'a', 'busy');
      expect(await later.getTask('t')).toMatchObject({ status: 'assigned', data: 7 });
      await bus.shutdown();
      const by = await orchestras.plain();
      await by.publish('task.completed', { taskId: 't', agentId: 'a', result: 1, duration: 1, timestamp: new Date() });
      await taskIs(later, 't', 'completed');
      expect(await later.distributeTask(task('u'))).toBe('a');
    });
  });

  describe('distributeTask', () => {
    test('refuses what is no task, with the path', async () => {
      const bus = await orchestras.bus();
      for (const [over, path] of WRONG) {
        const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.distributeTask(raw({ ...task('t'), ...over })));
        expect(error.details).toMatchObject({ argument: path });
      }
      await refusal('ERR_INVALID_ARGUMENT', () => bus.distributeTask(raw('t')));
      const unsendable = await refusal('ERR_NOT_SERIALIZABLE', () => bus.distributeTask(task('t', { data: { n: 1n } })));
      expect(unsendable.details).toMatchObject({ path: 'task.data.n' });
      expect(await bus.getTask('t')).toBeNull();
    });

    test('answers null for what waits, which is given out when an agent comes', async () => {
      const bus = await orchestras.bus();
      await orchestras.agent(bus, 'other', { capabilities: ['other'] });
      expect(await bus.distributeTask(task('t', { requiredCapabilities: ['other', 'work'] }))).toBeNull();
      expect(await bus.getTask('t')).toMatchObject({ status: 'queued', attempts: 0 });
      const able = await orchestras.agent(bus, 'able', { capabilities: ['work', 'more', 'other'] });
      await taskIs(bus, 't', 'assigned', 'able');
      await until(() => able.got.length === 1);
      expect(await bus.distributeTask(task('u', { requiredCapabilities: [] }))).toBe('other');
    });

    test('gives more urgent ones out first', async () => {
      const bus = await orchestras.bus();
      const priorities = [1, 9, 5, 9, -3, 5.5];
      for (const [n, priority] of priorities.entries()) await bus.distributeTask(task(`t${n}`, { priority }));
      const agent = await orchestras.agent(bus, 'a', { work: 'complete' });
      await until(() => agent.got.length === priorities.length, { show: () => agent.got });
      expect(agent.got).toEqual(['t1', 't3', 't5', 't2', 't0', 't4']);
    });

    test('tells an agent all of the task, once, and addresses it', async () => {
      const bus = await orchestras.bus();
      const said = await orchestras.said(bus, 'task.assigned');
      const agent = await orchestras.agent(bus, 'a');
      const data = { text: 'ü\n\t"', list: [1, { deep: null }], when: new Date(0) };
      await bus.distributeTask(task('t', { priority: 4, estimatedDuration: 1234, timeoutMs: 60_000, data, maxAttempts: 7 }));
      await until(() => agent.got.length === 1 && said.length === 1);
      const carried = { ...data, when: '1970-01-01T00:00:00.000Z' };
      expect(said).toMatchObject([
        {
          data: {
            ...{ taskId: 't', agentId: 'a', taskType: 'job', priority: 4, estimatedDuration: 1234, dependencies: [], data: carried },
            ...{ attempt: 1, timeoutMs: 60_000, requiredCapabilities: ['work'] },
          },
          metadata: { target: 'a', source: GROUP },
        },
      ]);
      const view = await bus.getTask('t');
      expect(view).toMatchObject({ data: carried, estimatedDuration: 1234, timeoutMs: 60_000, maxAttempts: 7, priority: 4 });
      await bus.distributeTask(task('u'));
      expect((await bus.getTask('u'))?.maxAttempts).toBe(3);
    });

    test('carries the correlation of its request along', async () => {
      const bus = await orchestras.bus();
      const said = await orchestras.said(bus, 'task.assigned');
      await orchestras.agent(bus, 'a');
      await bus.request('ossa.orchestration.distribute', task('t'), { correlationId: 'order 7' });
      await until(() => said.length === 1);
      expect(said[0]).toMatchObject({ data: { correlationId: 'order 7' }, metadata: { correlationId: 'order 7' } });
      expect(await bus.getTask('t')).toMatchObject({ correlationId: 'order 7' });
    });

    test('takes a task once, however often and by however many it is given', async () => {
      const [one, other] = [await orchestras.bus(), await orchestras.bus()];
      const said = await orchestras.said(one, 'task.assigned');
      const agents = [await orchestras.agent(one, 'a', { maxTasks: 15 }), await orchestras.agent(one, 'b', { maxTasks: 15 })];
      const ids = Array.from({ length: 20 }, (_, n) => `t${n}`);
      const twice = ids.flatMap((id) => [one.distributeTask(task(id)), other.distributeTask(task(id, { data: 'another' }))]);
      const given = await Promise.all(twice);
      ids.forEach((_, n) => void expect(given[2 * n]).toBe(given[2 * n + 1]));
      expect(new Set(given)).toEqual(new Set(['a', 'b']));
      expect(await one.distributeTask(task('t0'))).toBe(given[0]);
      // Ended ones are not taken again either.
      await agents[given[0] === 'a' ? 0 : 1].complete('t0', { attempt: 1 });
      await taskIs(one, 't0', 'completed');
      await other.distributeTask(task('t0'));
      expect(await other.getTask('t0')).toMatchObject({ status: 'completed', attempts: 1 });
      await one.distributeTask(task('mark'));
      await until(() => said.some(({ data }) => data.taskId === 'mark'));
      expect(said.map(({ data }) => data.taskId).sort()).toEqual([...ids, 'mark'].sort());
      expect(agents.flatMap(({ got }) => got).length).toBeLessThanOrEqual(21);
    });

    test('waits for dependencies, known or not yet', async () => {
      const bus = await orchestras.bus();
      const agent = await orchestras.agent(bus, 'a', { maxTasks: 3 });
      expect(await bus.distributeTask(task('c', { dependencies: ['a', 'b'] }))).toBeNull();
      expect(await bus.getTask('c')).toMatchObject({ status: 'waiting', dependencies: ['a', 'b'] });
      expect(await bus.distributeTask(task('a'))).toBe('a');
      expect(await bus.distributeTask(task('b', { dependencies: ['a'] }))).toBeNull();
      await until(() => agent.got.length === 1);
      await agent.complete('a', { attempt: 1 });
      await taskIs(bus, 'b', 'assigned');
      expect((await bus.getTask('c'))?.status).toBe('waiting');
      await agent.complete('b', { attempt: 1 });
      await taskIs(bus, 'c', 'assigned');
      expect(await bus.distributeTask(task('d', { dependencies: ['a', 'b'] }))).toBe('a');
    });

    test('what a task depends on takes it along when it fails or is cancelled', async () => {
      const bus = await orchestras.bus();
      const failures = await orchestras.said(bus, 'task.failed');
      const agent = await orchestras.agent(bus, 'a', { maxTasks: 2, work: ({ taskId }) => (taskId === 'bad' ? 'fail' : 'keep') });
      for (const [id, dependency] of [
        ['after bad', 'bad'],
        ['at last', 'after bad'],
        ['after unwanted', 'unwanted'],
      ])
        await bus.distributeTask(task(id, { dependencies: [dependency] }));
      await bus.distributeTask(task('unwanted'));
      await bus.distributeTask(task('bad', { maxAttempts: 1 }));
      expect((await taskIs(bus, 'after bad', 'failed')).error).toMatch(/'bad', on which it depends, failed/);
      expect((await taskIs(bus, 'at last', 'failed')).error).toMatch(/'after bad', on which it depends, failed/);
      expect(await bus.cancelTask('unwanted')).toBe(true);
      expect((await taskIs(bus, 'after unwanted', 'cancelled')).error).toMatch(/'unwanted', on which it depends, was cancelled/);
      const final = () => failures.filter(({ data }) => data.final === true).map(({ data }) => [data.taskId, data.reason]);
      await until(() => final().length === 3, { show: final });
      expect(final().sort()).toEqual([
        ['after bad', 'permanent'],
        ['at last', 'permanent'],
        ['bad', 'max-attempts'],
      ]);
      // Given now, when all is over.
      expect(await bus.distributeTask(task('late', { dependencies: ['bad'] }))).toBeNull();
      expect((await taskIs(bus, 'late', 'failed')).error).toMatch(/'bad', on which it depends, failed/);
      expect(agent.got.sort()).toEqual(['bad', 'unwanted']);
    });

    test('refuses a circle with the way it goes', async () => {
      const bus = await orchestras.bus();
      await bus.distributeTask(task('x', { dependencies: ['y'] }));
      await bus.distributeTask(task('y', { dependencies: ['z'] }));
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.distributeTask(task('z', { dependencies: ['other', 'x'] })));
      expect(error.details).toMatchObject({ argument: 'task.dependencies' });
      expect(error.message).toContain('z → x → y → z');
      const self = await refusal('ERR_INVALID_ARGUMENT', () => bus.distributeTask(task('s', { dependencies: ['s'] })));
      expect(self.message).toContain('s → s');
      expect(await bus.getTask('z')).toBeNull();
    });

    test('takes a task from an agent that does not end it in its time', async () => {
      const bus = await orchestras.bus();
      const slow = await orchestras.agent(bus, 'slow');
      expect(await bus.distributeTask(task('t', { timeoutMs: 200, maxAttempts: 2 }))).toBe('slow');
      await until(() => slow.got.length === 1);
      await orchestras.agent(bus, 'quick', { work: 'complete' });
      expect(await taskIs(bus, 't', 'completed')).toMatchObject({ agentId: 'quick', attempts: 2 });
      expect((await bus.getTask('t'))?.error).toMatch(/timeoutMs \(200 ms\)/);
      await agentIs(bus, 'slow', 'idle');
    });
  });

  describe('a task', () => {
    test('is seen in each part of its life', async () => {
      const bus = await orchestras.bus();
      expect(await bus.getTask('t')).toBeNull();
      await bus.distributeTask(task('t', { data: { n: 1 } }));
      const queued = await bus.getTask('t');
      expect(queued).toEqual({
        ...{ id: 't', type: 'job', priority: 0, requiredCapabilities: ['work'], dependencies: [], maxAttempts: 3, data: { n: 1 } },
        ...{ status: 'queued', attempts: 0, submittedAt: expect.any(Date) },
      });
      const agent = await orchestras.agent(bus, 'a');
      const assigned = await taskIs(bus, 't', 'assigned', 'a');
      expect(assigned.assignedAt!.getTime()).toBeGreaterThanOrEqual(queued!.submittedAt.getTime());
      expect(assigned).not.toHaveProperty('startedAt');
      await agent.begin('t', { attempt: 1 });
      const running = await taskIs(bus, 't', 'running', 'a');
      expect(running).toMatchObject({ startedAt: expect.any(Date), attempts: 0, data: { n: 1 } });
      await agent.complete('t', { attempt: 1, result: { made: [1, 2] } });
      const completed = await taskIs(bus, 't', 'completed', 'a');
      expect(completed).toMatchObject({ attempts: 1, result: { made: [1, 2] }, endedAt: expect.any(Date) });
      expect(completed).not.toHaveProperty('data');
      expect(completed.endedAt!.getTime()).toBeGreaterThanOrEqual(running.startedAt!.getTime());
    });

    test('is cancelled while it waits, while it is with an agent, and never after', async () => {
      const bus = await orchestras.bus();
      const said = await orchestras.said(bus, 'task.cancelled');
      expect(await bus.cancelTask('unknown')).toBe(false);
      await bus.distributeTask(task('queued'));
      await bus.distributeTask(task('waiting', { dependencies: ['never'] }));
      expect(await bus.cancelTask('queued', 'not wanted')).toBe(true);
      expect(await bus.cancelTask('waiting')).toBe(true);
      expect(await bus.getTask('queued')).toMatchObject({ status: 'cancelled', error: 'not wanted', endedAt: expect.any(Date) });
      expect(await bus.cancelTask('queued')).toBe(false);
      const agent = await orchestras.agent(bus, 'a', { maxTasks: 2 });
      await bus.distributeTask(task('assigned'));
      await bus.distributeTask(task('running'));
      await until(() => agent.got.length === 2);
      await agent.begin('running', { attempt: 1 });
      await taskIs(bus, 'running', 'running');
      expect(await bus.cancelTask('assigned', 'changed our mind')).toBe(true);
      expect(await bus.cancelTask('running')).toBe(true);
      await agentIs(bus, 'a', 'idle');
      expect(await bus.distributeTask(task('mark'))).toBe('a');
      await until(() => agent.got.length === 3);
      // What it says of them comes too late.
      await agent.complete('running', { attempt: 1 });
      await agent.complete('assigned', { attempt: 1 });
      await agent.complete('mark', { attempt: 1 });
      await taskIs(bus, 'mark', 'completed');
      expect(await bus.cancelTask('mark')).toBe(false);
      for (const id of ['assigned', 'running']) expect(await bus.getTask(id)).toMatchObject({ status: 'cancelled' });
      await until(() => said.length === 4, { show: () => said });
      expect(said.map(({ data, metadata }) => [data.taskId, data.agentId, data.reason, metadata.target])).toEqual([
        ['queued', null, 'not wanted', undefined],
        ['waiting', null, expect.any(String), undefined],
        ['assigned', 'a', 'changed our mind', 'a'],
        ['running', 'a', expect.any(String), 'a'],
      ]);
      expect(agent.got).toEqual(['assigned', 'running', 'mark']);
    });

    test('is cancelled by the event of a user, too', async () => {
      const bus = await orchestras.bus();
      await orchestras.agent(bus, 'a');
      await bus.distributeTask(task('t'));
      await bus.publish('task.cancelled', { taskId: 't', agentId: 'a', reason: 'by hand', timestamp: new Date() });
      expect(await taskIs(bus, 't', 'cancelled')).toMatchObject({ error: 'by hand' });
      await agentIs(bus, 'a', 'idle');
    });

    test('is nothing to an agent that was given up for its silence', async () => {
      const bus = await orchestras.bus({ agentTimeoutMs: 700 });
      const silent = await orchestras.agent(bus, 'silent');
      expect(await bus.distributeTask(task('t'))).toBe('silent');
      const other = await orchestras.agent(bus, 'other', { maxTasks: 2 });
      orchestras.reports(other);
      await taskIs(bus, 't', 'assigned', 'other');
      expect(await bus.distributeTask(task('mark'))).toBe('other');
      await silent.complete('t', { attempt: 1, result: 'late' });
      await silent.complete('t', { result: 'late' });
      await other.complete('t', { attempt: 1, result: 'of another attempt' });
      await silent.fail('t', { attempt: 1 });
      await other.complete('mark', { attempt: 1 });
      await taskIs(bus, 'mark', 'completed');
      expect(await bus.getTask('t')).toMatchObject({ status: 'assigned', agentId: 'other' });
      await other.complete('t', { attempt: 2, result: 'in time' });
      expect(await taskIs(bus, 't', 'completed')).toMatchObject({ agentId: 'other', result: 'in time', attempts: 2 });
      await silent.complete('t', { attempt: 1, result: 'later still' });
      await agentIs(bus, 'silent', 'idle');
      expect(await bus.getTask('t')).toMatchObject({ agentId: 'other', result: 'in time' });
      expect(silent.got).toEqual(['t']);
    });

    test('whose attempts are used up is announced and a dead letter; redriven, it begins anew', async () => {
      const bus = await orchestras.bus();
      const said = await orchestras.said(bus, 'task.failed');
      const agent = await orchestras.agent(bus, 'a', { work: 'fail' });
      await bus.distributeTask(task('t', { maxAttempts: 2, data: { n: 1 } }));
      expect(await taskIs(bus, 't', 'failed')).toMatchObject({ attempts: 2, error: 'a cannot', data: { n: 1 }, endedAt: expect.any(Date) });
      const final = () => said.filter(({ data }) => data.final === true);
      await until(() => final().length > 0);
      expect(final()).toMatchObject([
        {
          data: {
            taskId: 't',
            agentId: 'a',
            error: 'a cannot',
            attempts: 2,
            reason: 'max-attempts',
            task: { id: 't', type: 'job', data: { n: 1 } },
          },
          metadata: { source: GROUP },
        },
      ]);
      const { id: lettered } = await letter(bus, 'task.failed');
      expect(await letters(bus, 'task.failed')).toMatchObject([
        { reason: 'max-attempts', error: expect.stringContaining('a cannot'), event: { data: { taskId: 't' } } },
      ]);
      agent.work = 'complete';
      expect(await bus.deadLetters.redrive({ ids: [lettered] })).toBe(1);
      expect(await taskIs(bus, 't', 'completed')).toMatchObject({ attempts: 1, result: 'by a' });
      expect(agent.tasks.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
      expect(agent.tasks[2]).toMatchObject({ data: { n: 1 } });
      expect(await letters(bus, 'task.failed')).toEqual([]);
      expect(final().length).toBe(1);
    });

    test('that fails again after it was redriven is a dead letter again', async () => {
      const bus = await orchestras.bus();
      const agent = await orchestras.agent(bus, 'a', { work: 'fail' });
      await bus.distributeTask(task('t', { maxAttempts: 1 }));
      const { id } = await letter(bus, 'task.failed');
      await bus.deadLetters.redrive({ ids: [id] });
      expect(await letter(bus, 'task.failed', id)).toMatchObject({ reason: 'max-attempts', event: { data: { taskId: 't', final: true } } });
      expect(agent.tasks.map(({ attempt }) => attempt)).toEqual([1, 2]);
    });

    test('that an agent says another attempt would not help is given up at once', async () => {
      const bus = await orchestras.bus();
      const agent = await orchestras.agent(bus, 'a', { work: 'fail for good' });
      await bus.distributeTask(task('t', { maxAttempts: 5 }));
      expect(await taskIs(bus, 't', 'failed')).toMatchObject({ attempts: 1 });
      const given = { taskId: 't', reason: 'permanent', final: true };
      expect(await letter(bus, 'task.failed')).toMatchObject({ reason: 'permanent', event: { data: given } });
      expect(agent.got).toEqual(['t']);
    });

    test('whose beginning nobody heard of began as long before its end as its agent says', async () => {
      const bus = await orchestras.bus();
      const agent = await orchestras.agent(bus, 'a');
      await bus.distributeTask(task('t'));
      const { assignedAt } = await taskIs(bus, 't', 'assigned');
      await until(() => Date.now() > assignedAt!.getTime() + 60);
      await agent.complete('t', { attempt: 1, duration: 50 });
      const { startedAt, endedAt } = await taskIs(bus, 't', 'completed');
      expect(startedAt!.getTime()).toBeGreaterThanOrEqual(assignedAt!.getTime());
      expect(endedAt!.getTime() - startedAt!.getTime()).toBeGreaterThanOrEqual(50);
    });

    test('that was handed back was no attempt', async () => {
      const bus = await orchestras.bus();
      const a = await orchestras.agent(bus, 'a');
      expect(await bus.distributeTask(task('t', { maxAttempts: 1 }))).toBe('a');
      await orchestras.agent(bus, 'b', { work: 'complete' });
      await a.fail('t', { attempt: 1, handedBack: true });
      expect(await taskIs(bus, 't', 'completed')).toMatchObject({ agentId: 'b', attempts: 1 });
    });
  });

  describe('strategies', () => {
    const names = ['round-robin', 'least-loaded', 'capability-based', 'performance-weighted', 'predictive'] as const;

    test.each(names)('%s gives tasks out', async (name) => {
      const bus = await orchestras.bus({ distributionStrategy: { name } });
      const agents = [];
      for (const id of ['a', 'b', 'c']) agents.push(await orchestras.agent(bus, id, { maxTasks: 2, work: 'complete' }));
      const ids = Array.from({ length: 12 }, (_, n) => `t${n}`);
      await Promise.all(ids.map((id) => bus.distributeTask(task(id, { estimatedDuration: 10 }))));
      for (const id of ids) await taskIs(bus, id, 'completed');
      expect(agents.flatMap(({ got }) => got).sort()).toEqual([...ids].sort());
    });
  });

  test('a bus that takes no part refuses, and its agents work for those that do', async () => {
    const bus = await orchestras.bus();
    const apart = await orchestras.bus({}, { orchestration: { enabled: false } });
    expect((await refusal('ERR_DISABLED', () => apart.distributeTask(task('t')))).message).toMatch(/orchestration\.enabled/);
    await refusal('ERR_DISABLED', () => apart.cancelTask('t'));
    await refusal('ERR_DISABLED', () => apart.getTask('t'));
    await refusal('ERR_DISABLED', () => apart.getAgents());
    expect(apart.getOrchestrationOptimizer()).toBeUndefined();
    expect((await apart.getStatus()).orchestration).toBeUndefined();
    await orchestras.agent(bus, 'a', { work: 'complete' }, apart);
    expect(await bus.distributeTask(task('t'))).toBe('a');
    await taskIs(bus, 't', 'completed');
    expect(bus.getOrchestrationOptimizer()!.getAgents()).toEqual(bus.getAgents());
    await until(async () => (await bus.getStatus()).orchestration?.totalAgents === 1);
    expect((await bus.getStatus()).orchestration).toMatchObject({ totalAgents: 1, totalPools: 1 });
    expect((await bus.healthCheck()).components['orchestration']).toMatchObject({ status: 'healthy' });
  });
});

test.each([
  [{ name: 'round-robin', parameters: { newcomerShare: 0.2 } }, 'newcomerShare'],
  [{ name: 'performance-weighted', parameters: { newcomers: 0.2 } }, 'newcomers'],
  [{ name: 'performance-weighted', parameters: { newcomerShare: 2 } }, 'newcomerShare'],
])('the parameters of %j are refused', async (distributionStrategy, key) => {
  const config = { orchestration: { config: { distributionStrategy } } };
  const error = await refusal('ERR_INVALID_CONFIG', () => new OSSAEventBus(null, config as any));
  expect(error.details).toMatchObject({ path: `orchestration.config.distributionStrategy.parameters.${key}` });
});

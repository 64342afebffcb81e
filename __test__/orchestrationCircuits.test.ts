/** The circuit breakers of agents: one for each, the same for all processes. */
import type { AgentCircuitChange, OSSAEventBus } from '@bluefly/ossa';
import { type OwnAgent, task, taskIs, useOrchestras, viewOf } from './support/orchestras';
import { until } from './support/wait';
import { storesWithCluster } from './support/world';

/** Opens after three failures, and is tried after `resetTimeout`. */
const breaker = (resetTimeout: number) => ({
  circuitBreaker: { failureThreshold: 0.5, minimumCalls: 3, monitoringPeriod: 60_000, resetTimeout },
});

/** What a bus tells of circuits. */
function changes(bus: OSSAEventBus): AgentCircuitChange[] {
  const seen: AgentCircuitChange[] = [];
  bus.on('agent:circuit:changed', (change) => void seen.push(change));
  return seen;
}

const circuitIs = (bus: OSSAEventBus, id: string, circuit: string) =>
  until(() => viewOf(bus, id)?.circuit === circuit, { show: () => viewOf(bus, id) });

/** Has the agent fail as many tasks, one after the other. */
async function fails(bus: OSSAEventBus, agent: OwnAgent, count: number): Promise<void> {
  agent.work = 'fail';
  for (let n = 0; n < count; n++) {
    const id = `failing ${agent.got.length}`;
    await bus.distributeTask(task(id, { maxAttempts: 1 }));
    await taskIs(bus, id, 'failed', agent.id);
  }
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const orchestras = useOrchestras(kind);

  test('an agent that fails gets no tasks, and all processes know', async () => {
    const [one, other] = [await orchestras.bus(breaker(60_000)), await orchestras.bus(breaker(60_000))];
    const told = [changes(one), changes(other)];
    const breached = await orchestras.said(one, 'performance.threshold');
    const bad = await orchestras.agent(one, 'bad', { maxTasks: 5 });
    await until(() => viewOf(other, 'bad'));
    await fails(one, bad, 2);
    expect(viewOf(one, 'bad')?.circuit).toBe('closed');
    await fails(one, bad, 1);
    await circuitIs(one, 'bad', 'open');
    await circuitIs(other, 'bad', 'open');
    for (const seen of told) {
      await until(() => seen.length > 0);
      expect(seen).toEqual([{ agentId: 'bad', from: 'closed', to: 'open' }]);
    }
    await until(() => breached.length > 0);
    expect(breached).toMatchObject([
      {
        data: { metric: 'errorRate', threshold: 50, currentValue: 100, severity: 'critical', source: 'bad' },
        metadata: { source: 'ossa-orchestration' },
      },
    ]);
    expect((await other.healthCheck()).components['orchestration']).toMatchObject({ status: 'degraded' });
    // Whoever is asked: nothing for it, until somebody else comes.
    expect(await one.distributeTask(task('t1'))).toBeNull();
    expect(await other.distributeTask(task('t2'))).toBeNull();
    const good = await orchestras.agent(one, 'good', { work: 'complete' });
    for (const id of ['t1', 't2']) await taskIs(one, id, 'completed', 'good');
    expect([bad.got.length, good.got.length]).toEqual([3, 2]);
    // Another process that leads knows it too.
    await one.shutdown();
    const later = await orchestras.bus(breaker(60_000));
    await circuitIs(later, 'bad', 'open');
    expect(await later.distributeTask(task('t3'))).toBe('good');
  });

  test('is tried with one task after resetTimeout: that closes it', async () => {
    const bus = await orchestras.bus(breaker(400));
    const other = await orchestras.bus(breaker(400));
    const told = [changes(bus), changes(other)];
    const agent = await orchestras.agent(bus, 'a', { maxTasks: 5 });
    await until(() => viewOf(other, 'a'));
    await fails(bus, agent, 3);
    await circuitIs(bus, 'a', 'open');
    agent.work = 'keep';
    await Promise.all(['t1', 't2', 't3'].map((id) => bus.distributeTask(task(id))));
    await circuitIs(bus, 'a', 'half-open');
    await until(() => agent.got.length === 4, { show: () => agent.got });
    // One is with it, the others wait, also those that come now.
    expect(await other.distributeTask(task('t4'))).toBeNull();
    expect(viewOf(bus, 'a')?.circuit).toBe('half-open');
    expect(agent.got.length).toBe(4);
    agent.work = 'complete';
    await agent.complete(agent.got[3], { attempt: 1 });
    for (const id of ['t1', 't2', 't3', 't4']) await taskIs(bus, id, 'completed');
    await circuitIs(other, 'a', 'closed');
    const expected = [
      { agentId: 'a', from: 'closed', to: 'open' },
      { agentId: 'a', from: 'open', to: 'half-open' },
      { agentId: 'a', from: 'half-open', to: 'closed' },
    ];
    for (const seen of told) {
      await until(() => seen.length >= 3, { show: () => seen });
      expect(seen).toEqual(expected);
    }
  });

  test('opens again when the trial fails', async () => {
    const bus = await orchestras.bus(breaker(400));
    const seen = changes(bus);
    const agent = await orchestras.agent(bus, 'a', { maxTasks: 5 });
    await fails(bus, agent, 3);
    agent.work = 'keep';
    await bus.distributeTask(task('trial', { maxAttempts: 1 }));
    await bus.distributeTask(task('next'));
    await until(() => agent.got.length === 4);
    const failedAt = Date.now();
    await agent.fail('trial', { attempt: 1 });
    await taskIs(bus, 'trial', 'failed');
    agent.work = 'complete';
    await taskIs(bus, 'next', 'completed');
    expect(agent.got.slice(3)).toEqual(['trial', 'next']);
    // It waited for as long as before.
    expect(Date.now() - failedAt).toBeGreaterThanOrEqual(400);
    await until(() => seen.length >= 5, { show: () => seen });
    expect(seen.map(({ to }) => to)).toEqual(['open', 'half-open', 'open', 'half-open', 'closed']);
  });

  test('a trial that says nothing of the agent is followed by another', async () => {
    const bus = await orchestras.bus(breaker(300));
    const agent = await orchestras.agent(bus, 'a');
    await fails(bus, agent, 3);
    agent.work = 'keep';
    await bus.distributeTask(task('trial'));
    await until(() => agent.got.length === 4);
    expect(await bus.cancelTask('trial')).toBe(true);
    agent.work = 'complete';
    await bus.distributeTask(task('next'));
    await taskIs(bus, 'next', 'completed');
    await circuitIs(bus, 'a', 'closed');
  });

  test('stays closed while failures are fewer than the threshold', async () => {
    const bus = await orchestras.bus(breaker(60_000));
    const seen = changes(bus);
    const agent = await orchestras.agent(bus, 'a', { work: 'complete' });
    for (let n = 0; n < 4; n++) {
      await bus.distributeTask(task(`t${n}`));
      await taskIs(bus, `t${n}`, 'completed');
    }
    // 3 of 7 are 43 %, 4 of 8 are 50.
    await fails(bus, agent, 3);
    expect(await bus.distributeTask(task('mark', { maxAttempts: 1 }))).toBe('a');
    expect(seen).toEqual([]);
    await taskIs(bus, 'mark', 'failed');
    await circuitIs(bus, 'a', 'open');
  });
});

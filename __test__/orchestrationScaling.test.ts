/** When a bus asks for more agents, or for fewer, and what it says of strain. */
import type { OSSAEventBus, ScaleEvent } from '@bluefly/ossa';
import { agentIs, type Orchestras, type OwnAgent, type Said, task, taskIs, useOrchestras, viewOf } from './support/orchestras';
import { until } from './support/wait';
import { storesWithCluster } from './support/world';

/** Time between two announcements of a pool, ms. */
const COOLDOWN = 600;
const scaling = { autoScaling: { cooldownPeriod: COOLDOWN } };

/** Announcements of a pool. */
const of = (said: Said[], poolId: string): ScaleEvent[] => said.map(({ data }) => data).filter((data) => data.poolId === poolId);

/** Waits until so many announcements of a pool were made, and fails if there are more. */
async function announced(said: Said[], poolId: string, count: number): Promise<ScaleEvent[]> {
  await until(() => of(said, poolId).length >= count, { show: () => said.map(({ data }) => data) });
  expect(of(said, poolId)).toHaveLength(count);
  return of(said, poolId);
}

/** Waits for longer than any pool that is there now waits with its next announcement: another pool, made now, is asked to grow. */
async function mark(orchestras: Orchestras, bus: OSSAEventBus, said: Said[], id: string): Promise<void> {
  await orchestras.agent(bus, id, { agentType: id, capabilities: [id] });
  for (const n of [1, 2]) await bus.distributeTask(task(`${id} ${n}`, { requiredCapabilities: [id] }));
  await until(() => of(said, id).length > 0, { show: () => said.map(({ data }) => data) });
}

describe.each(storesWithCluster)('on %s', (kind) => {
  const orchestras = useOrchestras(kind);

  test('a pool whose places are in use is asked to grow, by one process, not too often, and not beyond its maximum', async () => {
    const config = { ...scaling, maxAgentsPerPool: 3 };
    const [one, other] = [await orchestras.bus(config), await orchestras.bus(config)];
    const [up, down] = [await orchestras.said(one, 'orchestration.scale_up'), await orchestras.said(one, 'orchestration.scale_down')];
    const [exhausted, breached] = [await orchestras.said(one, 'resource.exhausted'), await orchestras.said(one, 'performance.threshold')];
    await orchestras.agent(one, 'a');
    for (let n = 0; n < 8; n++) await one.distributeTask(task(`t${n}`));
    const [first] = await announced(up, 'worker', 1);
    expect(first).toEqual({
      poolId: 'worker',
      agentType: 'worker',
      current: 1,
      desired: 2,
      reason: expect.stringMatching(/7 tasks wait.*80 %/),
    });
    await until(() => breached.length > 0);
    expect(breached[0].data).toMatchObject({
      metric: 'utilization',
      threshold: 80,
      currentValue: expect.any(Number),
      severity: 'warning',
      source: 'worker',
    });
    expect(breached[0].data.currentValue).toBeGreaterThanOrEqual(80);
    await orchestras.agent(one, 'b');
    expect((await announced(up, 'worker', 2))[1]).toMatchObject({ current: 2, desired: 3 });
    // Another process leads: it goes on from there.
    await one.shutdown();
    const [later, goneOn] = [await orchestras.said(other, 'orchestration.scale_up'), await orchestras.said(other, 'resource.exhausted')];
    await until(() => later.length === 2);
    expect((await announced(later, 'worker', 3))[2]).toMatchObject({ current: 2, desired: 3 });
    await orchestras.agent(other, 'c');
    await until(() => goneOn.length > 0);
    expect(goneOn[0].data).toMatchObject({ resourceType: 'agents:worker', threshold: 3, current: 3 });
    expect(of(later, 'worker')).toHaveLength(3);
    await until(() => goneOn.length > 1);
    for (const said of [later, goneOn]) {
      const times = said.map(({ metadata }) => metadata.timestamp.getTime());
      // By the time of publishing, which is a little later, each time by as much as writing took.
      for (let n = 1; n < times.length; n++) expect(times[n] - times[n - 1]).toBeGreaterThanOrEqual(COOLDOWN - 150);
    }
    expect([exhausted, down]).toEqual([[], []]);
  });

  test('a pool with too few is asked to grow to its minimum, until it has', async () => {
    const bus = await orchestras.bus({ ...scaling, minAgentsPerPool: 3 });
    const up = await orchestras.said(bus, 'orchestration.scale_up');
    await orchestras.agent(bus, 'a');
    const [first] = await announced(up, 'worker', 1);
    expect(first).toMatchObject({ agentType: 'worker', current: 1, desired: 3, reason: expect.stringMatching(/minAgentsPerPool, 3/) });
    for (const id of ['b', 'c']) await orchestras.agent(bus, id);
    await mark(orchestras, bus, up, 'mark');
    await announced(up, 'worker', 1);
    await bus.publish('agent.failed', { agentId: 'b', error: 'e', timestamp: new Date() });
    expect((await announced(up, 'worker', 2))[1]).toMatchObject({ current: 2, desired: 3 });
  });

  test('an idle pool lets agents go, down to its minimum: they get no tasks, and are waited for', async () => {
    const [bus, other] = [
      await orchestras.bus({ ...scaling, minAgentsPerPool: 1 }),
      await orchestras.bus({ ...scaling, minAgentsPerPool: 1 }),
    ];
    const [up, down] = [await orchestras.said(bus, 'orchestration.scale_up'), await orchestras.said(bus, 'orchestration.scale_down')];
    const agents: OwnAgent[] = [];
    for (const id of ['a', 'b', 'c', 'd']) agents.push(await orchestras.agent(bus, id, { capabilities: ['work', id] }));
    expect(await bus.distributeTask(task('t', { requiredCapabilities: ['b'] }))).toBe('b');
    const [first] = await announced(down, 'worker', 1);
    // By one task at a time two agents are used by half.
    expect(first).toMatchObject({
      agentType: 'worker',
      current: 4,
      desired: 2,
      reason: expect.stringMatching(/scaleDownThreshold is 30 %/),
    });
    const going = [...first.agentIds!].sort();
    expect(going).toHaveLength(2);
    expect(['a', 'c', 'd']).toEqual(expect.arrayContaining(going));
    for (const watching of [bus, other]) for (const id of going) await agentIs(watching, id, 'draining');
    const left = ['a', 'c', 'd'].find((id) => !going.includes(id))!;
    expect(await bus.distributeTask(task(going[0], { requiredCapabilities: [going[0]] }))).toBeNull();
    expect(await bus.cancelTask(going[0])).toBe(true);
    expect(await bus.distributeTask(task('u'))).toBe(left);
    // Now one would do, but those two are there still.
    await agents.find(({ id }) => id === left)!.complete('u', { attempt: 1 });
    await agents[1].complete('t', { attempt: 1 });
    await taskIs(bus, 't', 'completed');
    await mark(orchestras, bus, up, 'mark');
    await announced(down, 'worker', 1);
    for (const id of going) await bus.publish('agent.terminated', { agentId: id, reason: 'scaled down', timestamp: new Date() });
    const [, second] = await announced(down, 'worker', 2);
    expect(second).toMatchObject({ current: 2, desired: 1 });
    expect(second.agentIds).toHaveLength(1);
    await bus.publish('agent.terminated', { agentId: second.agentIds![0], reason: 'scaled down', timestamp: new Date() });
    await agentIs(bus, second.agentIds![0], 'terminated');
    await mark(orchestras, bus, up, 'another-mark');
    await announced(down, 'worker', 2);
    expect(of(up, 'worker')).toEqual([]);
    expect(bus.getPools().find(({ id }) => id === 'worker')?.agents).toHaveLength(1);
  });

  test('a pool between the thresholds is left as it is', async () => {
    const bus = await orchestras.bus({ ...scaling, minAgentsPerPool: 1 });
    const [up, down] = [await orchestras.said(bus, 'orchestration.scale_up'), await orchestras.said(bus, 'orchestration.scale_down')];
    await orchestras.agent(bus, 'a', { maxTasks: 4 });
    await orchestras.agent(bus, 'b', { maxTasks: 4 });
    for (let n = 0; n < 4; n++) await bus.distributeTask(task(`t${n}`));
    await mark(orchestras, bus, up, 'mark');
    expect([of(up, 'worker'), of(down, 'worker')]).toEqual([[], []]);
  });

  test.each([
    [
      'performance.threshold',
      { metric: 'latency', threshold: 1, currentValue: 2, severity: 'critical', source: 'worker' },
      'latency of worker is over its threshold',
    ],
    [
      'performance.bottleneck',
      { component: 'worker', bottleneckType: 'io', impact: 'slow', recommendations: [] },
      'worker is a bottleneck',
    ],
    ['resource.exhausted', { resourceType: 'worker', threshold: 1, current: 1 }, 'worker is exhausted'],
  ])('a pool of which %s says that it is strained is asked to grow', async (type, data, reason) => {
    const bus = await orchestras.bus({ ...scaling, minAgentsPerPool: 1 });
    const up = await orchestras.said(bus, 'orchestration.scale_up');
    await orchestras.agent(bus, 'a', { maxTasks: 2 });
    await bus.distributeTask(task('t'));
    await bus.publish(type, { ...data, timestamp: new Date() } as any);
    const [first] = await announced(up, 'worker', 1);
    expect(first).toMatchObject({ current: 1, desired: 2, reason });
    // It was said once.
    await mark(orchestras, bus, up, 'mark');
    await announced(up, 'worker', 1);
  });

  test('an agent of which it is said that it is strained gets tasks last', async () => {
    const bus = await orchestras.bus({ distributionStrategy: { name: 'least-loaded' } });
    for (const id of ['a', 'b']) await orchestras.agent(bus, id, { maxTasks: 3 });
    await bus.publish('resource.exhausted', {
      resourceType: 'memory',
      threshold: 1,
      current: 1,
      timestamp: new Date(),
      agentId: 'a',
    } as any);
    await until(() => viewOf(bus, 'a')?.performance.loadFactor === 1, { show: () => viewOf(bus, 'a') });
    const given = [];
    for (let n = 0; n < 4; n++) given.push(await bus.distributeTask(task(`t${n}`)));
    expect(given).toEqual(['b', 'b', 'b', 'a']);
  });

  test('tasks that nobody can do and agents that are slower than others are told to be bottlenecks', async () => {
    const [bus, other] = [await orchestras.bus(), await orchestras.bus()];
    const told = await orchestras.said(other, 'performance.bottleneck');
    const ids = ['a', 'b', 'c', 'snail'];
    for (const id of ids) {
      const agent = await orchestras.agent(bus, id, { capabilities: [id], maxTasks: 10 });
      const each = Array.from({ length: 5 }, (_, n) => `${id} ${n}`);
      for (const name of each) await bus.distributeTask(task(name, { requiredCapabilities: [id], estimatedDuration: 100 }));
      for (const name of each) await agent.complete(name, { attempt: 1, duration: id === 'snail' ? 1000 : 100 });
      for (const name of each) await taskIs(bus, name, 'completed');
    }
    for (const id of ['t', 'u']) expect(await bus.distributeTask(task(id, { requiredCapabilities: ['sing', 'dance'] }))).toBeNull();
    await until(() => told.length >= 2, { show: () => told });
    const lonely = told.find(({ data }) => data.bottleneckType === 'no-agent')!;
    expect(lonely).toMatchObject({
      data: {
        component: 'task-queue',
        impact: expect.stringMatching(/2 tasks wait.*dance, sing/),
        recommendations: [expect.stringMatching(/dance, sing/)],
      },
      metadata: { source: 'ossa-orchestration' },
    });
    const slow = told.find(({ data }) => data.bottleneckType === 'slow-agent')!;
    expect(slow.data).toMatchObject({
      component: 'snail',
      impact: expect.stringMatching(/10\.0 times/),
      recommendations: expect.any(Array),
    });
    expect(told).toHaveLength(2);
  });
});

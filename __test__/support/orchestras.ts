/** Buses of one test that orchestrate agents, and agents that live by events alone; all closed when the test is over. */
import {
  createOSSAEventBus,
  type DeepPartial,
  type EventBus,
  type EventMetadata,
  type LoadBalancingConfig,
  type OrchestrationTask,
  type OSSAEventBus,
  type OSSAEventBusConfig,
  type RedisEventBus,
} from './package';
import { pause, until } from './wait';
import { type StoreKind, World } from './world';

type Config = DeepPartial<LoadBalancingConfig>;

/** An event that was published. */
export interface Said {
  data: any;
  metadata: EventMetadata;
}

/** What an agent does with a task it is told of; nothing: it keeps it. */
export type Work = 'complete' | 'fail' | 'fail for good' | 'keep' | 'begin';

/** A user's own agent: it hears `task.assigned` and says what it does by plain events. */
export class OwnAgent {
  /** What it was told of, in order. */
  readonly tasks: any[] = [];

  constructor(
    readonly bus: EventBus<any>,
    readonly id: string,
    public work: Work | ((task: any) => Work | Promise<Work>),
  ) {}

  /** Ids of the tasks it was told of. */
  get got(): string[] {
    return this.tasks.map(({ taskId }) => taskId);
  }

  say(type: string, data: object = {}): Promise<string> {
    return this.bus.publish(type, { agentId: this.id, reason: 'as told', timestamp: new Date(), ...data } as any);
  }

  begin = (taskId: string, more: object = {}) => this.say('task.started', { taskId, ...more });
  complete = (taskId: string, more: object = {}) => this.say('task.completed', { taskId, result: `by ${this.id}`, duration: 5, ...more });
  fail = (taskId: string, more: object = {}) => this.say('task.failed', { taskId, error: `${this.id} cannot`, ...more });

  /** It is well. */
  report(metrics: object = {}): Promise<string> {
    const figures = { cpu: 0, memory: 0, responseTime: 0, throughput: 0, errorRate: 0, ...metrics };
    return this.bus.publish('performance.metrics', { source: this.id, metrics: figures, timestamp: new Date() });
  }

  async take(task: any): Promise<void> {
    this.tasks.push(task);
    const { taskId, attempt } = task;
    const work = typeof this.work === 'function' ? await this.work(task) : this.work;
    if (work === 'complete') await this.complete(taskId, { attempt });
    if (work === 'begin') await this.begin(taskId, { attempt });
    if (work === 'fail') await this.fail(taskId, { attempt });
    if (work === 'fail for good') await this.fail(taskId, { attempt, permanent: true });
  }
}

/** How an agent is made. */
export interface OwnAgentOptions {
  agentType?: string;
  capabilities?: string[];
  maxTasks?: number;
  work?: OwnAgent['work'];
}

/** One test's buses and agents. */
export class Orchestras {
  readonly world: World;
  readonly #buses = new Set<OSSAEventBus>();
  #listeners = 0;
  readonly #reporting: Array<() => Promise<void>> = [];

  constructor(kind: StoreKind) {
    this.world = new World(kind);
  }

  /** A bus that takes part. Pools are never asked for more agents unless the test says so. */
  async bus(config: Config = {}, over: DeepPartial<OSSAEventBusConfig> = {}): Promise<OSSAEventBus> {
    const eventBus = this.world.config(over.eventBus);
    const orchestration = { config: { minAgentsPerPool: 0, ...config }, ...over.orchestration };
    const bus = await createOSSAEventBus(null, { ...over, eventBus, orchestration });
    this.#buses.add(bus);
    return bus;
  }

  /** A bus that does not. */
  plain(over: Parameters<World['bus']>[0] = {}): Promise<RedisEventBus> {
    return this.world.bus(over);
  }

  /** An agent that is known to `bus`. */
  async agent(bus: OSSAEventBus, id: string, options: OwnAgentOptions = {}, by: EventBus<any> = bus): Promise<OwnAgent> {
    const { agentType = 'worker', capabilities = ['work'], maxTasks = 1, work = 'keep' } = options;
    const agent = new OwnAgent(by, id, work);
    const take = (event: Said) => (event.data.agentId === id ? agent.take(event.data) : undefined);
    await by.subscribe('task.assigned', take, { group: `agent-${id}`, startFrom: 'beginning', concurrency: 100 });
    await by.publish('agent.spawned', { agentId: id, agentType, capabilities, configuration: { maxTasks } });
    await until(() => viewOf(bus, id), { show: () => bus.getAgents() });
    return agent;
  }

  /** The agent says that it is well until the answer is called, or the test ends. */
  reports(agent: OwnAgent, everyMs = 100): () => Promise<void> {
    let ended = false;
    const reporting = (async () => {
      for (; !ended; await pause(everyMs)) await agent.report();
    })();
    const end = () => {
      ended = true;
      return reporting;
    };
    this.#reporting.push(end);
    return end;
  }

  /** What is published of a type, from the beginning. */
  async said(bus: EventBus<any>, type: string): Promise<Said[]> {
    const said: Said[] = [];
    const group = `listeners-${++this.#listeners}`;
    await bus.subscribe(type, (event) => void said.push(event), { group, startFrom: 'beginning' });
    return said;
  }

  async end(): Promise<void> {
    await Promise.allSettled(this.#reporting.map((end) => end()));
    await Promise.all([...this.#buses].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    await this.world.end();
  }
}

/** Orchestras for each test of the surrounding describe block. */
export function useOrchestras(kind: StoreKind): Orchestras {
  let current: Orchestras | undefined;
  beforeEach(() => {
    current = new Orchestras(kind);
  });
  afterEach(() => current?.end());
  return new Proxy({} as Orchestras, {
    get(_, name) {
      if (current === undefined) throw new Error('the orchestras exist within tests only');
      const value = Reflect.get(current, name, current);
      return typeof value === 'function' ? value.bind(current) : value;
    },
  });
}

/** A task that agents can do. */
export const task = (id: string, over: Partial<OrchestrationTask> = {}): OrchestrationTask => ({
  id,
  type: 'job',
  priority: 0,
  requiredCapabilities: ['work'],
  ...over,
});

/** An agent as a bus sees it. */
export const viewOf = (bus: OSSAEventBus, id: string) => bus.getAgents().find((agent) => agent.id === id);

/** Waits until a bus sees an agent so. */
export const agentIs = (bus: OSSAEventBus, id: string, status: string) =>
  until(() => viewOf(bus, id)?.status === status, { show: () => viewOf(bus, id) });

/** Waits until a task is so; answers it. */
export async function taskIs(bus: OSSAEventBus, id: string, status: string, agentId?: string) {
  let seen: Awaited<ReturnType<OSSAEventBus['getTask']>> = null;
  const holds = async () => {
    seen = await bus.getTask(id);
    return seen?.status === status && (agentId === undefined || seen.agentId === agentId) ? seen : undefined;
  };
  return (await until(holds, { show: () => seen }))!;
}

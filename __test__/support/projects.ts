/** Buses of one test that send messages between projects, over one store; closed when the test is over. */
import {
  type CrossProjectEventContract,
  type CrossProjectHandlerOptions,
  type CrossProjectMessage,
  createOSSAEventBus,
  type DeepPartial,
  type EventBusConfig,
  OSSAEventBus,
  type OSSAEventBusConfig,
  type ProjectConfig,
} from '@bluefly/ossa';
import { until } from './wait';
import { type StoreKind, World } from './world';

/** Other processes know of a registration within a second; they would also find it by themselves, but not in this time. */
export const SOON = { timeoutMs: 1500 };

/** The secret that `project()` gives. */
export const secretOf = (projectId: string): string => `the secret of ${projectId}, long enough`;

/** A project that may do everything, with credentials; `over` wins. `credentials: undefined`: none. */
export function project(projectId: string, over: Partial<ProjectConfig> = {}): ProjectConfig {
  return {
    projectId,
    name: `Project ${projectId}`,
    namespace: `ns-${projectId}`,
    allowedEventTypes: ['**'],
    allowedTargets: ['*'],
    credentials: { apiKey: `key-${projectId}`, secret: secretOf(projectId) },
    ...over,
  };
}

/** A contract of project a for type `user.created`; `over` wins. */
export function contract(schema: unknown, over: Partial<CrossProjectEventContract> = {}): CrossProjectEventContract {
  return {
    name: 'users',
    version: '1.0.0',
    sourceProject: 'a',
    targetProjects: ['*'],
    eventTypes: ['user.created'],
    schema,
    metadata: { description: 'Users', author: 'tests', createdAt: new Date(1_700_000_000_000), updatedAt: new Date(1_700_000_000_001) },
    ...over,
  };
}

type CrossProject = DeepPartial<OSSAEventBusConfig['crossProject']>;

/** One test's projects. */
export class Projects {
  readonly world: World;
  readonly #open = new Set<OSSAEventBus>();

  constructor(kind: StoreKind) {
    this.world = new World(kind);
  }

  /** A bus that is not initialised. */
  make(crossProject: CrossProject = {}, eventBus: DeepPartial<EventBusConfig> = {}): OSSAEventBus {
    const bus = new OSSAEventBus(null, { crossProject, eventBus: this.world.config(eventBus) });
    this.#open.add(bus);
    return bus;
  }

  /** An initialised bus. */
  async bus(crossProject: CrossProject = {}, eventBus: DeepPartial<EventBusConfig> = {}): Promise<OSSAEventBus> {
    const bus = await createOSSAEventBus(null, { crossProject, eventBus: this.world.config(eventBus) });
    this.#open.add(bus);
    return bus;
  }

  /** A bus with projects of these names. */
  async busOf(...ids: Array<string | ProjectConfig>): Promise<OSSAEventBus> {
    const bus = await this.bus();
    for (const id of ids) await bus.registerProject(typeof id === 'string' ? project(id) : id);
    return bus;
  }

  /** Shuts all down. */
  async end(): Promise<void> {
    await Promise.all([...this.#open].map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    this.#open.clear();
  }
}

/** Projects for each test of the surrounding describe block. */
export function useProjects(kind: StoreKind): Projects {
  let current: Projects | undefined;
  beforeEach(() => {
    current = new Projects(kind);
  });
  afterEach(() => current?.end());
  return new Proxy({} as Projects, {
    get(_, name) {
      if (current === undefined) throw new Error('the projects exist within tests only');
      const value = Reflect.get(current, name, current);
      return typeof value === 'function' ? value.bind(current) : value;
    },
  });
}

/** What comes in for the project, oldest first. */
export async function inbox(
  bus: OSSAEventBus,
  projectId: string,
  eventType = '**',
  options: CrossProjectHandlerOptions = {},
): Promise<CrossProjectMessage[]> {
  const got: CrossProjectMessage[] = [];
  await bus.setupCrossProjectHandler(projectId, eventType, (message: CrossProjectMessage) => void got.push(message), options);
  return got;
}

/** Waits until there are so many. Sends nothing to make sure that no more come: the caller does. */
export async function arrived<T>(got: T[], count: number): Promise<T[]> {
  await until(() => got.length >= count, { show: () => got });
  expect(got.length).toBe(count);
  return got;
}

/** Whether the bus knows the project by itself, without asking. */
export function knows(bus: OSSAEventBus, projectId: string): boolean {
  try {
    bus.getAvailableContracts(projectId);
    return true;
  } catch {
    return false;
  }
}

/** Orchestration of agents: calls to the engine, and what it answers as users know it. */
import { text } from './arguments';
import type { BusCore } from './core';
import { describeThrown, fromNative, internal, invalidArgument, OSSAError } from './errors';
import type { HealthComponent } from './health';
import { copied, isRecord } from './json';
import type { NativeAnswer, NativeErrorData } from './native';
import type { AgentView, OrchestrationStats, OrchestrationTask, PoolView, TaskView } from './types';

/** What a process that distributes is asked for, by name. It answers as {@link NativeAnswer}. */
const DISTRIBUTE = 'ossa.orchestration.distribute';
const CANCEL = 'ossa.orchestration.cancel';

/** How long an answer is waited for. */
const TIMEOUT_MS = 30_000;

/** Keys of a TaskView that are times; they cross as ms. */
const TIMES = ['submittedAt', 'assignedAt', 'startedAt', 'endedAt'] as const;
type CrossedTask = Omit<TaskView, (typeof TIMES)[number]> & { [K in (typeof TIMES)[number]]?: number };
type CrossedAgent = Omit<AgentView, 'lastActivity'> & { lastActivity: number };

/** `getOrchestrationOptimizer()`: what an OSSAEventBus offers for agents and their tasks, on its own. */
export class OrchestrationOptimizer {
  readonly #core: BusCore;

  /** @internal */
  constructor(core: BusCore) {
    this.#core = core;
  }

  /** Resolves with the id of the agent that gets the task, or null when it waits for one. */
  async distributeTask(task: OrchestrationTask): Promise<string | null> {
    this.#core.native();
    return this.#ask<string | null>(DISTRIBUTE, crossedTask(task));
  }

  /** Resolves with whether it was there to be cancelled. */
  async cancelTask(id: string, reason?: string): Promise<boolean> {
    this.#core.native();
    const why = reason === undefined || reason === null ? undefined : text('reason', reason);
    return this.#ask<boolean>(CANCEL, { taskId: text('id', id), reason: why });
  }

  /** What is known of a task; null when there is none of that id. */
  async getTask(id: string): Promise<TaskView | null> {
    const task = await this.#core.call<CrossedTask | null>('orchestration.task', { id: text('id', id) });
    return task === null ? null : taskOf(task);
  }

  /** Agents, as this process knows them: without asking Redis. */
  getAgents(): AgentView[] {
    return this.#look<CrossedAgent[]>('agents').map((agent) => ({ ...agent, lastActivity: new Date(agent.lastActivity) }));
  }

  /** Pools, as this process knows them. */
  getPools(): PoolView[] {
    return this.#look<PoolView[]>('pools');
  }

  /** Figures over all agents, as this process knows them. */
  getOrchestrationStats(): OrchestrationStats {
    return this.#look<OrchestrationStats>('stats');
  }

  #look<T>(what: string): T {
    const answer = JSON.parse(this.#core.native().orchestration(what)) as NativeAnswer<T>;
    if ('err' in answer) throw fromNative(answer.err);
    return answer.ok;
  }

  async #ask<T>(what: string, data: unknown): Promise<T> {
    let answer: unknown;
    try {
      answer = await this.#core.publisher.request(what, data, { timeoutMs: TIMEOUT_MS });
    } catch (error) {
      throw asked(error);
    }
    // Whoever subscribed to the name may have answered.
    if (isRecord(answer) && isRecord(answer['err'])) throw fromNative(answer['err'] as unknown as NativeErrorData);
    if (isRecord(answer) && 'ok' in answer) return answer['ok'] as T;
    throw internal(`'${what}' was not answered as it should be`);
  }
}

/** The error of a request, in terms of who made the call. */
function asked(error: unknown): unknown {
  if (!(error instanceof OSSAError)) return error;
  const { code, details } = error;
  if (code === 'ERR_REQUEST_TIMEOUT') {
    const message =
      `No process of this bus that distributes tasks answered within ${TIMEOUT_MS / 1000} s. The call may be repeated: a task is known ` +
      'by its id, and is not taken twice';
    return new OSSAError(message, { code, retryable: true, details, cause: error });
  }
  if (code === 'ERR_NOT_SERIALIZABLE') {
    const path = String(details?.['path']).replace(/^data/, 'task');
    return new OSSAError(error.message.replace(/^data/, 'task'), { code, details: { ...details, path }, cause: error.cause });
  }
  return error;
}

/** A task as it crosses: `data` as JSON has it, the rest exactly as given, or refused. */
function crossedTask(task: unknown): object {
  if (!isRecord(task)) throw invalidArgument('task', 'must be an object { id, type, priority, requiredCapabilities, … }');
  let data: unknown;
  let rest: Record<string, unknown>;
  try {
    ({ data, ...rest } = task);
  } catch (error) {
    throw invalidArgument('task', `cannot be read: ${describeThrown(error)}`);
  }
  const read = copied(rest, 'task');
  if ('at' in read) throw invalidArgument(read.at, `must have a JSON form, got ${read.what}`);
  return { ...(read.copy as object), data: data === undefined ? null : data };
}

function taskOf(crossed: CrossedTask): TaskView {
  const task: Record<string, unknown> = { ...crossed };
  for (const key of TIMES) if (typeof task[key] === 'number') task[key] = new Date(task[key]);
  return task as unknown as TaskView;
}

/** Orchestration as a part of the bus: degraded where an agent has failed or its circuit is not closed. */
export function orchestrationComponent(optimizer: OrchestrationOptimizer): HealthComponent {
  const down = optimizer.getAgents().some(({ status, circuit }) => status === 'failed' || circuit !== 'closed');
  return { status: down ? 'degraded' : 'healthy', details: optimizer.getOrchestrationStats() };
}

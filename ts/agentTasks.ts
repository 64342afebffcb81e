/** The tasks that one agent has in hand: from their assignment until what became of them is stored. */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { Clock, Timer } from './clock';
import { describeThrown, OSSAError, property } from './errors';
import type { Assignment } from './native';
import type { Outbox, Posted } from './outbox';
import type { AgentContext, AgentTask, OSSAErrorCode } from './types';
import type { Tally } from './vitals';

/** Most tasks that wait for a place; whoever distributes gives none beyond maxTasks but by mistake. */
const WAITING_MAX = 1_000;

/** Tasks that are remembered after they ended: an assignment may come twice. */
const PAST_MAX = 10_000;

/** Longest that Node's timers can wait. */
const WAIT_MS_MAX = 0x7fff_ffff;

/** A task in hand. */
interface Held {
  readonly given: Assignment;
  /** 'ended': what became of it is being told; 'gone': nobody wants to know. */
  state: 'waiting' | 'running' | 'ended' | 'gone';
  readonly abort: AbortController;
  startedAt: number;
  timer: Timer | undefined;
  /** What was said of it. */
  readonly letters: Posted[];
}

/** Of whom they are, and by which means. */
export interface TasksOf {
  readonly agentId: string;
  readonly maxTasks: number;
  readonly taskTimeoutMs: number | undefined;
  readonly handler: (task: AgentTask, context: AgentContext) => unknown;
  readonly clock: Clock;
  readonly outbox: Outbox;
  readonly tally: Tally;
  /** Tells an event of the agent. */
  readonly tell: (name: string, payload: object) => void;
  /** An error that reaches no caller. */
  readonly trouble: (error: unknown) => void;
}

/** The task whose handler the calling code belongs to. */
const current = new AsyncLocalStorage<Held>();

/** Takes tasks, does at most maxTasks of them at a time, and says what becomes of them. */
export class AgentTasks {
  readonly stats = { completed: 0, failed: 0, cancelled: 0 };
  readonly #of: TasksOf;
  readonly #held = new Map<string, Held>();
  readonly #waiting = new Set<Held>();
  readonly #running = new Set<Held>();
  /** Those that must not be begun again. */
  readonly #past = new Set<string>();
  readonly #idle: Array<{ except: Held | undefined; resolve: () => void }> = [];
  #state: 'new' | 'open' | 'closed' = 'new';

  constructor(of: TasksOf) {
    this.#of = of;
  }

  /** Tasks that came are begun from now on. */
  open(): void {
    if (this.#state !== 'new') return;
    this.#state = 'open';
    this.#fill();
  }

  /** No more are begun: those that wait are given back, and those that come. */
  close(): void {
    this.#state = 'closed';
    for (const held of [...this.#waiting]) {
      this.#forget(held);
      this.#handBack(held.given, 'the agent is draining');
    }
  }

  /** Ids of those that are being done. */
  get running(): string[] {
    return [...this.#running].map(({ given }) => given.taskId);
  }

  /** All that are in hand, as a report has them. */
  get inHand(): Array<{ taskId: string; attempt: number }> {
    return [...this.#held.values()].map(({ given: { taskId, attempt } }) => ({ taskId, attempt }));
  }

  /** A task is given to this agent. Throws for something that is none. */
  assign(given: Assignment): void {
    if (typeof given.taskId !== 'string' || typeof given.attempt !== 'number')
      throw new TypeError('an assignment without task and attempt');
    if (this.#past.has(keyOf(given))) return;
    const before = this.#held.get(given.taskId);
    if (before !== undefined) {
      if (before.given.attempt >= given.attempt) return;
      // It was given up on, and given out again: to this very agent.
      this.#withdraw(before, 'was given out again');
    }
    if (this.#state === 'closed') this.#handBack(given, 'the agent is draining');
    else if (this.#waiting.size >= WAITING_MAX) this.#handBack(given, `${WAITING_MAX} tasks wait in the agent`);
    else this.#accept(given);
  }

  #accept(given: Assignment): void {
    const held: Held = { given, state: 'waiting', abort: new AbortController(), startedAt: 0, timer: undefined, letters: [] };
    this.#held.set(given.taskId, held);
    this.#waiting.add(held);
    this.#fill();
  }

  /** A task is not to be done any more: nothing more is said of it. */
  cancel({ taskId, attempt, reason }: { taskId: string; attempt: number; reason: string }): void {
    const held = this.#held.get(taskId);
    if (held?.given.attempt === attempt) {
      this.stats.cancelled++;
      this.#withdraw(held, `was cancelled: ${reason}`);
    } else {
      // It may come before the task.
      this.#remember(keyOf({ taskId, attempt }));
    }
  }

  /** Ends all that are being done: they have failed. */
  abort(): void {
    for (const held of [...this.#running]) {
      this.#fail(held, 'the agent stopped before the task was done', false);
      held.abort.abort(abortion('ERR_ABORTED', held, 'was not done before its agent stopped'));
    }
  }

  /** Who gave out the tasks has forgotten them, and may begin to count their attempts anew. */
  forgetPast(): void {
    this.#past.clear();
  }

  /** Resolves when none is being done. */
  idle(except?: Held): Promise<void> {
    if (this.#isIdle(except)) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push({ except, resolve }));
  }

  /** Where the calling code belongs to one that is being done: resolves when none of the others is. */
  othersIdle(): Promise<void> | undefined {
    const own = current.getStore();
    return own !== undefined && this.#running.has(own) ? this.idle(own) : undefined;
  }

  #fill(): void {
    if (this.#state !== 'open') return;
    for (const held of this.#waiting) {
      if (this.#running.size >= this.#of.maxTasks) return;
      this.#waiting.delete(held);
      void this.#do(held);
    }
  }

  /** Never rejects. */
  async #do(held: Held): Promise<void> {
    const { clock, taskTimeoutMs, handler } = this.#of;
    const { taskId, attempt, timeoutMs } = held.given;
    held.state = 'running';
    held.startedAt = clock.now();
    this.#running.add(held);
    const ms = Math.min(taskTimeoutMs ?? Infinity, timeoutMs ?? Infinity);
    if (ms <= WAIT_MS_MAX) held.timer = clock.after(ms, () => this.#timeOut(held, ms));
    this.#watch(this.#post(held, 'task.started', {}));
    this.#of.tell('task:started', { taskId, attempt });
    let result: unknown;
    try {
      result = await current.run(held, handler, taskOf(held.given), { attempt, signal: held.abort.signal });
    } catch (error) {
      this.#fail(held, describeThrown(error), property(error, 'permanent') === true);
      return;
    }
    this.#complete(held, result);
  }

  #timeOut(held: Held, ms: number): void {
    this.#fail(held, `timed out after ${ms} ms`, false);
    held.abort.abort(abortion('ERR_HANDLER_TIMEOUT', held, `timed out after ${ms} ms`));
  }

  #complete(held: Held, result: unknown): void {
    if (!this.#ends(held)) return;
    const { taskId, attempt } = held.given;
    const duration = this.#sinceStart(held);
    const told = result === undefined ? null : result;
    this.#post(held, 'task.completed', { result: told, duration }).sent.then((end) => {
      if (held.state === 'gone') return;
      if (end instanceof OSSAError) return this.#sayFailed(held, unsendable(end), true, duration);
      if (end === 'dropped') return this.#forget(held);
      this.#settle(held, duration, true);
      this.#of.tell('task:completed', { taskId, attempt, result: told, duration });
    });
  }

  #fail(held: Held, error: string, permanent: boolean): void {
    if (this.#ends(held)) this.#sayFailed(held, error, permanent, this.#sinceStart(held));
  }

  #sayFailed(held: Held, error: string, permanent: boolean, duration: number): void {
    const { taskId, attempt } = held.given;
    this.#post(held, 'task.failed', { error, ...(permanent ? { permanent } : {}) }).sent.then((end) => {
      if (held.state === 'gone') return;
      if (end instanceof OSSAError) this.#of.trouble(end);
      this.#settle(held, duration, false);
      this.#of.tell('task:failed', { taskId, attempt, error });
    });
  }

  #handBack({ taskId, attempt, correlationId }: Assignment, error: string): void {
    const { agentId, outbox } = this.#of;
    const data = { taskId, agentId, error, timestamp: new Date(), attempt, handedBack: true };
    this.#watch(outbox.post('task.failed', data, correlationId));
  }

  #watch({ sent }: Posted): void {
    sent.then((end) => {
      if (end instanceof OSSAError) this.#of.trouble(end);
    });
  }

  /** It is not being done any more, and its place is free. False: somebody else ended it before. */
  #ends(held: Held): boolean {
    if (held.state !== 'running') return false;
    held.state = 'ended';
    held.timer?.cancel();
    this.#running.delete(held);
    // Whoever reads that it ended knows that it began.
    for (const letter of held.letters) letter.drop();
    queueMicrotask(() => this.#placeIsFree());
    return true;
  }

  /** What became of it is stored. */
  #settle(held: Held, duration: number, completed: boolean): void {
    this.#forget(held);
    this.#remember(keyOf(held.given));
    this.#of.tally.ended(duration, completed);
    if (completed) this.stats.completed++;
    else this.stats.failed++;
  }

  /** It is not to be done, and nothing more is said of it. */
  #withdraw(held: Held, why: string): void {
    this.#forget(held);
    this.#remember(keyOf(held.given));
    for (const letter of held.letters) letter.drop();
    held.abort.abort(abortion('ERR_ABORTED', held, why));
    this.#placeIsFree();
  }

  #forget(held: Held): void {
    held.state = 'gone';
    held.timer?.cancel();
    this.#waiting.delete(held);
    this.#running.delete(held);
    if (this.#held.get(held.given.taskId) === held) this.#held.delete(held.given.taskId);
  }

  #placeIsFree(): void {
    this.#fill();
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      if (this.#isIdle(this.#idle[i]?.except)) this.#idle.splice(i, 1)[0]?.resolve();
    }
  }

  #isIdle(except: Held | undefined): boolean {
    return this.#running.size === (except !== undefined && this.#running.has(except) ? 1 : 0);
  }

  #remember(key: string): void {
    this.#past.add(key);
    if (this.#past.size <= PAST_MAX) return;
    const [oldest] = this.#past;
    this.#past.delete(oldest as string);
  }

  #post(held: Held, eventType: string, more: object): Posted {
    const { taskId, attempt, correlationId } = held.given;
    const data = { taskId, agentId: this.#of.agentId, ...more, timestamp: new Date(), attempt };
    const letter = this.#of.outbox.post(eventType, data, correlationId);
    held.letters.push(letter);
    return letter;
  }

  #sinceStart(held: Held): number {
    // Short tasks tell fast agents from slow ones, too.
    return Math.round((this.#of.clock.now() - held.startedAt) * 1_000) / 1_000;
  }
}

/** Of this life of the task: its id may be given again once the first one is forgotten. */
function keyOf({ taskId, attempt, submittedAt }: { taskId: string; attempt: number; submittedAt?: number | null }): string {
  return `${attempt} ${submittedAt ?? ''} ${taskId}`;
}

/** What the handler is given. */
function taskOf(given: Assignment): AgentTask {
  const { taskId, attempt, taskType, priority, estimatedDuration, dependencies, requiredCapabilities, data, timeoutMs, correlationId } =
    given;
  return {
    id: taskId,
    type: taskType,
    priority,
    data: data === undefined ? null : data,
    attempt,
    dependencies: dependencies ?? [],
    requiredCapabilities: requiredCapabilities ?? [],
    ...(typeof estimatedDuration === 'number' ? { estimatedDuration } : {}),
    ...(typeof timeoutMs === 'number' ? { timeoutMs } : {}),
    ...(typeof correlationId === 'string' ? { correlationId } : {}),
  };
}

/** Reason of an aborted signal. */
function abortion(code: OSSAErrorCode, { given }: Held, why: string): OSSAError {
  return new OSSAError(`Task '${given.taskId}' ${why}`, { code, details: { taskId: given.taskId, attempt: given.attempt } });
}

/** Why a result cannot be sent, in terms of who returned it. */
function unsendable({ message }: OSSAError): string {
  return `what the handler returned cannot be sent: ${message.replace(/^data\.result/, 'the result').replace(/^data/, 'the result')}`;
}

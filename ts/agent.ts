/** createAgent(): one who does the tasks that are distributed on a bus. */
import { EventEmitter } from 'node:events';
import { setImmediate } from 'node:timers';
import type * as api from '../index';
import { type ResolvedAgentOptions, resolveAgentOptions, resolveDrainOptions } from './agentOptions';
import { AgentTasks } from './agentTasks';
import { systemClock, type Timer } from './clock';
import { BusCore } from './core';
import { CORE } from './EventBus';
import { aborted, closed, invalidArgument, property } from './errors';
import type { Resident } from './inbox';
import type { Reason } from './keepAlive';
import { Lifecycle } from './lifecycle';
import type { Post } from './native';
import { Outbox } from './outbox';
import { atSigterm } from './sigterm';
import type { PublishOptions } from './types';
import { processMeter, Tally } from './vitals';

/** The first report comes soon: until then nothing is known of the agent's process. */
const FIRST_REPORT_MS = 500;

/** A report is of use for so long, s: later ones say it better. */
const REPORT_TTL_S = 60;
/** An agent that is not known says who it is this often at most. */
const RESPAWN_MS = 1_000;

/** How long an agent that has stopped waits for what it says to be stored; it goes on trying after that. */
const TELLING_MS = 5_000;

/** Opens an agent, for {@link createAgent}. */
const SPAWN = Symbol('ossa.spawn');

/** What createAgent() answers. */
export class TaskAgent extends EventEmitter implements api.Agent, Resident {
  /** Its id, nobody else's. */
  readonly id: string;
  /** Agents of one type are a pool. */
  readonly type: string;
  readonly #bus: api.EventBus<any>;
  readonly #core: BusCore;
  readonly #options: ResolvedAgentOptions;
  readonly #events: Lifecycle;
  readonly #outbox: Outbox;
  readonly #tally = new Tally(systemClock);
  readonly #tasks: AgentTasks;
  readonly #keeps: Reason;
  readonly #onAbort = (): void => void this.#drainFor('its signal was aborted');
  #status: api.Agent['status'] = 'running';
  #inbox = '';
  #announcedAt = 0;
  #announcing = false;
  #reporting = false;
  /** Whether the last report was lost: the following ones say no more of that. */
  #unheard = false;
  #reportTimer: Timer | undefined;
  #draining: Promise<void> | undefined;
  #evicted = false;
  /** When tasks are aborted that have not ended, and what sees to it. */
  #abortAt = Infinity;
  #abortTimer: Timer | undefined;
  #leaveSigterm: (() => void) | undefined;

  /** @internal */
  constructor(bus: api.EventBus<any>, core: BusCore, options: ResolvedAgentOptions) {
    super();
    const { agentId, agentType } = options;
    this.id = agentId;
    this.type = agentType;
    this.#bus = bus;
    this.#core = core;
    this.#options = options;
    this.#keeps = core.reason();
    this.#events = new Lifecycle(core.log, { error: 'error', label: `Agent ${agentId}`, revive: (payload) => payload });
    this.#events.attach(this);
    const trouble = (error: unknown) => this.#trouble(error);
    this.#outbox = new Outbox((type, data, given) => this.#publish(type, data, given), systemClock, core.reason(), trouble);
    this.#tasks = new AgentTasks({
      ...options,
      clock: systemClock,
      outbox: this.#outbox,
      tally: this.#tally,
      tell: (name, payload) => this.#events.emit(name, payload),
      trouble,
    });
  }

  /** 'draining': it takes no more tasks. 'stopped': it does none either. */
  get status(): api.Agent['status'] {
    return this.#status;
  }

  /** Ids of the tasks that are being done. */
  get running(): string[] {
    return this.#tasks.running;
  }

  /** Tasks since it was made. */
  get stats(): api.Agent['stats'] {
    return { ...this.#tasks.stats };
  }

  /**
   * Takes no more tasks, gives back those not begun, and resolves when the others have ended and that is told. Those that have not
   * after timeoutMs are aborted, and have failed. Called in a handler of this agent it does not wait for that one.
   */
  drain(options?: { reason?: string; timeoutMs?: number }): Promise<void> {
    let given: ReturnType<typeof resolveDrainOptions>;
    try {
      given = resolveDrainOptions(options);
    } catch (error) {
      return Promise.reject(error);
    }
    const draining = this.#drainFor(given.reason, given.timeoutMs);
    const others = this.#tasks.othersIdle();
    return others === undefined ? draining : Promise.race([draining, others]);
  }

  /** drain() with a timeout of 0 */
  stop(): Promise<void> {
    return this.drain({ reason: 'stopped', timeoutMs: 0 });
  }

  /** drain() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  /** @internal What is posted to it. */
  receive({ assign, cancel, drain, respawn }: Post): void {
    if (this.#status === 'stopped') return;
    if (assign !== undefined) this.#tasks.assign(assign);
    if (cancel !== undefined) this.#tasks.cancel(cancel);
    if (drain !== undefined) void this.#drainFor(drain.reason || 'one too many');
    if (respawn !== undefined) this.#respawn();
  }

  /** @internal The bus is being closed. */
  evict(): void {
    if (this.#status === 'stopped') return;
    this.#evicted = true;
    this.#tasks.close();
    this.#tasks.abort();
    this.#terminated('its bus was closed');
    this.#outbox.close();
    this.#end('its bus was closed');
  }

  /** @internal Resolves once it is known. */
  async [SPAWN](): Promise<void> {
    const { signal, drainOnSigterm, reportIntervalMs } = this.#options;
    processMeter();
    this.#keeps.set(true);
    try {
      this.#inbox = await this.#core.inbox.open();
      this.#core.inbox.add(this);
      await this.#announce();
      if (this.#evicted) throw closed(`Agent '${this.id}' was not made: its bus was closed`);
    } catch (error) {
      this.#leave();
      throw error;
    }
    // It may have been told at once that it is one too many.
    if (this.#isStopped()) return;
    if (drainOnSigterm) this.#leaveSigterm = atSigterm(() => this.#drainFor('SIGTERM'));
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
    this.#reportIn(Math.min(FIRST_REPORT_MS, reportIntervalMs));
    // Who awaits the agent listens to it before its first task begins.
    setImmediate(() => this.#tasks.open());
  }

  async #announce(): Promise<void> {
    const { agentId, agentType, capabilities, maxTasks, taskTimeoutMs: timeout } = this.#options;
    this.#announcing = true;
    this.#announcedAt = systemClock.now();
    try {
      const configuration = { maxTasks, ...(timeout === undefined ? {} : { timeout }), inbox: this.#inbox };
      await this.#publish('agent.spawned', { agentId, agentType, capabilities, configuration });
      await this.#publish('agent.started', { agentId, agentType, timestamp: new Date() });
    } finally {
      this.#announcing = false;
    }
  }

  #respawn(): void {
    if (this.#status !== 'running' || this.#announcing || systemClock.now() - this.#announcedAt < RESPAWN_MS) return;
    this.#tasks.forgetPast();
    this.#announce().then(
      () => this.#report(),
      (error: unknown) => this.#trouble(error),
    );
  }

  #reportIn(ms: number): void {
    this.#reportTimer = systemClock.after(ms, () => {
      void this.#report();
      this.#reportIn(this.#options.reportIntervalMs);
    });
  }

  /** One at a time: while Redis is away they do not pile up. Never rejects. */
  async #report(): Promise<void> {
    if (this.#reporting || this.#status === 'stopped') return;
    this.#reporting = true;
    const { figures, taken } = this.#tally.take();
    const metrics = { ...processMeter().read(), ...figures };
    try {
      const timestamp = new Date();
      await this.#publish(
        'performance.metrics',
        { source: this.id, metrics, timestamp, inbox: this.#inbox, running: this.#tasks.inHand },
        { ttl: REPORT_TTL_S },
      );
      this.#unheard = false;
    } catch (error) {
      this.#tally.giveBack(taken);
      if (!this.#unheard) this.#trouble(error);
      this.#unheard = true;
    } finally {
      this.#reporting = false;
    }
  }

  /** Never rejects. */
  #drainFor(reason = 'drained', timeoutMs = this.#options.drainTimeoutMs): Promise<void> {
    if (this.#status === 'stopped') return this.#draining ?? Promise.resolve();
    this.#draining ??= this.#drain(reason);
    this.#abortWithin(timeoutMs);
    return this.#draining;
  }

  async #drain(reason: string): Promise<void> {
    this.#status = 'draining';
    this.#outbox.post('agent.stopped', { agentId: this.id, reason, draining: true, timestamp: new Date(), inbox: this.#inbox });
    this.#tasks.close();
    await this.#tasks.idle();
    await this.#outbox.empty(TELLING_MS);
    if (this.#isStopped()) return;
    this.#terminated(reason);
    await this.#outbox.empty(TELLING_MS);
    if (!this.#isStopped()) this.#end(reason);
  }

  #abortWithin(ms: number): void {
    const at = systemClock.now() + ms;
    if (at >= this.#abortAt) return;
    this.#abortAt = at;
    this.#abortTimer?.cancel();
    this.#abortTimer = systemClock.after(ms, () => this.#tasks.abort());
  }

  #terminated(reason: string): void {
    this.#outbox.post('agent.terminated', { agentId: this.id, reason, timestamp: new Date(), inbox: this.#inbox });
  }

  #end(reason: string): void {
    this.#leave();
    this.#events.emit('drained', { reason });
  }

  /** Nothing of it is left behind. */
  #leave(): void {
    this.#status = 'stopped';
    this.#core.inbox.remove(this);
    this.#reportTimer?.cancel();
    this.#abortTimer?.cancel();
    this.#leaveSigterm?.();
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#keeps.set(false);
  }

  /** A function, because the answer changes between two looks. */
  #isStopped(): boolean {
    return this.#status === 'stopped';
  }

  async #publish(eventType: string, data: object, options?: PublishOptions): Promise<unknown> {
    return this.#bus.publish(eventType, data, options);
  }

  /** An error that reaches no caller; that the bus was closed is none. */
  #trouble(error: unknown): void {
    if (this.#status === 'stopped' && property(error, 'code') === 'ERR_CLOSED') return;
    this.#events.error(error);
  }
}

/**
 * Makes an agent on a connected bus, and makes it known: resolves once that is stored. ERR_INVALID_ARGUMENT with the option's name.
 */
export async function createAgent(bus: api.EventBus<any>, options: api.AgentOptions): Promise<api.Agent> {
  const core = property(bus, CORE);
  if (!(core instanceof BusCore)) {
    throw invalidArgument('bus', 'must be a RedisEventBus or OSSAEventBus, made by the copy of @bluefly/ossa that createAgent is from');
  }
  const resolved = resolveAgentOptions(options);
  core.native();
  if (resolved.signal?.aborted === true) throw aborted('createAgent', resolved.signal);
  const agent = new TaskAgent(bus, core, resolved);
  await agent[SPAWN]();
  return agent;
}

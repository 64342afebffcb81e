/** What both bus classes can do. */
import type { BusCore } from './core';
import { DeadLetterQueue } from './deadLetters';
import { LISTENERS_CHANGED, ObservedEmitter } from './emitter';
import { invalidArgument } from './errors';
import { explain } from './explain';
import { replay } from './replay';
import type {
  AnyBatchEvent,
  BatchHandlerFn,
  DeadLetters,
  EventBusMetrics,
  EventExplanation,
  EventHandlerFn,
  EventPayload,
  EventStream,
  PublishOptions,
  StreamConfig,
  Subscription,
  SubscriptionOptions,
} from './types';

/** The core of a bus, for the classes of this package. */
export const CORE = Symbol('ossa.core');

/**
 * Base of RedisEventBus and OSSAEventBus. The typed overloads are declared in `index.d.ts`; here are the calls as they
 * are at run time.
 *
 * Lifecycle events: 'event:published' 'event:consumed' 'event:failed' 'event:retried' 'event:dead-lettered'
 * 'event:expired' 'subscription:created' 'subscription:cancelled' 'data:loss' 'connection:lost' 'connection:restored'
 * 'metrics:updated' 'health:status:changed' 'log' 'error', and of an OSSAEventBus 'agent:circuit:changed'. A listener that throws is logged; 'error' without a listener is
 * logged too and never ends the process.
 */
export abstract class EventBus extends ObservedEmitter {
  /** Dead letters of all groups. */
  readonly deadLetters: DeadLetters;
  /** @internal */
  declare readonly [CORE]: BusCore;

  /** @internal */
  protected constructor(core: BusCore) {
    super();
    Object.defineProperty(this, CORE, { value: core });
    this.deadLetters = new DeadLetterQueue(core);
    core.lifecycle.attach(this);
  }

  /** Resolves with the event's id once the store has it. `undefined` is stored as null, a Date as its ISO string. */
  publish(eventType: string, data: unknown, options?: PublishOptions): Promise<string> {
    return this[CORE].publisher.publish(eventType, data, options);
  }

  /** All ids in the order of `events`; or an error whose `details.results` holds `{ id }` or `{ error }` for each. */
  publishBatch(events: readonly AnyBatchEvent[]): Promise<string[]> {
    return this[CORE].publisher.publishBatch(events);
  }

  /** Calls `handler` for each event of a type, or of all types that match a pattern; without a handler, see {@link Subscription}. */
  subscribe(eventType: string, handler?: EventHandlerFn | BatchHandlerFn | null, options?: SubscriptionOptions): Promise<Subscription> {
    return this[CORE].subscribe(eventType, handler, options);
  }

  /** Closes this bus's subscriptions of that very type or pattern; with a handler, those of that handler only. */
  unsubscribe(eventType: string, handler?: (...args: any[]) => unknown): Promise<void> {
    return this[CORE].unsubscribe(eventType, handler);
  }

  /**
   * Resolves with what a handler of the event returned (JSON; undefined is null), the first answer where there are several.
   * ERR_REMOTE with the handler's message when the event is given up, ERR_REQUEST_TIMEOUT after timeoutMs (30000).
   */
  request<R = any>(eventType: string, data: unknown, options?: PublishOptions & { timeoutMs?: number }): Promise<R> {
    return this[CORE].publisher.request(eventType, data, options) as Promise<R>;
  }

  /** Makes a stream with a retention of its own, or changes it. */
  async createStream(name: string, config: StreamConfig): Promise<EventStream> {
    return reviveStream(await this[CORE].call<CrossedStream>('createStream', { name: text('name', name), config }));
  }

  /** A stream and what is in it; null when there is none of that name. */
  async getStream(name: string): Promise<EventStream | null> {
    const stream = await this[CORE].call<CrossedStream | null>('getStream', { name: text('name', name) });
    return stream === null ? null : reviveStream(stream);
  }

  /** Deletes a group that has no live consumers; resolves with whether it existed. */
  async deleteGroup(eventTypeOrPattern: string, group: string): Promise<boolean> {
    return this[CORE].call<boolean>('deleteGroup', {
      eventType: text('eventTypeOrPattern', eventTypeOrPattern),
      group: text('group', group),
    });
  }

  /** The history of a type, oldest first; nothing is consumed. `metadata.attempt` is 0: it is no delivery. */
  replay<T = any>(eventType: string, query?: { from?: Date; to?: Date; limit?: number }): AsyncIterable<EventPayload<T>> {
    return replay<T>(this[CORE], eventType, query);
  }

  /** Where an event is and where each group stands on it; null when it is not found. */
  explain(eventType: string, eventId: string): Promise<EventExplanation | null> {
    return explain(this[CORE], eventType, eventId);
  }

  /** Counters of this bus, without asking Redis. */
  getMetrics(): EventBusMetrics {
    return this[CORE].metrics();
  }

  /** Closes the bus. */
  abstract [Symbol.asyncDispose](): Promise<void>;

  /** @internal The engine makes costly lifecycle events only while somebody listens. */
  [LISTENERS_CHANGED](): void {
    this[CORE].lifecycle.listenersChanged();
  }
}

/** A stream as it crosses: times in ms. */
interface CrossedStream {
  name: string;
  config: StreamConfig;
  stats: Omit<EventStream['stats'], 'firstMessage' | 'lastMessage'> & { firstMessage: number | null; lastMessage: number | null };
}

function reviveStream(stream: CrossedStream): EventStream {
  const { firstMessage, lastMessage } = stream.stats;
  return {
    ...stream,
    stats: {
      ...stream.stats,
      firstMessage: firstMessage === null ? null : new Date(firstMessage),
      lastMessage: lastMessage === null ? null : new Date(lastMessage),
    },
  };
}

function text(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidArgument(name, 'must be a string');
  return value;
}

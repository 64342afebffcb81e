/** Lifecycle events: from the engine to the listeners of a bus or a registry, none of which can break anything. */
import type { EventEmitter } from 'node:events';
import { fromNative } from './errors';
import type { CrossedLine, Log } from './logger';
import type { NativeErrorData } from './native';
import { Listening } from './native';

/** Events that cost something on the hot path, with the bit that asks the engine for them. */
const ASKED_FOR: ReadonlyArray<readonly [string, Listening]> = [
  ['event:published', Listening.Published],
  ['event:consumed', Listening.Consumed],
  ['event:failed', Listening.Failed],
  ['event:retried', Listening.Retried],
];

/** Keys whose numbers are times. */
const TIMES: ReadonlySet<string> = new Set(['timestamp', 'at', 'lastHealthCheck', 'nextRetryAt', 'failedAt', 'resolvedAt']);

/** How the events of one kind of object are to be told. */
export interface LifecycleKind {
  /** The event of errors that reach no caller. */
  readonly error: string;
  /** What stands before such an error in the log, where nobody listens. */
  readonly label: string;
  /** What listeners are given, from what crossed: times become Dates. */
  revive(payload: Record<string, unknown>, name: string): unknown;
}

const OF_BUS: LifecycleKind = { error: 'error', label: 'Error', revive };

/** Emits on every object that shares one of the engine's: on a RedisEventBus and the OSSAEventBus around it, or on a registry. */
export class Lifecycle {
  readonly #log: Log;
  readonly #kind: LifecycleKind;
  readonly #emitters: EventEmitter[] = [];
  #listen: ((mask: number) => void) | undefined;
  #mask = 0;

  constructor(log: Log, kind: LifecycleKind = OF_BUS) {
    this.#log = log;
    this.#kind = kind;
    log.listenedBy((line) => this.#emit('log', line));
  }

  /** `emitter` hears the events from now on. It says by {@link listenersChanged} when its listeners change. */
  attach(emitter: EventEmitter): void {
    this.#emitters.push(emitter);
  }

  /** There is an engine bus to tell what is listened for; undefined: no more. */
  connect(listen: ((mask: number) => void) | undefined): void {
    this.#listen = listen;
    this.#mask = 0;
    this.listenersChanged();
  }

  /** Whether somebody listens for the event. */
  hears(name: string): boolean {
    return this.#emitters.some((emitter) => emitter.listenerCount(name) > 0);
  }

  /** Asks the engine for the events that somebody listens for, and for no others. */
  listenersChanged(): void {
    if (this.#listen === undefined) return;
    let mask = 0;
    for (const [name, bit] of ASKED_FOR) if (this.hears(name)) mask |= bit;
    if (mask === this.#mask) return;
    this.#mask = mask;
    this.#listen(mask);
  }

  /** What {@link Message.Lifecycle} told. */
  receive(text: string): void {
    let events: Array<[string, Record<string, unknown>]>;
    try {
      events = JSON.parse(text) as typeof events;
    } catch (error) {
      this.#log.failure('Lifecycle events could not be read', error);
      return;
    }
    for (const [name, payload] of events) {
      if (name === 'log') this.#log.receive(payload as CrossedLine);
      else this.emit(name, name === this.#kind.error ? asError(payload) : this.#kind.revive(payload, name));
    }
  }

  /** Calls each listener on its own: one that throws, or whose promise rejects, is logged and the rest are called. */
  emit(name: string, payload: unknown): void {
    if (!this.#emit(name, payload) && name === this.#kind.error) this.#log.failure(this.#kind.label, payload);
  }

  /** Whether somebody listens. */
  #emit(name: string, payload: unknown): boolean {
    let heard = false;
    const failed = (error: unknown) => this.#log.failure(`A listener of '${name}' failed`, error, name === 'log');
    for (const emitter of this.#emitters) {
      for (const listener of emitter.rawListeners(name)) {
        heard = true;
        try {
          const result: unknown = Reflect.apply(listener, emitter, [payload]);
          if (isThenable(result)) result.then(undefined, failed);
        } catch (error) {
          failed(error);
        }
      }
    }
    return heard;
  }

  /** An error that reaches no caller: the event of errors, or the log. */
  error(error: unknown): void {
    this.emit(this.#kind.error, error);
  }
}

/** Whether a value has a `then`. Reading it may throw. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    ((typeof value === 'object' && value !== null) || typeof value === 'function') &&
    typeof (value as { then?: unknown }).then === 'function'
  );
}

function isErrorData(value: unknown): value is NativeErrorData {
  const data = value as Partial<NativeErrorData> | null;
  return typeof data === 'object' && data !== null && typeof data.code === 'string' && typeof data.message === 'string';
}

function asError(payload: Record<string, unknown>): unknown {
  return isErrorData(payload) ? fromNative(payload) : isErrorData(payload['error']) ? fromNative(payload['error']) : payload;
}

function revive(payload: Record<string, unknown>): Record<string, unknown> {
  for (const [key, value] of Object.entries(payload)) {
    if (typeof value === 'number' && TIMES.has(key)) payload[key] = new Date(value);
    else if (key === 'error' && isErrorData(value)) payload[key] = fromNative(value);
  }
  return payload;
}

/** One call of one handler, from the moment it is made to its settlement. */

import type { Asker } from './asker';
import type { Batch } from './batch';
import type { Timed, TimedList } from './deadlines';
import type { OSSAError } from './errors';
import { closed, invalidArgument, shortened } from './errors';
import type { Carried } from './tracing';
import type { DeliveryContext } from './types';
import type { Listed } from './underway';

/** What a delivery needs of the dispatcher. */
export interface DeliveryOwner {
  acknowledge(delivery: Delivery): Promise<void>;
  reject(delivery: Delivery, options: object | undefined): Promise<void>;
  failOne(delivery: Delivery, batch: Batch, index: number, error: unknown): void;
  extend(delivery: Delivery, ms: number): void;
}

/** What a delivery needs of its subscription. */
export interface DeliverySubscription {
  readonly group: string;
}

/** How it was settled, as far as it was. */
export const enum Outcome {
  Open,
  Acknowledged,
  Nacked,
  Failed,
  Returned,
}

/** What most deliveries never have: an object of its own, so that all others are smaller. */
class Seldom {
  /** The handler's time was over; it may still run. */
  timedOut = false;
  /** Promise of the ack() or nack() that was called. */
  answer: Promise<void> | undefined = undefined;
  /** Why its signal is or would be aborted. */
  abortReason: OSSAError | undefined = undefined;
  controller: AbortController | undefined = undefined;
  /** All that its handler got, if it is a batch handler. Then token, attempt and stream id are those of the first. */
  batch: Batch | undefined = undefined;
  /** Who waits for what the handler returns. */
  asker: Asker | undefined = undefined;
  /** What it returned, while its event is still to be settled by hand. */
  result: unknown = undefined;
  /** Of its event's trace, for what its handler publishes. */
  carried: Carried | undefined = undefined;
}

const NOTHING: Readonly<Seldom> = Object.freeze(new Seldom());

/** State of one delivery. */
export class Delivery implements Timed, Listed {
  deadline = 0;
  before: Timed | undefined = undefined;
  after: Timed | undefined = undefined;
  list: TimedList | undefined = undefined;

  previous: Delivery | undefined = undefined;
  next: Delivery | undefined = undefined;
  isUnderway = false;

  outcome = Outcome.Open;
  /** The handler returned, or its promise was settled. */
  finished = false;
  #seldom: Seldom | undefined = undefined;

  constructor(
    readonly owner: DeliveryOwner,
    readonly subscription: DeliverySubscription,
    readonly token: number,
    readonly attempt: number,
    readonly redelivered: boolean,
    readonly ms: number,
    readonly seq: number,
  ) {}

  /** What most deliveries do not have, to be read. */
  get seldom(): Readonly<Seldom> {
    return this.#seldom ?? NOTHING;
  }

  /** The same, to be changed. */
  get own(): Seldom {
    return (this.#seldom ??= new Seldom());
  }

  /** Aborts the signal, or lets it be born aborted. */
  abort(reason: OSSAError): void {
    const { own } = this;
    if (own.abortReason !== undefined) return;
    own.abortReason = reason;
    own.controller?.abort(reason);
  }

  /** Whether `error` only says that the handler obeyed its signal when its bus or subscription closed. */
  gaveUp(error: unknown): boolean {
    const { controller, abortReason, timedOut } = this.seldom;
    if (controller === undefined || abortReason === undefined || timedOut) return false;
    if (error === abortReason) return true;
    const { name, cause } = (typeof error === 'object' && error !== null ? error : {}) as { name?: unknown; cause?: unknown };
    return name === 'AbortError' || cause === abortReason;
  }
}

/**
 * Second argument of a handler. Its methods are made when they are read, so that they may be taken apart
 * (`const { ack } = context`) and cost nothing unless used.
 */
export class Context implements DeliveryContext {
  readonly #delivery: Delivery;

  constructor(delivery: Delivery) {
    this.#delivery = delivery;
  }

  /** Consumer group. */
  get group(): string {
    return this.#delivery.subscription.group;
  }

  /** Id of the entry in its stream. */
  get streamId(): string {
    return `${this.#delivery.ms}-${this.#delivery.seq}`;
  }

  /** 1 at the first delivery. */
  get attempt(): number {
    return this.#delivery.attempt;
  }

  /** Whether it was delivered before. */
  get redelivered(): boolean {
    return this.#delivery.redelivered;
  }

  /** Aborted at consumerTimeout, on close and on shutdown. */
  get signal(): AbortSignal {
    const { own } = this.#delivery;
    if (own.controller === undefined) {
      own.controller = new AbortController();
      if (own.abortReason !== undefined) own.controller.abort(own.abortReason);
    }
    return own.controller.signal;
  }

  /** Acknowledges; resolves once that is stored. */
  get ack(): () => Promise<void> {
    return () => acknowledge(this.#delivery);
  }

  /** Refuses: to be delivered again, or a dead letter. Resolves once that is stored. */
  get nack(): DeliveryContext['nack'] {
    return (options) => refuse(this.#delivery, options);
  }

  /** Asks for `ms` more. */
  get extend(): (ms: number) => void {
    return (ms) => {
      if (typeof ms !== 'number' || !Number.isFinite(ms) || ms < 0)
        throw invalidArgument('ms', 'must be a number of milliseconds, 0 or more');
      this.#delivery.owner.extend(this.#delivery, ms);
    };
  }

  /** Batch handlers: the event `index` of the batch failed, whatever becomes of the others. */
  get fail(): DeliveryContext['fail'] {
    return (index, error) => failOne(this.#delivery, index, error);
  }

  /** What a debugger shows. */
  toJSON(): object {
    const { group, streamId, attempt, redelivered } = this;
    return { group, streamId, attempt, redelivered };
  }
}

function failOne(delivery: Delivery, index: number, error: unknown): void {
  const { batch } = delivery.seldom;
  if (batch === undefined) {
    throw invalidArgument('fail', "is for batch handlers (subscribe with the option 'batch'); throw, or call nack()");
  }
  if (!Number.isInteger(index) || index < 0 || index >= batch.tokens.length) {
    throw invalidArgument('index', `must be the index of an event of the batch, from 0 to ${batch.tokens.length - 1}`);
  }
  if (delivery.outcome !== Outcome.Open) throw alreadySettled('fail()', delivery.outcome);
  delivery.owner.failOne(delivery, batch, index, error);
}

/** ack(), for a context or an iterated event. */
export function acknowledge(delivery: Delivery): Promise<void> {
  switch (delivery.outcome) {
    case Outcome.Acknowledged:
      return delivery.seldom.answer ?? Promise.resolve();
    case Outcome.Open:
      delivery.outcome = Outcome.Acknowledged;
      return (delivery.own.answer = delivery.owner.acknowledge(delivery));
    default:
      return Promise.reject(alreadySettled('ack()', delivery.outcome));
  }
}

/** nack(), for a context or an iterated event. */
export function refuse(delivery: Delivery, options?: unknown): Promise<void> {
  if (options !== undefined && (typeof options !== 'object' || options === null || Array.isArray(options))) {
    return Promise.reject(invalidArgument('options', 'must be an object { delayMs?, deadLetter?, reason? }'));
  }
  switch (delivery.outcome) {
    case Outcome.Nacked:
      return delivery.seldom.answer ?? Promise.resolve();
    case Outcome.Open: {
      const problem = nackProblem(options as Record<string, unknown> | undefined);
      if (problem !== undefined) return Promise.reject(problem);
      delivery.outcome = Outcome.Nacked;
      return (delivery.own.answer = delivery.owner.reject(delivery, crossable(options as Record<string, unknown> | undefined)));
    }
    default:
      return Promise.reject(alreadySettled('nack()', delivery.outcome));
  }
}

/** Why a signal is aborted at close. */
export function closingReason(what: string): OSSAError {
  return closed(`${what} is closing`);
}

const NACK_OPTIONS: ReadonlyMap<string, string> = new Map([
  ['delayMs', 'number'],
  ['deadLetter', 'boolean'],
  ['reason', 'string'],
]);

/** A settlement crosses without an answer of its own, so its options are checked before. */
function nackProblem(options: Record<string, unknown> | undefined): OSSAError | undefined {
  for (const [key, value] of Object.entries(options ?? {})) {
    const type = NACK_OPTIONS.get(key);
    if (type === undefined)
      return invalidArgument(`options.${key}`, 'is not an option of nack(); those are delayMs, deadLetter and reason');
    if (value === undefined) continue;
    if (typeof value !== type) return invalidArgument(`options.${key}`, `must be a ${type}`);
    if (type === 'number' && !((value as number) >= 0 && (value as number) <= Number.MAX_SAFE_INTEGER)) {
      return invalidArgument(`options.${key}`, 'must be a number of milliseconds, 0 or more');
    }
  }
  return undefined;
}

/** Longest reason that the engine takes, bytes. */
const REASON_BYTES_MAX = 1024;

/** A reason is often the message of an error, of any length: it is shortened, and left out when empty. */
function crossable(options: Record<string, unknown> | undefined): Record<string, unknown> | undefined {
  if (typeof options?.['reason'] !== 'string') return options;
  const { reason, ...rest } = options;
  return reason === '' ? rest : { ...rest, reason: shortened(reason as string, REASON_BYTES_MAX) };
}

function alreadySettled(call: string, outcome: Outcome): OSSAError {
  const how =
    outcome === Outcome.Acknowledged
      ? 'was already acknowledged'
      : outcome === Outcome.Nacked
        ? 'was already refused with nack()'
        : outcome === Outcome.Failed
          ? 'already failed'
          : 'was already handed back';
  return invalidArgument(call, `the delivery ${how}`);
}

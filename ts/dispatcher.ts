/**
 * From deliveries to handlers to settlements. The engine decides what is delivered when, and what becomes of a delivery;
 * here handlers are called, timed and listened to.
 */

import type { CrossProjectMessage } from '../index';
import type { Asker } from './asker';
import { askerOf, encodeReply } from './asker';
import type { BatchItem } from './batch';
import { Batch } from './batch';
import type { Clock } from './clock';
import { Deadlines } from './deadlines';
import type { DeliveryOwner } from './delivery';
import { Context, Delivery, Outcome } from './delivery';
import { describeThrown, OSSAError, property } from './errors';
import { isThenable } from './lifecycle';
import type { Log } from './logger';
import { Flag, Row } from './native';
import { Head, readTail } from './payload';
import type { Route } from './route';
import { runFor } from './running';
import type { FailureKind, Settlements } from './settlements';
import type { Tracing } from './tracing';
import type { EventPayload, EventRetryConfig } from './types';

/** Waits until handlers are done. */
interface IdleWaiter {
  routes: readonly Route[];
  except: Delivery | undefined;
  resolve: () => void;
}

/** A batch whose rows are read. */
interface Gathered {
  route: Route;
  items: BatchItem[];
}

/** A number of 64 bits that crossed as two. */
function twoHalves(rows: Uint32Array, at: number): number {
  return (rows[at] as number) * 0x1_0000_0000 + (rows[at + 1] as number);
}

function headOf(id: string, rows: Uint32Array, row: number, tail: string): Head {
  return new Head(id, twoHalves(rows, row + Row.TimeHigh), readTail(tail));
}

/** An error that says so of itself is not tried again. */
function permanence(error: unknown): { permanent: true } | undefined {
  return property(error, 'permanent') === true ? { permanent: true } : undefined;
}

/** What a batch handler returned for one of its events: it answers with an array, in the order of the events. */
function resultOf(results: unknown, index: number): unknown {
  return Array.isArray(results) ? results[index] : undefined;
}

/** Headers of the event that a handler gets. */
function headersOf(route: Route, event: unknown): Record<string, string> | undefined {
  const payload = route.isOfProject ? (event as CrossProjectMessage).payload : (event as EventPayload);
  return payload.metadata.headers;
}

/** Calls the handlers of one bus. */
export class Dispatcher implements DeliveryOwner {
  readonly #settlements: Settlements;
  readonly #log: Log;
  readonly #retryDefaults: EventRetryConfig;
  readonly #maxPayloadBytes: number;
  /** undefined: handlers run in no trace. */
  readonly #tracing: Tracing | undefined;
  readonly #deadlines: Deadlines<Delivery>;
  readonly #routes = new Map<number, Route>();
  #waiters: IdleWaiter[] = [];

  constructor(
    clock: Clock,
    settlements: Settlements,
    log: Log,
    retryDefaults: EventRetryConfig,
    maxPayloadBytes: number,
    tracing?: Tracing,
  ) {
    this.#tracing = tracing;
    this.#maxPayloadBytes = maxPayloadBytes;
    this.#settlements = settlements;
    this.#log = log;
    this.#retryDefaults = retryDefaults;
    this.#deadlines = new Deadlines<Delivery>(clock, (delivery) => this.#expire(delivery));
  }

  /** All subscriptions. */
  get routes(): Route[] {
    return [...this.#routes.values()];
  }

  /** Handlers under way. */
  get running(): number {
    let count = 0;
    for (const route of this.#routes.values()) count += route.running.size;
    return count;
  }

  /** Deliveries for `route` are taken from now on; they wait until {@link opened}. */
  add(route: Route): void {
    this.#routes.set(route.id, route);
  }

  /** The engine has taken the subscription: what came meanwhile is delivered. */
  opened(route: Route, group: string): void {
    route.group = group;
    if (route.state !== 'opening') return;
    route.state = 'open';
    for (const start of route.early.splice(0)) start();
  }

  /** No delivery is taken any more, those not started are handed back, handlers under way are told by their signal. */
  closing(route: Route, reason: OSSAError): void {
    if (route.state === 'closing') return;
    const early = route.early.splice(0);
    route.state = 'closing';
    for (const start of early) start();
    route.iteration?.end();
    for (const delivery of route.running.all()) delivery.abort(reason);
  }

  /** The subscription is gone. */
  remove(route: Route): void {
    this.#routes.delete(route.id);
  }

  /** Resolves when no handler of `routes` runs any more, but for that of `except`. */
  idle(routes: readonly Route[], except: Delivery | undefined): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.push({ routes, except, resolve });
      this.#checkIdle();
    });
  }

  /** Leaves no timer behind. */
  end(): void {
    this.#deadlines.end();
    this.#routes.clear();
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  /** NativeCallbacks.onDeliveries */
  receive(text: string, rows: Uint32Array, texts: string[]): void {
    const ids = texts[0] === '' ? [] : (JSON.parse(texts[0] as string) as string[]);
    let nextId = 0;
    let start = 0;
    let batch: Gathered | undefined;
    for (let row = 0; row + Row.Stride <= rows.length; row += Row.Stride) {
      const middle = start + (rows[row + Row.MetaLength] as number);
      const end = middle + (rows[row + Row.DataLength] as number);
      const route = this.#routes.get(rows[row + Row.Subscription] as number);
      const tail = rows[row + Row.Tail] as number;
      const meta = tail === 0 ? text.slice(start, middle) : headOf(ids[nextId++] as string, rows, row, texts[tail] as string);
      if (route === undefined) this.#giveBack(rows[row + Row.Token] as number);
      else if (route.batched) batch = this.#gather(batch, route, rows, row, texts, meta, text.slice(middle, end));
      else this.#take(route, rows, row, texts, meta, text.slice(middle, end));
      start = end;
    }
    if (batch !== undefined) this.#takeBatch(batch);
  }

  /** The handler's time starts: it is called, or the event is given to a loop. */
  begin(delivery: Delivery, route: Route): void {
    route.running.add(delivery);
    this.#deadlines.start(delivery, route.timeoutMs);
  }

  /** The handler is done, or the loop has asked for the next event. */
  succeed(delivery: Delivery, result?: unknown): void {
    if (delivery.finished) return;
    const route = delivery.subscription as Route;
    if (delivery.outcome === Outcome.Open) {
      if (route.manualAck) {
        delivery.finished = true; // Its time runs on until ack() or nack().
        delivery.own.result = result;
        return;
      }
      delivery.outcome = Outcome.Acknowledged;
      this.#done(delivery, { result });
    } else if (delivery.outcome === Outcome.Acknowledged) {
      // Acknowledged by hand before there was an answer.
      const of = (index: number): unknown => (delivery.seldom.batch === undefined ? result : resultOf(result, index));
      this.#answer(delivery, (token, asker, index) => this.#reply(token, asker, of(index)));
    }
    this.#finish(delivery, route);
  }

  /** Answers whoever asked by events that are acknowledged already. */
  #answer(delivery: Delivery, answer: (token: number, asker: Asker, index: number) => void): void {
    const { batch, asker } = delivery.seldom;
    if (batch === undefined) {
      if (asker !== undefined) answer(delivery.token, asker, 0);
      return;
    }
    batch.tokens.forEach((token, index) => {
      const asker = batch.askers[index];
      if (asker !== undefined && !batch.failures.has(index)) answer(token, asker, index);
    });
  }

  #reply(token: number, asker: Asker, result: unknown): void {
    const reply = encodeReply(result, this.#maxPayloadBytes);
    if ('json' in reply) this.#settlements.reply(token, asker, reply.json);
    else this.#settlements.noReply(token, asker, reply.problem);
  }

  /** The handler threw, or its promise was rejected. */
  fail(delivery: Delivery, error: unknown): void {
    if (delivery.finished) return;
    const route = delivery.subscription as Route;
    if (delivery.outcome !== Outcome.Open) {
      this.#log.failure(`A handler of '${route.eventType}' failed after it had settled its event`, error);
      if (delivery.outcome === Outcome.Acknowledged)
        this.#answer(delivery, (token, asker) => this.#settlements.noReply(token, asker, describeThrown(error)));
    } else if (delivery.gaveUp(error)) {
      delivery.outcome = Outcome.Returned;
      this.#failed(delivery, 'back', '');
    } else {
      delivery.outcome = Outcome.Failed;
      this.#failed(delivery, 'error', describeThrown(error), permanence(error));
    }
    this.#finish(delivery, route);
  }

  /** Hands back what was not handled. */
  giveBack(delivery: Delivery): void {
    if (delivery.outcome === Outcome.Open) {
      delivery.outcome = Outcome.Returned;
      this.#failed(delivery, 'back', '');
    }
    this.#finish(delivery, delivery.subscription as Route);
  }

  /** ack() */
  acknowledge(delivery: Delivery): Promise<void> {
    // An answer that is there goes before; one that is not follows when the handler returns.
    this.#done(delivery, delivery.finished ? { result: delivery.seldom.result } : undefined);
    return this.#settled(delivery);
  }

  /** nack() */
  reject(delivery: Delivery, options: object | undefined): Promise<void> {
    const reason = property(options, 'reason');
    this.#failed(delivery, 'nack', typeof reason === 'string' ? reason : '', options);
    return this.#settled(delivery);
  }

  /** context.fail(): told when the others of the batch are settled. */
  failOne(_delivery: Delivery, batch: Batch, index: number, error: unknown): void {
    batch.failures.set(index, ['error', describeThrown(error), permanence(error)]);
  }

  /** extend() */
  extend(delivery: Delivery, ms: number): void {
    this.#deadlines.extend(delivery, ms);
  }

  #settled(delivery: Delivery): Promise<void> {
    this.#deadlines.stop(delivery);
    if (delivery.finished) this.#finish(delivery, delivery.subscription as Route);
    const stored = this.#settlements.stored();
    // Whoever does not await ack() still gets no unhandled rejection: the engine delivers the event again.
    stored.catch(() => undefined);
    return stored;
  }

  #take(route: Route, rows: Uint32Array, row: number, texts: string[], meta: Head | string, data: string): void {
    if (route.state === 'opening') {
      route.early.push(() => this.#take(route, rows, row, texts, meta, data));
      return;
    }
    const token = rows[row + Row.Token] as number;
    if (route.state !== 'open') {
      this.#giveBack(token);
      return;
    }
    const attempt = rows[row + Row.Attempt] as number;
    const redelivered = ((rows[row + Row.Flags] as number) & Flag.Redelivered) !== 0;
    const ms = twoHalves(rows, row + Row.MsHigh);
    const delivery = new Delivery(this, route, token, attempt, redelivered, ms, rows[row + Row.Seq] as number);
    if (((rows[row + Row.Flags] as number) & Flag.Asks) !== 0) delivery.own.asker = askerOf(meta as string);
    this.#start(delivery, route, texts[rows[row + Row.Type] as number] as string, meta, data);
  }

  /** A row of a batch; a row that begins another one ends the one at hand. */
  #gather(
    batch: Gathered | undefined,
    route: Route,
    rows: Uint32Array,
    row: number,
    texts: string[],
    meta: Head | string,
    data: string,
  ): Gathered {
    const flags = rows[row + Row.Flags] as number;
    let gathered = batch;
    if (gathered === undefined || (flags & Flag.Joined) === 0) {
      if (gathered !== undefined) this.#takeBatch(gathered);
      gathered = { route, items: [] };
    }
    gathered.items.push({
      token: rows[row + Row.Token] as number,
      attempt: rows[row + Row.Attempt] as number,
      redelivered: (flags & Flag.Redelivered) !== 0,
      asks: (flags & Flag.Asks) !== 0,
      ms: twoHalves(rows, row + Row.MsHigh),
      seq: rows[row + Row.Seq] as number,
      type: texts[rows[row + Row.Type] as number] as string,
      meta,
      data,
    });
    return gathered;
  }

  #takeBatch(gathered: Gathered): void {
    const { route, items } = gathered;
    if (route.state === 'opening') {
      route.early.push(() => this.#takeBatch(gathered));
      return;
    }
    if (route.state !== 'open') {
      for (const { token } of items) this.#giveBack(token);
      return;
    }
    const payloads: ReturnType<Route['read']>[] = [];
    const taken = items.filter(({ token, type, attempt, meta, data }) => {
      try {
        payloads.push(route.read(meta, data, type, attempt, this.#retryDefaults));
        return true;
      } catch (error) {
        this.#settlements.failed(token, 'malformed', describeThrown(error));
        return false;
      }
    });
    const first = taken[0];
    if (first === undefined) return;
    const attempt = Math.max(...taken.map((item) => item.attempt));
    const redelivered = taken.some((item) => item.redelivered);
    const delivery = new Delivery(this, route, first.token, attempt, redelivered, first.ms, first.seq);
    delivery.own.batch = new Batch(
      taken.map(({ token }) => token),
      taken.map(({ asks, meta }) => (asks ? askerOf(meta as string) : undefined)),
    );
    this.#call(delivery, route, payloads);
  }

  #start(delivery: Delivery, route: Route, type: string, meta: Head | string, data: string): void {
    let payload: ReturnType<Route['read']>;
    try {
      payload = route.read(meta, data, type, delivery.attempt, this.#retryDefaults);
    } catch (error) {
      this.#settlements.failed(delivery.token, 'malformed', describeThrown(error));
      return;
    }
    if (route.iteration !== undefined) {
      route.iteration.push(delivery, payload as EventPayload);
      return;
    }
    this.#call(delivery, route, payload);
  }

  #call(delivery: Delivery, route: Route, events: unknown): void {
    this.begin(delivery, route);
    try {
      const handler = route.handler as (events: unknown, context: Context) => unknown;
      const context = new Context(delivery);
      const result =
        this.#tracing === undefined || route.batched
          ? runFor(delivery, handler, events, context)
          : this.#tracing.run(delivery, headersOf(route, events), (a, b) => runFor(delivery, handler, a, b), events, context);
      if (isThenable(result)) {
        result.then(
          (value: unknown) => this.succeed(delivery, value),
          (error: unknown) => this.fail(delivery, error),
        );
      } else {
        this.succeed(delivery, result);
      }
    } catch (error) {
      this.fail(delivery, error);
    }
  }

  #expire(delivery: Delivery): void {
    const route = delivery.subscription as Route;
    const message = `the handler of '${route.eventType}' took longer than consumerTimeout (${route.timeoutMs} ms)`;
    delivery.own.timedOut = true;
    this.#failed(delivery, 'timeout', message);
    // Its place is free and nothing waits for it; it may still succeed or fail.
    route.running.delete(delivery);
    delivery.abort(new OSSAError(message, { code: 'ERR_HANDLER_TIMEOUT', retryable: true, details: { timeoutMs: route.timeoutMs } }));
    this.#checkIdle();
  }

  #finish(delivery: Delivery, route: Route): void {
    delivery.finished = true;
    this.#deadlines.stop(delivery);
    route.running.delete(delivery);
    if (this.#waiters.length > 0) this.#checkIdle();
  }

  /** It succeeded; of a batch, all that did not fail on its own. Who asked gets the answer, if there is one already. */
  #done(delivery: Delivery, answer: { result: unknown } | undefined): void {
    const { batch, asker } = delivery.seldom;
    if (batch === undefined) {
      if (asker === undefined || answer === undefined) this.#settlements.done(delivery.token);
      else this.#reply(delivery.token, asker, answer.result);
      return;
    }
    batch.tokens.forEach((token, index) => {
      const failure = batch.failures.get(index);
      const asker = batch.askers[index];
      if (failure !== undefined) this.#settlements.failed(token, ...failure);
      else if (asker === undefined || answer === undefined) this.#settlements.done(token);
      else this.#reply(token, asker, resultOf(answer.result, index));
    });
  }

  /** It did not succeed; of a batch, none did. */
  #failed(delivery: Delivery, kind: FailureKind, message: string, options?: object): void {
    const { batch } = delivery.seldom;
    if (batch === undefined) {
      this.#settlements.failed(delivery.token, kind, message, options);
      return;
    }
    // Those that failed on their own come first: the last one told ends the call, and says whether its time was over.
    const own = kind === 'back' ? [] : [...batch.failures].slice(0, batch.tokens.length - 1);
    for (const [index, failure] of own) this.#settlements.failed(batch.tokens[index] as number, ...failure);
    const told = new Set(own.map(([index]) => index));
    batch.tokens.forEach((token, index) => {
      if (!told.has(index)) this.#settlements.failed(token, kind, message, options);
    });
  }

  #giveBack(token: number): void {
    this.#settlements.failed(token, 'back', '');
  }

  #checkIdle(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const isBusy = (delivery: Delivery): boolean => !delivery.finished && delivery !== waiter.except;
      const busy = waiter.routes.some((route) => route.running.some(isBusy));
      if (!busy) waiter.resolve();
      return busy;
    });
  }
}

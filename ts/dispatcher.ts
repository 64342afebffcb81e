/**
 * From deliveries to handlers to settlements. The engine decides what is delivered when, and what becomes of a delivery;
 * here handlers are called, timed and listened to.
 */
import { askerOf, encodeReply } from './asker';
import type { Clock } from './clock';
import { Deadlines } from './deadlines';
import type { DeliveryOwner } from './delivery';
import { Context, Delivery, Outcome } from './delivery';
import { describeThrown, OSSAError, property } from './errors';
import { isThenable } from './lifecycle';
import type { Log } from './logger';
import { Row } from './native';
import { toPayload } from './payload';
import type { Route } from './route';
import { runFor } from './running';
import type { Settlements } from './settlements';
import type { EventPayload, EventRetryConfig } from './types';

/** Waits until handlers are done. */
interface IdleWaiter {
  routes: readonly Route[];
  except: Delivery | undefined;
  resolve: () => void;
}

/** Calls the handlers of one bus. */
export class Dispatcher implements DeliveryOwner {
  readonly #settlements: Settlements;
  readonly #log: Log;
  readonly #retryDefaults: EventRetryConfig;
  readonly #maxPayloadBytes: number;
  readonly #deadlines: Deadlines<Delivery>;
  readonly #routes = new Map<number, Route>();
  #waiters: IdleWaiter[] = [];

  constructor(clock: Clock, settlements: Settlements, log: Log, retryDefaults: EventRetryConfig, maxPayloadBytes: number) {
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
    for (const delivery of route.running) delivery.abort(reason);
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
  receive(text: string, rows: Uint32Array, types: string[]): void {
    let start = 0;
    for (let row = 0; row + Row.Stride <= rows.length; row += Row.Stride) {
      const middle = start + (rows[row + Row.MetaLength] as number);
      const end = middle + (rows[row + Row.DataLength] as number);
      const route = this.#routes.get(rows[row + Row.Subscription] as number);
      if (route === undefined) this.#giveBack(rows[row + Row.Token] as number);
      else this.#take(route, rows, row, types, text.slice(start, middle), text.slice(middle, end));
      start = end;
    }
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
        delivery.result = result;
        return;
      }
      delivery.outcome = Outcome.Acknowledged;
      if (delivery.asker === undefined) this.#settlements.done(delivery.token);
      else this.#reply(delivery, result);
    } else if (delivery.asker !== undefined && delivery.outcome === Outcome.Acknowledged) {
      this.#reply(delivery, result); // Acknowledged by hand before there was an answer.
    }
    this.#finish(delivery, route);
  }

  #reply(delivery: Delivery, result: unknown): void {
    const asker = delivery.asker as NonNullable<Delivery['asker']>;
    const reply = encodeReply(result, this.#maxPayloadBytes);
    if ('json' in reply) this.#settlements.reply(delivery.token, asker, reply.json);
    else this.#settlements.noReply(delivery.token, asker, reply.problem);
  }

  /** The handler threw, or its promise was rejected. */
  fail(delivery: Delivery, error: unknown): void {
    if (delivery.finished) return;
    const route = delivery.subscription as Route;
    if (delivery.outcome !== Outcome.Open) {
      this.#log.failure(`A handler of '${route.eventType}' failed after it had settled its event`, error);
      if (delivery.asker !== undefined && delivery.outcome === Outcome.Acknowledged)
        this.#settlements.noReply(delivery.token, delivery.asker, describeThrown(error));
    } else if (delivery.gaveUp(error)) {
      delivery.outcome = Outcome.Returned;
      this.#giveBack(delivery.token);
    } else {
      delivery.outcome = Outcome.Failed;
      this.#settlements.failed(
        delivery.token,
        'error',
        describeThrown(error),
        property(error, 'permanent') === true ? { permanent: true } : undefined,
      );
    }
    this.#finish(delivery, route);
  }

  /** Hands back what was not handled. */
  giveBack(delivery: Delivery): void {
    if (delivery.outcome === Outcome.Open) {
      delivery.outcome = Outcome.Returned;
      this.#giveBack(delivery.token);
    }
    this.#finish(delivery, delivery.subscription as Route);
  }

  /** ack() */
  acknowledge(delivery: Delivery): Promise<void> {
    // An answer that is there goes before; one that is not follows when the handler returns.
    if (delivery.asker !== undefined && delivery.finished) this.#reply(delivery, delivery.result);
    else this.#settlements.done(delivery.token);
    return this.#settled(delivery);
  }

  /** nack() */
  reject(delivery: Delivery, options: object | undefined): Promise<void> {
    const reason = property(options, 'reason');
    this.#settlements.failed(delivery.token, 'nack', typeof reason === 'string' ? reason : '', options);
    return this.#settled(delivery);
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

  #take(route: Route, rows: Uint32Array, row: number, types: string[], meta: string, data: string): void {
    if (route.state === 'opening') {
      route.early.push(() => this.#take(route, rows, row, types, meta, data));
      return;
    }
    const token = rows[row + Row.Token] as number;
    if (route.state !== 'open') {
      this.#giveBack(token);
      return;
    }
    const attempt = rows[row + Row.Attempt] as number;
    const redelivered = ((rows[row + Row.Flags] as number) & 1) === 1;
    const ms = (rows[row + Row.MsHigh] as number) * 0x1_0000_0000 + (rows[row + Row.MsLow] as number);
    const delivery = new Delivery(this, route, token, attempt, redelivered, ms, rows[row + Row.Seq] as number);
    if (((rows[row + Row.Flags] as number) & 2) === 2) delivery.asker = askerOf(meta);
    this.#start(delivery, route, types[rows[row + Row.Type] as number] as string, meta, data);
  }

  #start(delivery: Delivery, route: Route, type: string, meta: string, data: string): void {
    let payload: EventPayload;
    try {
      payload = toPayload(meta, data, type, delivery.attempt, this.#retryDefaults);
    } catch (error) {
      this.#settlements.failed(delivery.token, 'malformed', describeThrown(error));
      return;
    }
    if (route.iteration !== undefined) {
      route.iteration.push(delivery, payload);
      return;
    }
    this.begin(delivery, route);
    try {
      const result = runFor(delivery, route.handler as NonNullable<Route['handler']>, payload, new Context(delivery));
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
    delivery.timedOut = true;
    this.#settlements.failed(delivery.token, 'timeout', message);
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

  #giveBack(token: number): void {
    this.#settlements.failed(token, 'back', '');
  }

  #checkIdle(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const busy = waiter.routes.some((route) => {
        for (const delivery of route.running) if (!delivery.finished && delivery !== waiter.except) return true;
        return false;
      });
      if (!busy) waiter.resolve();
      return busy;
    });
  }
}

/**
 * `for await (const event of subscription)`. An event is acknowledged when the next one is asked for; leaving the loop
 * hands the current one back and closes the subscription. What was settled by hand stays so.
 */

import type { Delivery } from './delivery';
import { acknowledge, refuse } from './delivery';
import type { Dispatcher } from './dispatcher';
import type { Route } from './route';
import type { EventMetadata, EventPayload } from './types';

/** An event in a loop: a payload that can be settled by hand. */
export class IteratedEvent implements EventPayload {
  readonly metadata: EventMetadata;
  readonly data: any;
  readonly #delivery: Delivery;

  constructor(payload: EventPayload, delivery: Delivery) {
    this.metadata = payload.metadata;
    this.data = payload.data;
    this.#delivery = delivery;
  }

  /** Acknowledges now; resolves once that is stored. */
  ack(): Promise<void> {
    return acknowledge(this.#delivery);
  }

  /** Refuses: to be delivered again, or a dead letter. Resolves once that is stored. */
  nack(options?: object): Promise<void> {
    return refuse(this.#delivery, options);
  }
}

type Step = IteratorResult<IteratedEvent, undefined>;

interface Asking {
  iterator: EventIterator;
  resolve: (step: Step) => void;
}

/** Events waiting for loops, and loops waiting for events, of one subscription. */
export class Iteration {
  readonly dispatcher: Dispatcher;
  readonly #route: Route;
  readonly #queue: Array<[Delivery, EventPayload]> = [];
  readonly #asking: Asking[] = [];
  #ended = false;
  /** Closes the subscription; known once it is open. */
  close: () => Promise<void> = () => Promise.resolve();

  constructor(dispatcher: Dispatcher, route: Route) {
    this.dispatcher = dispatcher;
    this.#route = route;
  }

  /** A delivery came. */
  push(delivery: Delivery, payload: EventPayload): void {
    const asking = this.#asking.shift();
    if (asking === undefined) this.#queue.push([delivery, payload]);
    else asking.resolve(this.#hand(asking.iterator, delivery, payload));
  }

  /** A loop asks. */
  next(iterator: EventIterator): Promise<Step> {
    const waiting = this.#queue.shift();
    if (waiting !== undefined) return Promise.resolve(this.#hand(iterator, waiting[0], waiting[1]));
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#asking.push({ iterator, resolve }));
  }

  /** Hands back what no loop has; loops end. */
  end(): void {
    this.#ended = true;
    this.handBack();
    for (const { resolve } of this.#asking.splice(0)) resolve({ done: true, value: undefined });
  }

  /** Hands back what no loop has. */
  handBack(): void {
    for (const [delivery] of this.#queue.splice(0)) this.dispatcher.giveBack(delivery);
  }

  #hand(iterator: EventIterator, delivery: Delivery, payload: EventPayload): Step {
    iterator.current = delivery;
    this.dispatcher.begin(delivery, this.#route);
    return { done: false, value: new IteratedEvent(payload, delivery) };
  }
}

/** One loop. */
export class EventIterator implements AsyncIterator<IteratedEvent, undefined> {
  readonly #iteration: Iteration;
  /** The event that the loop's body has. */
  current: Delivery | undefined;

  constructor(iteration: Iteration) {
    this.#iteration = iteration;
  }

  /** Acknowledges the current event and waits for the next. */
  next(): Promise<Step> {
    const { current } = this;
    this.current = undefined;
    if (current !== undefined) this.#iteration.dispatcher.succeed(current);
    return this.#iteration.next(this);
  }

  /** The loop was left. */
  async return(): Promise<Step> {
    const { current } = this;
    this.current = undefined;
    if (current !== undefined) this.#iteration.dispatcher.giveBack(current);
    await this.#iteration.close();
    return { done: true, value: undefined };
  }

  /** The iterator of an iterator is itself. */
  [Symbol.asyncIterator](): this {
    return this;
  }
}

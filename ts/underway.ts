/** Handlers of one subscription that are under way: a list through its deliveries, as a set would cost more than calling a handler. */
import type { Delivery } from './delivery';

/** A place in the list of {@link Underway}, which owns the links. */
export interface Listed {
  previous: Delivery | undefined;
  next: Delivery | undefined;
  isUnderway: boolean;
}

/** Deliveries whose handlers are under way. */
export class Underway {
  #size = 0;
  #first: Delivery | undefined;

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** The handler of `delivery` is called. */
  add(delivery: Delivery): void {
    if (delivery.isUnderway) return;
    const first = this.#first;
    delivery.isUnderway = true;
    delivery.next = first;
    if (first !== undefined) first.previous = delivery;
    this.#first = delivery;
    this.#size++;
  }

  /** It is not waited for any more. */
  delete(delivery: Delivery): void {
    if (!delivery.isUnderway) return;
    const { previous, next } = delivery;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next !== undefined) next.previous = previous;
    delivery.isUnderway = false;
    delivery.previous = delivery.next = undefined;
    this.#size--;
  }

  /** Whether it holds for one of them. */
  some(holds: (delivery: Delivery) => boolean): boolean {
    for (let delivery = this.#first; delivery !== undefined; delivery = delivery.next) if (holds(delivery)) return true;
    return false;
  }

  /** All that are under way now, in the order of their calls: what comes and goes meanwhile changes nothing. */
  all(): Delivery[] {
    const all: Delivery[] = [];
    for (let delivery = this.#first; delivery !== undefined; delivery = delivery.next) all.push(delivery);
    return all.reverse();
  }
}

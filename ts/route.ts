/** What the dispatcher knows of a subscription. */
import type { CrossProjectMessage } from '../index';
import type { Iteration } from './iteration';
import type { Head } from './payload';
import { toPayload } from './payload';
import type { EventHandlerFn, EventPayload, EventRetryConfig } from './types';
import { Underway } from './underway';

/** Makes of metadata and data, event type and attempt what a handler is given. */
export type PayloadReader = (
  meta: Head | string,
  data: string,
  type: string,
  attempt: number,
  retryDefaults: EventRetryConfig,
) => EventPayload | CrossProjectMessage;

/** 'opening': the engine was asked; 'paused' and 'closing': deliveries are handed back. */
export type RouteState = 'opening' | 'open' | 'paused' | 'closing';

/** Default of `consumerTimeout`, ms. */
export const CONSUMER_TIMEOUT_MS = 30_000;

/** One subscription. */
export class Route {
  state: RouteState = 'opening';
  /** Known once it is open. */
  group = '';
  /** Deliveries that came before the engine's answer did. */
  readonly early: Array<() => void> = [];
  /** Handlers under way. */
  readonly running = new Underway();
  /** In place of a handler. */
  iteration: Iteration | undefined;

  constructor(
    readonly id: number,
    readonly eventType: string,
    readonly handler: EventHandlerFn | undefined,
    readonly timeoutMs: number,
    readonly manualAck: boolean,
    /** The handler gets arrays of events. */
    readonly batched: boolean,
    /** What the handler is given, from what crossed of a delivery. */
    readonly read: PayloadReader = toPayload,
  ) {}

  /** Whether it takes messages to a project. */
  get isOfProject(): boolean {
    return this.read !== toPayload;
  }
}

/** What an agent says of its tasks: published again and again until the store has it, or the bus is closed. */
import { randomUUID } from 'node:crypto';
import type { Clock, Timer } from './clock';
import { OSSAError, property } from './errors';
import type { Reason } from './keepAlive';
import type { OSSAErrorCode, PublishOptions } from './types';

/** Pauses between attempts; each is twice as long as the one before. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 5_000;

/** An event that was stored though its publish rejected is stored once, if it is published again within this time. */
const IDEMPOTENCY_WINDOW_MS = 600_000;

/** Errors that the same event meets at every attempt. */
const HOPELESS: ReadonlySet<unknown> = new Set<OSSAErrorCode>(['ERR_NOT_SERIALIZABLE', 'ERR_PAYLOAD_TOO_LARGE', 'ERR_INVALID_ARGUMENT']);

/** Publishes an event. */
export type Publish = (eventType: string, data: object, options: PublishOptions) => Promise<unknown>;

/** An event on its way. */
interface Letter {
  readonly send: () => Promise<unknown>;
  dropped: boolean;
  /** Ends the pause between two attempts, while there is one. */
  wake: (() => void) | undefined;
}

/** What can be done about an event that was posted. */
export interface Posted {
  /** Resolves when nothing more is done about it: with the error where it can never be stored. */
  readonly sent: Promise<'stored' | 'dropped' | OSSAError>;
  /** It is not to be sent any more, unless it is on its way already. */
  drop(): void;
}

/** Of one agent. It has as many letters as the agent has tasks in hand, or a few times as many. */
export class Outbox {
  readonly #publish: Publish;
  readonly #clock: Clock;
  readonly #keeps: Reason;
  readonly #trouble: (error: unknown) => void;
  readonly #letters = new Set<Letter>();
  readonly #waiting: Array<() => void> = [];
  /** Of this agent in this process: another one of that id may say the same again, and mean it. */
  readonly #name = randomUUID();
  #count = 0;
  #closed = false;

  /** `trouble` hears of the first error of each event; `keeps` is held while there are any. */
  constructor(publish: Publish, clock: Clock, keeps: Reason, trouble: (error: unknown) => void) {
    this.#publish = publish;
    this.#clock = clock;
    this.#keeps = keeps;
    this.#trouble = trouble;
  }

  /** Publishes an event; its first attempt begins at once. */
  post(eventType: string, data: object, correlationId?: string | null): Posted {
    const options: PublishOptions = { idempotencyKey: `${this.#name}:${++this.#count}`, idempotencyWindowMs: IDEMPOTENCY_WINDOW_MS };
    if (correlationId !== undefined && correlationId !== null) options.correlationId = correlationId;
    const letter: Letter = { send: () => this.#publish(eventType, data, options), dropped: false, wake: undefined };
    this.#letters.add(letter);
    this.#keeps.set(true);
    const sent = this.#deliver(letter).finally(() => this.#done(letter));
    return { sent, drop: () => this.#drop(letter) };
  }

  /** Resolves when there are none, at the latest after `ms`. */
  empty(ms: number): Promise<void> {
    if (this.#letters.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#clock.after(ms, resolve);
      this.#waiting.push(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  /** The bus is being closed: whatever waits for another attempt has its last one now. */
  close(): void {
    this.#closed = true;
    for (const letter of this.#letters) {
      if (letter.wake !== undefined) letter.send().catch(() => undefined);
      this.#drop(letter);
    }
  }

  async #deliver(letter: Letter): Promise<'stored' | 'dropped' | OSSAError> {
    for (let pauseMs = PAUSE_MS_MIN; !letter.dropped; pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)) {
      try {
        await letter.send();
        return 'stored';
      } catch (error) {
        if (this.#closed || letter.dropped || property(error, 'code') === 'ERR_CLOSED') return 'dropped';
        if (error instanceof OSSAError && HOPELESS.has(error.code)) return error;
        if (pauseMs === PAUSE_MS_MIN) this.#trouble(error);
      }
      await this.#pause(letter, pauseMs);
    }
    return 'dropped';
  }

  async #pause(letter: Letter, ms: number): Promise<void> {
    let timer: Timer | undefined;
    await new Promise<void>((resolve) => {
      letter.wake = resolve;
      timer = this.#clock.after(ms, resolve);
    });
    timer?.cancel();
    letter.wake = undefined;
  }

  #drop(letter: Letter): void {
    letter.dropped = true;
    letter.wake?.();
  }

  #done(letter: Letter): void {
    this.#letters.delete(letter);
    if (this.#letters.size > 0) return;
    this.#keeps.set(false);
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Settlements: what became of deliveries, collected and handed to the engine once a turn of the microtask queue. */
import type { Asker } from './asker';
import { fromNative, internal, type OSSAError } from './errors';
import type { NativeBus, NativeErrorData } from './native';

/** What the engine is told of a delivery beside that it succeeded; see NativeBus.settle. */
export type FailureKind = 'error' | 'timeout' | 'nack' | 'malformed' | 'reply' | 'back';

interface Waiter {
  resolve: () => void;
  reject: (error: unknown) => void;
}

const resolved = Promise.resolve();

/** Collects settlements of one bus. */
export class Settlements {
  readonly #onError: (error: unknown) => void;
  readonly #confirming = new Map<number, Waiter[]>();
  readonly #onFlush = (): void => this.flush();
  #native: NativeBus | undefined;
  #done = new Uint32Array(256);
  #doneCount = 0;
  #failed: Array<[number, FailureKind, string, object?]> = [];
  #waiters: Waiter[] = [];
  #scheduled = false;
  #lastConfirm = 0;
  #ended: OSSAError | undefined;

  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** Settlements go to `native`. */
  open(native: NativeBus): void {
    this.#native = native;
  }

  /** The delivery `token` succeeded. */
  done(token: number): void {
    if (this.#doneCount === this.#done.length) {
      const larger = new Uint32Array(this.#done.length * 2);
      larger.set(this.#done);
      this.#done = larger;
    }
    this.#done[this.#doneCount++] = token;
    if (!this.#scheduled) this.#schedule();
  }

  /** The delivery `token` did not succeed. */
  failed(token: number, kind: FailureKind, message: string, options?: object | undefined): void {
    this.#failed.push(options === undefined ? [token, kind, message] : [token, kind, message, options]);
    if (!this.#scheduled) this.#schedule();
  }

  /** The delivery `token` succeeded, and `json` is what it answers to whoever asked. */
  reply(token: number, asker: Asker, json: string): void {
    this.failed(token, 'reply', json, asker);
  }

  /** The delivery `token` succeeded, but has no answer for whoever asked. */
  noReply(token: number, asker: Asker, problem: string): void {
    this.failed(token, 'reply', problem, { ...asker, failed: true });
  }

  /** Resolves when all settled up to now is stored. */
  stored(): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      if (!this.#scheduled) this.#schedule();
    });
  }

  /** Hands over what was collected. */
  flush(): void {
    this.#scheduled = false;
    const failed = this.#failed;
    const waiters = this.#waiters;
    if (this.#ended !== undefined) this.#doneCount = failed.length = 0; // Too late: the engine handed them back.
    if (this.#doneCount === 0 && failed.length === 0 && waiters.length === 0) return;
    const done = this.#done.slice(0, this.#doneCount);
    this.#doneCount = 0;
    this.#failed = [];
    this.#waiters = [];
    let confirm = 0;
    if (waiters.length > 0) {
      this.#lastConfirm = confirm = this.#lastConfirm === 0xffff_ffff ? 1 : this.#lastConfirm + 1;
      this.#confirming.set(confirm, waiters);
    }
    try {
      if (this.#native === undefined) throw internal('the bus is not connected');
      this.#native.settle(done, failed.length === 0 ? '' : JSON.stringify(failed), confirm);
    } catch (cause) {
      const error = internal('The addon refused settlements', cause);
      if (waiters.length > 0) this.#answer(confirm, error);
      else this.#onError(error);
    }
  }

  /** NativeCallbacks.onSettled */
  receive(confirmations: Uint32Array, failed: string): void {
    if (failed !== '') {
      for (const [confirm, data] of JSON.parse(failed) as Array<[number, NativeErrorData]>) this.#answer(confirm, fromNative(data));
    }
    for (let i = 0; i < confirmations.length; i++) this.#answer(confirmations[i] as number, undefined);
  }

  /** The engine answers no more: rejects all that still wait, and what comes later. */
  end(error: OSSAError): void {
    this.#native = undefined;
    this.#ended = error;
    this.#doneCount = 0;
    this.#failed = [];
    for (const confirm of [...this.#confirming.keys()]) this.#answer(confirm, error);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }

  #answer(confirm: number, error: OSSAError | undefined): void {
    const waiters = this.#confirming.get(confirm);
    if (waiters === undefined) return;
    this.#confirming.delete(confirm);
    for (const waiter of waiters) {
      if (error === undefined) waiter.resolve();
      else waiter.reject(error);
    }
  }

  #schedule(): void {
    this.#scheduled = true;
    // One turn later than need be: handlers called together that end at once and those that end after an await cross together.
    resolved.then(() => void resolved.then(this.#onFlush));
  }
}

/** Calls to an object of the engine, each answered later under its number. */
import { fromNative, internal, type OSSAError } from './errors';
import { encode } from './json';
import type { KeepAlive } from './keepAlive';
import type { NativeAnswer } from './native';

/** What takes calls: a bus, or a registry of services. */
export interface Called {
  call(id: number, method: string, args: string): void;
}

/** Those of one object that wait for their answer; each keeps Node alive. */
export class Calls {
  readonly #keepAlive: KeepAlive;
  readonly #waiting = new Map<number, (answer: string) => void>();
  #last = 0;

  constructor(keepAlive: KeepAlive) {
    this.#keepAlive = keepAlive;
  }

  /** Resolves with the answer. Rejects with what the engine refused, or ERR_INTERNAL where the answer is none. */
  async ask<T>(native: Called, method: string, args: unknown): Promise<T> {
    this.#keepAlive.hold();
    const id = (this.#last = (this.#last + 1) >>> 0);
    let answer: NativeAnswer<T>;
    try {
      const text = await new Promise<string>((resolve) => {
        this.#waiting.set(id, resolve);
        native.call(id, method, encode(args));
      });
      answer = JSON.parse(text) as NativeAnswer<T>;
    } catch (error) {
      throw internal(`The addon did not answer '${method}'`, error);
    } finally {
      this.#waiting.delete(id);
      this.#keepAlive.release();
    }
    if ('err' in answer) throw fromNative(answer.err);
    return answer.ok;
  }

  /** What {@link Message.Answer} told: the answer to the call `id`. */
  answer(id: number, text: string): void {
    this.#waiting.get(id)?.(text);
  }

  /** Those that wait are rejected with the like of `error`: the engine tells nothing more. */
  end({ code, message, retryable }: OSSAError): void {
    for (const answer of this.#waiting.values()) answer(JSON.stringify({ err: { code, message, retryable } }));
  }
}

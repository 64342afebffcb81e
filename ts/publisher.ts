/**
 * Publishing. The calls of one turn of the microtask queue become one text and cross in one call; their promises are
 * resolved when the engine answers for many at once. What is done once for each event is kept to JSON.stringify, one
 * look-up of the type, one promise and one concatenation.
 */
import { aborted, fromNative, internal, invalidArgument, OSSAError, property } from './errors';
import { encode, isRecord, stringifyData } from './json';
import type { KeepAlive } from './keepAlive';
import type { NativeAddon, NativeBus, NativeErrorData } from './native';
import { ID_CHARS } from './native';
import { PendingTable } from './pending';
import { cutTimeout, encodePublishOptions } from './publishOptions';
import type { Tracing } from './tracing';
import type { PublishOptions } from './types';

/** Text is handed over early beyond this: the engine begins with it while the rest is still made. */
const FLUSH_CHARS = 1 << 16;

/** Most event types whose names are remembered as valid. */
const TYPES_MAX = 10_000;

/** What became of one event of a batch: an element of `details.results`. */
export type PublishResult = { id: string } | { error: OSSAError };

/** A record with a signal: where it stands in the text, so that it can be taken out again until the text is handed over. */
interface Mark {
  token: number;
  start: number;
  end: number;
}

const resolved = Promise.resolve();

/** Collects the publishes of one bus. */
export class Publisher {
  readonly #addon: NativeAddon;
  readonly #keepAlive: KeepAlive;
  readonly #maxPayloadBytes: number;
  /** undefined: events carry no traces. */
  readonly #tracing: Tracing | undefined;
  /** Valid event type → the start of its records without options. */
  readonly #types = new Map<string, string>();
  readonly #pending = new PendingTable();
  readonly #onFlush = (): void => this.flush();
  #native: NativeBus | undefined;
  readonly #refusal: () => OSSAError;
  #text = '';
  #firstToken = 0;
  #nextToken = 0;
  #marks: Mark[] | undefined;

  constructor(addon: NativeAddon, keepAlive: KeepAlive, maxPayloadBytes: number, tracing: Tracing | undefined, refusal: () => OSSAError) {
    this.#addon = addon;
    this.#keepAlive = keepAlive;
    this.#maxPayloadBytes = maxPayloadBytes;
    this.#tracing = tracing;
    this.#refusal = refusal;
  }

  /** Publishes go to `native` from now on. */
  open(native: NativeBus): void {
    this.#native = native;
  }

  /** Further publishes are refused. */
  close(): void {
    this.flush();
    this.#native = undefined;
  }

  /** Rejects all that is still without an answer: the engine gives none any more. */
  abandon(error: OSSAError): void {
    if (this.#pending.size === 0) return;
    this.#pending.rejectAll(error);
    this.#keepAlive.release();
  }

  /** Resolves with what a handler returned. */
  async request(eventType: string, data: unknown, options: (PublishOptions & { timeoutMs?: number }) | null = {}): Promise<unknown> {
    const [timeoutMs, rest] = cutTimeout(options ?? {});
    const reply = await this.publish(eventType, data, rest, `?${timeoutMs}`);
    return JSON.parse(reply) as unknown;
  }

  /** Resolves with the id; every failure is a rejection. `mark` stands before the options, see {@link NativeBus.publish}. */
  publish(eventType: string, data: unknown, options?: PublishOptions, mark = ''): Promise<string> {
    if (this.#native === undefined) return Promise.reject(this.#refusal());
    let json: string;
    let head: string;
    let signal: AbortSignal | undefined;
    try {
      head = this.#types.get(eventType) ?? this.#learn(eventType);
      const carried = this.#tracing?.outgoing();
      if (options !== undefined && options !== null) {
        signal = signalOf(options, mark === '' ? 'publish' : 'request');
        const text = mark + encodePublishOptions(carried === undefined ? options : carried.beside(options));
        if (text !== '') head = `${eventType}\t${text}\t`;
      } else if (carried !== undefined) {
        head = `${eventType}\t${carried.text}\t`;
      }
      json = stringifyData(data);
      if (json.length > this.#maxPayloadBytes) throw this.#tooLarge(json.length);
    } catch (error) {
      return Promise.reject(error instanceof OSSAError ? error : internal('publish failed', error));
    }
    return this.#collect(`${head}${json}\n`, signal, mark === '' ? 'publish' : 'request');
  }

  /** Adds a record to those of this turn. */
  #collect(record: string, signal?: AbortSignal, what = ''): Promise<string> {
    if (this.#text === '') {
      if (this.#nextToken >= TOKENS_END) this.#nextToken = 0;
      this.#firstToken = this.#nextToken;
      resolved.then(this.#onFlush);
    }
    const token = this.#nextToken;
    this.#nextToken = nextOf(token);
    if (this.#pending.size === 0) this.#keepAlive.hold();
    const promise = this.#pending.add(token);
    const start = this.#text.length;
    this.#text += record;
    if (signal !== undefined) this.#watch(signal, token, start, what);
    if (this.#text.length >= FLUSH_CHARS) this.flush();
    return promise;
  }

  /** Sends a message between projects; resolves with its id. */
  send(source: unknown, target: unknown, eventType: string, data: unknown, options: unknown): Promise<string> {
    if (this.#native === undefined) return Promise.reject(this.#refusal());
    let record: string;
    try {
      this.#types.get(eventType) ?? this.#learn(eventType);
      if (typeof source !== 'string') throw invalidArgument('source', 'must be a project id');
      if (typeof target !== 'string' && !Array.isArray(target))
        throw invalidArgument('target', 'must be a project id, a list of them, or *');
      if (options !== undefined && options !== null && !isRecord(options)) throw invalidArgument('options', 'must be an object');
      const json = stringifyData(data);
      // Refused by the engine, which records it; the data itself need not cross for that.
      const characters = json.length > this.#maxPayloadBytes ? json.length : undefined;
      const carried = this.#tracing?.outgoing();
      const given = carried === undefined ? (options ?? undefined) : carried.beside(options ?? {});
      const address = encode({ source, target, options: given, characters });
      record = `${eventType}\t@${address}\t${characters === undefined ? json : 'null'}\n`;
    } catch (error) {
      return Promise.reject(error instanceof OSSAError ? error : internal('sending failed', error));
    }
    return this.#collect(record);
  }

  /** All ids, or an error whose `details.results` tells of each event. */
  async publishBatch(events: ReadonlyArray<{ eventType: string; data: unknown; options?: PublishOptions }>): Promise<string[]> {
    if (!Array.isArray(events)) throw invalidArgument('events', 'must be an array of { eventType, data, options? }');
    const settled = await Promise.allSettled(
      events.map((event: unknown, index) => {
        if (typeof event !== 'object' || event === null) {
          return Promise.reject(invalidArgument(`events[${index}]`, 'must be an object { eventType, data, options? }'));
        }
        const { eventType, data, options } = event as { eventType: string; data: unknown; options?: PublishOptions };
        return this.publish(eventType, data, options);
      }),
    );
    const errors: OSSAError[] = [];
    let first = -1;
    const ids: string[] = [];
    settled.forEach((item, index) => {
      if (item.status === 'fulfilled') {
        ids.push(item.value);
      } else {
        if (first < 0) first = index;
        errors.push(item.reason as OSSAError);
      }
    });
    if (errors.length === 0) return ids;
    const cause = errors[0] as OSSAError;
    const results = settled.map(
      (item): PublishResult => (item.status === 'fulfilled' ? { id: item.value } : { error: item.reason as OSSAError }),
    );
    throw new OSSAError(`${errors.length} of ${events.length} events were not published; the first is events[${first}]: ${cause.message}`, {
      code: cause.code,
      retryable: errors.every((error) => error.retryable),
      details: { results, failed: errors.length },
      cause,
    });
  }

  /** Hands over what was collected. */
  flush(): void {
    const text = this.#text;
    if (text === '') return;
    const marks = this.#marks;
    this.#text = '';
    this.#marks = undefined;
    const native = this.#native;
    try {
      if (native === undefined) throw internal('the bus was closed with publishes at hand');
      if (marks === undefined || marks.every((mark) => this.#pending.has(mark.token))) native.publish(this.#firstToken, text);
      else this.#publishWithout(native, text, marks);
    } catch (error) {
      this.#failRange(this.#firstToken, error);
    }
  }

  /** {@link Message.Published} */
  receive(tokens: Uint32Array, texts: string[], ids: string): void {
    const pending = this.#pending;
    if (pending.size === 0) return;
    const count = ids.length / ID_CHARS;
    for (let i = 0, at = 0; i < count; i++, at += ID_CHARS) pending.resolve(tokens[i] as number, apart(ids.slice(at, at + ID_CHARS)));
    for (let i = 0; i < texts.length; i++) pending.resolve(tokens[count + i] as number, texts[i] as string);
    if (pending.size === 0) this.#keepAlive.release();
  }

  /** {@link Message.Refused} */
  refused(failed: string): void {
    const pending = this.#pending;
    if (pending.size === 0) return;
    for (const [token, data] of JSON.parse(failed) as Array<[number, NativeErrorData]>) pending.reject(token, fromNative(data));
    if (pending.size === 0) this.#keepAlive.release();
  }

  /** Checks a name that was not seen before. */
  #learn(eventType: unknown): string {
    if (typeof eventType !== 'string')
      throw invalidArgument('eventType', `must be a string, not ${eventType === null ? 'null' : typeof eventType}`);
    const problem = this.#addon.checkName('eventType', eventType);
    if (problem !== '') throw fromNative(JSON.parse(problem) as NativeErrorData);
    if (this.#types.size >= TYPES_MAX) this.#types.clear();
    const head = `${eventType}\t\t`;
    this.#types.set(eventType, head);
    return head;
  }

  #tooLarge(length: number): OSSAError {
    return new OSSAError(
      `data: its JSON text has ${length} characters, more than limits.maxPayloadBytes (${this.#maxPayloadBytes} bytes)`,
      {
        code: 'ERR_PAYLOAD_TOO_LARGE',
        details: { limit: this.#maxPayloadBytes, length },
      },
    );
  }

  #watch(signal: AbortSignal, token: number, start: number, what: string): void {
    (this.#marks ??= []).push({ token, start, end: this.#text.length });
    const abort = (): void => {
      if (!this.#pending.has(token)) return;
      const sent = this.#marks?.some((mark) => mark.token === token) !== true;
      this.#pending.reject(token, aborted(what, signal));
      if (this.#pending.size === 0) this.#keepAlive.release();
      if (sent) this.#native?.cancel(token);
    };
    signal.addEventListener('abort', abort, { once: true });
    this.#pending.whenDone(token, () => signal.removeEventListener('abort', abort));
  }

  /** Leaves out the records that were aborted since they were collected: each piece between them crosses on its own. */
  #publishWithout(native: NativeBus, text: string, marks: Mark[]): void {
    let from = 0;
    let token = this.#firstToken;
    for (const mark of marks) {
      if (this.#pending.has(mark.token)) continue;
      if (mark.start > from) native.publish(token, text.slice(from, mark.start));
      from = mark.end;
      token = nextOf(mark.token);
    }
    if (from < text.length) native.publish(token, text.slice(from));
  }

  #failRange(first: number, cause: unknown): void {
    const error = cause instanceof OSSAError ? cause : internal('the addon refused a batch of publishes', cause);
    for (let token = first; token !== this.#nextToken; token = nextOf(token)) this.#pending.reject(token, error);
    if (this.#pending.size === 0) this.#keepAlive.release();
  }
}

/** A turn that would begin here begins at 0: the tokens of a turn follow each other, and the highest 65,536 are the engine's own. */
const TOKENS_END = 0xfff0_0000;

/** The token after `token`. */
function nextOf(token: number): number {
  return token + 1;
}

/** The same text on its own: V8 keeps a slice as a view of what it was cut from, here the ids of a whole batch. */
function apart(text: string): string {
  return ` ${text}`.slice(1);
}

/** The signal in `options`, checked. */
function signalOf(options: object, what: string): AbortSignal | undefined {
  const signal = (options as { signal?: unknown }).signal;
  if (signal === undefined) return undefined;
  if (!isSignal(signal)) throw invalidArgument('options.signal', 'must be an AbortSignal');
  if (signal.aborted) throw aborted(what, signal);
  return signal;
}

/** Whether a value can be used as an AbortSignal, whichever realm or polyfill made it. */
export function isSignal(value: unknown): value is AbortSignal {
  return typeof property(value, 'aborted') === 'boolean' && typeof property(value, 'addEventListener') === 'function';
}

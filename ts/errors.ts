/** The one error class of the package, and the short ways to make one. */
import type { NativeErrorData } from './native';
import type { OSSAErrorCode } from './types';

/** What an {@link OSSAError} is made of beside its message. */
export interface OSSAErrorOptions {
  /** Tested by users; ERR_INTERNAL unless given. */
  code?: OSSAErrorCode;
  /** The same call may succeed later. */
  retryable?: boolean;
  /** Machine-readable particulars. */
  details?: Record<string, any> | undefined;
  /** What led to it. */
  cause?: unknown;
}

/** Every rejection and throw of the package is one of these. Test `code`, not the class. */
export class OSSAError extends Error {
  /** What went wrong. */
  readonly code: OSSAErrorCode;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** Particulars: `path`, `argument`, `limit`, `results` … */
  declare readonly details?: Record<string, any>;

  constructor(message?: string, options: OSSAErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = options.code ?? 'ERR_INTERNAL';
    this.retryable = options.retryable ?? false;
    if (options.details !== undefined) (this as { details?: Record<string, any> }).details = options.details;
  }

  static {
    Object.defineProperty(OSSAError.prototype, 'name', { value: 'OSSAError', configurable: true, writable: true });
  }
}

/** The error that the engine described, made in the caller's realm. */
export function fromNative(data: NativeErrorData): OSSAError {
  return new OSSAError(data.message, {
    code: data.code as OSSAErrorCode,
    retryable: data.retryable,
    details: data.details,
  });
}

/** ERR_INVALID_ARGUMENT for the argument or option `name`. */
export function invalidArgument(name: string, problem: string): OSSAError {
  return new OSSAError(`${name}: ${problem}`, { code: 'ERR_INVALID_ARGUMENT', details: { argument: name } });
}

/** ERR_INVALID_CONFIG at the key `path`. */
export function invalidConfig(path: string, problem: string): OSSAError {
  return new OSSAError(`${path}: ${problem}`, { code: 'ERR_INVALID_CONFIG', details: { path } });
}

/** ERR_CLOSED of `what`. */
export function closed(what: string): OSSAError {
  return new OSSAError(what, { code: 'ERR_CLOSED' });
}

/** ERR_ABORTED, with the signal's reason as its cause. */
export function aborted(what: string, signal: AbortSignal): OSSAError {
  return new OSSAError(`${what} was aborted by its signal`, { code: 'ERR_ABORTED', cause: signal.reason });
}

/** ERR_INTERNAL: a defect of this library. */
export function internal(message: string, cause?: unknown): OSSAError {
  return new OSSAError(message, { code: 'ERR_INTERNAL', ...(cause === undefined ? {} : { cause }) });
}

/** As much of it as the stores keep, in UTF-8. */
const THROWN_BYTES_MAX = 4096;
const ELLIPSIS = '…';

/** What to say of a thrown value, whatever it is. Never throws itself. */
export function describeThrown(value: unknown): string {
  let text: string;
  try {
    const message: unknown = typeof value === 'object' && value !== null ? (value as { message?: unknown }).message : undefined;
    text = typeof message === 'string' && message !== '' ? message : String(value);
  } catch {
    text = 'a value that cannot be shown';
  }
  return shortened(text, THROWN_BYTES_MAX);
}

/** At most `bytesMax` of `text` in UTF-8, which has no form for lone surrogates. */
export function shortened(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return bytes.toString();
  const room = new Uint8Array(bytesMax - Buffer.byteLength(ELLIPSIS));
  const { written } = new TextEncoder().encodeInto(text, room);
  return Buffer.from(room.buffer, 0, written).toString() + ELLIPSIS;
}

/** Reads a property of any value without throwing. */
export function property(value: unknown, name: string | symbol): unknown {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return undefined;
  try {
    return (value as Record<string | symbol, unknown>)[name];
  } catch {
    return undefined;
  }
}

/** Answers of the HTTP API: bodies, headers that every one has, and what an error becomes. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { OSSAErrorCode } from '../../index';
import { OSSAError } from '../errors';

/** What becomes of a request. */
export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

/** Codes of errors that only the HTTP API has. */
export type HttpErrorCode =
  | 'ERR_BAD_REQUEST'
  | 'ERR_UNAUTHORIZED'
  | 'ERR_FORBIDDEN'
  | 'ERR_NOT_FOUND'
  | 'ERR_METHOD_NOT_ALLOWED'
  | 'ERR_BODY_TIMEOUT'
  | 'ERR_BODY_TOO_LARGE'
  | 'ERR_CONTENT_TYPE'
  | 'ERR_INVALID_JSON';

/** A request that is refused by what it is, before the bus is asked. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: HttpErrorCode,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

const JSON_TYPE = 'application/json; charset=utf-8';

/** `value` as JSON. */
export function json(value: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, headers: { 'Content-Type': JSON_TYPE, ...headers }, body: JSON.stringify(value) };
}

/** HTTP's word for an error of the bus; those left out are 500. */
const STATUS: Partial<Record<OSSAErrorCode, number>> = {
  ERR_INVALID_ARGUMENT: 400,
  ERR_INVALID_CONFIG: 400,
  ERR_SERVICE_INVALID: 400,
  ERR_CONTRACT_INVALID: 400,
  ERR_NOT_PERMITTED: 403,
  ERR_DISABLED: 404,
  ERR_PROJECT_UNKNOWN: 404,
  ERR_PROJECT_CONFLICT: 409,
  ERR_PAYLOAD_TOO_LARGE: 413,
  ERR_RATE_LIMITED: 429,
  ERR_AUTH: 503,
  ERR_BACKPRESSURE: 503,
  ERR_CLOSED: 503,
  ERR_CONNECTION: 503,
  ERR_NOT_INITIALIZED: 503,
  ERR_REQUEST_TIMEOUT: 503,
  ERR_STREAM_FULL: 503,
  ERR_TIMEOUT: 503,
};

/** The answer for an error. `undefined`: nobody foresaw it, and what it says is not for clients. */
export function errorAnswer(error: unknown): Answer | undefined {
  if (error instanceof Refusal) return errorBody(error.status, error.code, error.message, undefined, error.headers);
  if (!(error instanceof OSSAError)) return undefined;
  return errorBody(STATUS[error.code] ?? 500, error.code, error.message, error.details);
}

/** The answer for an error that nobody foresaw. */
export function internalAnswer(): Answer {
  return errorBody(500, 'ERR_INTERNAL', 'Something went wrong that was not foreseen; the log of the process says what');
}

function errorBody(status: number, code: string, message: string, details?: unknown, headers?: Readonly<Record<string, string>>): Answer {
  return json({ error: { code, message, ...(details === undefined ? {} : { details }) } }, status, headers);
}

/** On every answer. Nothing of another origin is loaded, run, or may show or read this one. */
const ALWAYS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
};

/** Sends it, unless somebody else has answered or the client is gone. */
export function send(request: IncomingMessage, response: ServerResponse, { status, headers, body = '' }: Answer): void {
  if (response.headersSent || response.writableEnded || response.destroyed) return;
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  const length = status === 304 ? {} : { 'Content-Length': bytes.length };
  response.writeHead(status, { ...ALWAYS, ...headers, ...length });
  if (request.method === 'HEAD' || status === 304) response.end();
  else response.end(bytes);
}

/** Bodies of requests. */
import type { IncomingMessage } from 'node:http';
import { Refusal } from './answers';

/** Longest body, bytes. */
export const BODY_MAX = 64 * 1024;

/** A framework's parser may have read the body before. */
type Parsed = IncomingMessage & { body?: unknown };

/**
 * The JSON that was sent.
 * @throws Refusal 400, 408 or 413
 */
export async function readJson(request: Parsed, timeoutMs: number): Promise<unknown> {
  if (request.readableEnded || request.readableDidRead) {
    if (request.body !== undefined && !Buffer.isBuffer(request.body)) return request.body;
    throw new Refusal(400, 'ERR_BAD_REQUEST', 'The body was read before it came here: mount the handler before what parses bodies');
  }
  const text = (await read(request, timeoutMs)).toString();
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Refusal(400, 'ERR_INVALID_JSON', 'The body must be JSON');
  }
}

/** What is not read to the end is not the start of another request. */
const CLOSE = { Connection: 'close' };

function read(request: IncomingMessage, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const stop = (outcome: () => void) => {
      clearTimeout(timer);
      request.off('data', take).off('end', end).off('close', gone).off('error', gone);
      outcome();
    };
    const refuse = (refusal: Refusal) => {
      request.pause();
      stop(() => reject(refusal));
    };
    const tooLarge = () => refuse(new Refusal(413, 'ERR_BODY_TOO_LARGE', `The body may have ${BODY_MAX} bytes`, CLOSE));
    const take = (chunk: Buffer) => {
      length += chunk.length;
      if (length > BODY_MAX) tooLarge();
      else chunks.push(chunk);
    };
    const end = () => stop(() => resolve(Buffer.concat(chunks)));
    const gone = () => stop(() => reject(new Refusal(400, 'ERR_BAD_REQUEST', 'The body ended too early', CLOSE)));
    const timer = setTimeout(
      () => refuse(new Refusal(408, 'ERR_BODY_TIMEOUT', `The body took longer than ${timeoutMs} ms`, CLOSE)),
      timeoutMs,
    );
    timer.unref();
    if (Number(request.headers['content-length']) > BODY_MAX) return tooLarge();
    request.on('data', take).on('end', end).on('close', gone).on('error', gone);
  });
}

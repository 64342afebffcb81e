/** Options of publish, in the form in which they cross. The engine knows and checks them; only what JSON cannot say is seen to here. */
import { types } from 'node:util';
import { invalidArgument } from './errors';
import { encode, isText } from './json';
import type { PublishOptions } from './types';

/**
 * JSON text of the options, '' if there are none; `signal` crosses as true.
 * @throws OSSAError ERR_INVALID_ARGUMENT
 */
export function encodePublishOptions(options: PublishOptions): string {
  if (typeof options !== 'object' || Array.isArray(options)) throw invalidArgument('options', 'must be an object');
  let simple = true;
  let any = false;
  for (const key of Object.keys(options)) {
    const value = (options as Record<string, unknown>)[key];
    if (value === undefined) continue;
    if (key === 'signal') {
      simple = false;
      any = true;
      continue;
    }
    any = true;
    if (
      (typeof value === 'string' && isText(value)) ||
      typeof value === 'boolean' ||
      (typeof value === 'number' && Number.isFinite(value))
    ) {
      if (key === 'deliverAt') throw notADate();
      if (!isText(key)) simple = false;
    } else {
      simple = false;
    }
  }
  if (!any) return '';
  if (simple) return JSON.stringify(options);
  const { signal, deliverAt, ...rest } = options;
  return encode({
    ...rest,
    ...(signal === undefined ? {} : { signal: true }),
    ...(deliverAt === undefined ? {} : { deliverAt: dateMs('options.deliverAt', deliverAt) }),
  });
}

/** Default of `timeoutMs` of request(). */
const REQUEST_TIMEOUT_MS = 30_000;

/**
 * The time a request waits, ms, and the options that are those of publish too.
 * @throws OSSAError ERR_INVALID_ARGUMENT
 */
export function cutTimeout(options: PublishOptions & { timeoutMs?: number }): [number, PublishOptions] {
  if (typeof options !== 'object' || Array.isArray(options)) throw invalidArgument('options', 'must be an object');
  const { timeoutMs = REQUEST_TIMEOUT_MS, ...rest } = options;
  if (typeof timeoutMs !== 'number' || !(timeoutMs >= 1 && timeoutMs <= Number.MAX_SAFE_INTEGER)) {
    throw invalidArgument('options.timeoutMs', 'must be a number of milliseconds, at least 1');
  }
  return [Math.ceil(timeoutMs), rest];
}

/**
 * A Date as ms.
 * @throws OSSAError ERR_INVALID_ARGUMENT
 */
export function dateMs(name: string, value: unknown): number {
  if (!types.isDate(value) || Number.isNaN(value.getTime())) throw invalidArgument(name, 'must be a valid Date');
  return value.getTime();
}

function notADate(): Error {
  return invalidArgument('options.deliverAt', 'must be a valid Date');
}

/** Values to JSON text: the data of events, options and configuration. */
import { types } from 'node:util';
import { describeThrown, OSSAError } from './errors';

/**
 * Data of an event as JSON text. `undefined` is null, a Date its ISO string, both as JSON.stringify has it.
 * @throws OSSAError ERR_NOT_SERIALIZABLE with the path of the culprit; ERR_PAYLOAD_TOO_LARGE beyond what a string holds
 */
export function stringifyData(data: unknown): string {
  if (data === undefined) return 'null';
  let text: string | undefined;
  try {
    text = JSON.stringify(data) as string | undefined;
  } catch (error) {
    throw notSerializable(data, error);
  }
  if (text === undefined) throw notSerializable(data, undefined);
  return text;
}

function notSerializable(data: unknown, cause: unknown): OSSAError {
  if (types.isNativeError(cause) && cause.name === 'RangeError' && /string length/i.test(cause.message)) {
    return new OSSAError('data is longer than a JavaScript string can be', { code: 'ERR_PAYLOAD_TOO_LARGE', cause });
  }
  const culprit = findCulprit(data, 'data', [], '') ?? {
    path: 'data',
    problem: cause === undefined ? 'has no JSON form' : describeThrown(cause),
  };
  return new OSSAError(`${culprit.path} ${culprit.problem}`, {
    code: 'ERR_NOT_SERIALIZABLE',
    details: { path: culprit.path },
    ...(cause === undefined ? {} : { cause }),
  });
}

interface Culprit {
  path: string;
  problem: string;
}

/** Deeper than this is where JSON.stringify itself gives up, or soon will. */
const DEPTH_MAX = 2000;

/** Walks as JSON.stringify does, to say where it failed. Only after a failure. */
function findCulprit(value: unknown, path: string, above: object[], key: string): Culprit | undefined {
  let seen = value;
  const toJSON = (typeof value === 'object' && value !== null) || typeof value === 'bigint' ? (value as { toJSON?: unknown }) : undefined;
  try {
    if (typeof toJSON?.toJSON === 'function') seen = (toJSON.toJSON as (key: string) => unknown)(key);
  } catch (error) {
    return { path, problem: `has a toJSON() that throws: ${describeThrown(error)}` };
  }
  if (typeof seen === 'bigint') return { path, problem: 'is a BigInt, which JSON cannot hold; send it as a string' };
  if (above.length === 0 && (typeof seen === 'function' || typeof seen === 'symbol' || seen === undefined)) {
    return {
      path,
      problem: seen === undefined ? 'has no JSON form: its toJSON() answers undefined' : `is a ${typeof seen}, which JSON cannot hold`,
    };
  }
  if (typeof seen !== 'object' || seen === null) return undefined;
  if (above.includes(seen)) return { path, problem: 'refers to an object that contains it (a circle)' };
  if (above.length >= DEPTH_MAX) return { path: `${path.slice(0, 200)}…`, problem: 'is nested too deeply' };
  above.push(seen);
  try {
    for (const name of Object.keys(seen)) {
      const below = childPath(path, name, Array.isArray(seen));
      let child: unknown;
      try {
        child = (seen as Record<string, unknown>)[name];
      } catch (error) {
        return { path: below, problem: `has a getter that throws: ${describeThrown(error)}` };
      }
      const found = findCulprit(child, below, above, name);
      if (found !== undefined) return found;
    }
  } catch (error) {
    return { path, problem: `cannot be read: ${describeThrown(error)}` };
  } finally {
    above.pop();
  }
  return undefined;
}

function childPath(path: string, name: string, inArray: boolean): string {
  if (inArray) return `${path}[${name}]`;
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `${path}.${name}` : `${path}[${JSON.stringify(name)}]`;
}

/**
 * Options and configuration as JSON text. What has no JSON form is marked `{"$invalid":"NaN"}`, so that the engine can
 * refuse it with its path instead of never seeing it. `undefined` is absent.
 */
export function encode(value: unknown): string {
  return JSON.stringify(marked(value, []));
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** Whether it has a form in UTF-8. In the data of an event that does not matter: there JSON.stringify escapes what has none. */
export function isText(value: string): boolean {
  return !LONE_SURROGATE.test(value);
}

/** Stands for a value without JSON form. */
class Invalid {
  constructor(readonly $invalid: string) {}
}

function invalid(what: string): Invalid {
  return new Invalid(what);
}

/** Beyond what any option may have, a schema of 64 levels within a contract included; below what the engine's parser reads. */
const ENCODE_DEPTH_MAX = 100;
const TOO_DEEP = 'a value nested too deeply';

/** Where a value has no JSON form, and what is there. */
export interface Formless {
  at: string;
  what: string;
}

/** How the place of a child is written. */
type Below = (path: string, name: string, inArray: boolean) => string;

const pointer: Below = (path, name) => `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;

/**
 * Where a value has no JSON form, as a JSON pointer: for values that the engine takes as they are, in which
 * it cannot tell the mark of {@link encode} from the caller's own. `undefined`: all of it has.
 */
export function withoutJsonForm(value: unknown): Formless | undefined {
  return formless(marked(value, []), '', pointer);
}

/**
 * The same for a value that stands at `path`, with places written as in JavaScript (`path.list[0].key`); and a copy of what it read,
 * as a getter may answer something else the next time.
 */
export function copied(value: unknown, path: string): { copy: unknown } | Formless {
  const copy = marked(value, []);
  return formless(copy, path, childPath) ?? { copy };
}

function formless(copy: unknown, path: string, below: Below): Formless | undefined {
  const found = firstInvalid(copy, path, below);
  return found?.what === TOO_DEEP ? { ...found, at: path } : found;
}

function firstInvalid(value: unknown, at: string, below: Below): Formless | undefined {
  if (value instanceof Invalid) return { at, what: value.$invalid };
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [key, child] of Object.entries(value)) {
    const found = firstInvalid(child, below(at, key, Array.isArray(value)), below);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether it crosses as an object of its own keys: no array, Date, Map or the like. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isSpecial(value);
}

function isSpecial(object: object): boolean {
  return (
    types.isDate(object) ||
    types.isMap(object) ||
    types.isSet(object) ||
    types.isRegExp(object) ||
    types.isPromise(object) ||
    ArrayBuffer.isView(object)
  );
}

function marked(value: unknown, above: object[]): unknown {
  switch (typeof value) {
    case 'number':
      return Number.isFinite(value) ? value : invalid(String(value));
    case 'string':
      return isText(value) ? value : invalid('text with a lone surrogate');
    case 'boolean':
    case 'undefined':
      return value;
    case 'bigint':
    case 'function':
    case 'symbol':
      return invalid(typeof value);
  }
  if (value === null) return null;
  if (value instanceof Invalid) return value;
  const object = value as object;
  if (above.includes(object)) return invalid('a circular reference');
  if (above.length >= ENCODE_DEPTH_MAX) return invalid(TOO_DEEP);
  above.push(object);
  try {
    if (Array.isArray(object)) return object.map((item) => (item === undefined ? invalid('undefined') : marked(item, above)));
    if (isSpecial(object)) return invalid(Object.prototype.toString.call(object).slice(8, -1));
    const out: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    for (const name of Object.keys(object)) {
      if (!isText(name)) return invalid('a key with a lone surrogate');
      out[name] = marked(read(object, name), above);
    }
    return out;
  } catch (error) {
    return unreadable(error);
  } finally {
    above.pop();
  }
}

function read(object: object, name: string): unknown {
  try {
    return (object as Record<string, unknown>)[name];
  } catch (error) {
    return unreadable(error);
  }
}

function unreadable(error: unknown): Invalid {
  return invalid(`a value that cannot be read: ${describeThrown(error)}`);
}

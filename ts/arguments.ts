/** Arguments that cross as text or as objects, as far as the engine cannot check them. */
import { describeThrown, invalidArgument, type OSSAError } from './errors';
import { isRecord, isText } from './json';

/** Makes the error for what is wrong at a path. */
export type Refuse = (path: string, problem: string) => OSSAError;

/** The text `value`, given as argument `name`. */
export function text(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidArgument(name, 'must be a string');
  if (!isText(value)) throw invalidArgument(name, 'has a lone surrogate, which has no form in UTF-8');
  return value;
}

/** The keys of an object of the caller's, whose getters may throw. `undefined`: it is none, which is the engine's to refuse. */
export function keysOf(path: string, value: unknown, refuse: Refuse = invalidArgument): Record<string, unknown> | undefined {
  if (!isRecord(value)) return undefined;
  let at = path;
  try {
    const read = (key: string) => {
      at = `${path}.${key}`;
      return [key, value[key]] as const;
    };
    return Object.fromEntries(Object.keys(value).map(read));
  } catch (error) {
    throw refuse(at, `cannot be read: ${describeThrown(error)}`);
  }
}

/** Parameters behind the question mark. What is not known is refused: a misspelt filter would show more than was meant. */
import { invalidArgument } from '../errors';

/** Checked parameters of one request. */
export class Query {
  readonly #values = new Map<string, string>();

  /** @throws OSSAError ERR_INVALID_ARGUMENT for a name that is not `known`, or is there twice */
  constructor(parameters: URLSearchParams, known: readonly string[]) {
    for (const [name, value] of parameters) {
      if (!known.includes(name)) {
        throw invalidArgument(
          name,
          known.length === 0 ? 'is not known here: there are no parameters' : `is not known here; known are ${known.join(', ')}`,
        );
      }
      if (this.#values.has(name)) throw invalidArgument(name, 'may be given once');
      this.#values.set(name, value);
    }
  }

  /** undefined: not given, or empty, as forms send it. */
  text(name: string): string | undefined {
    return this.#values.get(name) || undefined;
  }

  /** A whole number from `min` to `max`. */
  whole(name: string, min: number, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw invalidArgument(name, `must be a whole number from ${min} to ${max}`);
    return value;
  }

  /** '1' is yes; '0' and nothing are no. */
  flag(name: string): boolean {
    const text = this.text(name);
    if (text !== undefined && text !== '0' && text !== '1') throw invalidArgument(name, 'must be 0 or 1');
    return text === '1';
  }

  /** A time: ISO 8601, or ms since 1970. */
  time(name: string): Date | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = new Date(/^\d+$/.test(text) ? Number(text) : text);
    if (Number.isNaN(value.getTime())) throw invalidArgument(name, 'must be a time: ISO 8601, or milliseconds since 1970');
    return value;
  }
}

/** Those that were given: the bus does not take keys without a value for absent ones. */
export function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/** The dead letter queue. */
import type { BusCore } from './core';
import { invalidArgument } from './errors';
import type { CrossedMetadata } from './payload';
import { parsed, toMetadata } from './payload';
import { dateMs } from './publishOptions';
import type { DeadLetter, DeadLetters, EventMetadata } from './types';
import { EventPriority } from './types';

/** A dead letter as it crosses: times in ms, metadata and data as JSON text. */
interface CrossedDeadLetter {
  id: string;
  eventType: string;
  group: string;
  reason: string;
  error: string;
  attempts: number;
  failedAt: number;
  meta: string;
  data: string;
}

/** `bus.deadLetters` */
export class DeadLetterQueue implements DeadLetters {
  readonly #core: BusCore;

  constructor(core: BusCore) {
    this.#core = core;
  }

  /** A page of them, oldest first; `cursor` asks for the next page. */
  async list(query?: Parameters<DeadLetters['list']>[0]): ReturnType<DeadLetters['list']> {
    const asked = checked(query, ['eventType', 'group', 'from', 'to', 'limit', 'cursor']);
    for (const key of ['from', 'to']) if (asked[key] !== undefined) asked[key] = dateMs(key, asked[key]);
    const { items, cursor } = await this.#core.call<{ items: CrossedDeadLetter[]; cursor?: string | null }>('deadLetters.list', asked);
    const letters = items.map((item) => this.#revive(item));
    return cursor === undefined || cursor === null ? { items: letters } : { items: letters, cursor };
  }

  /** How many there are. */
  async count(query?: Parameters<DeadLetters['count']>[0]): Promise<number> {
    return this.#core.call<number>('deadLetters.count', checked(query, ['eventType', 'group']));
  }

  /** Puts them back for the group that failed them, attempts from 1; resolves with how many. */
  async redrive(query: Parameters<DeadLetters['redrive']>[0]): Promise<number> {
    return this.#core.call<number>('deadLetters.redrive', checked(query, ['ids', 'eventType', 'group']));
  }

  /** Deletes them; resolves with how many. */
  async purge(query: Parameters<DeadLetters['purge']>[0]): Promise<number> {
    return this.#core.call<number>('deadLetters.purge', checked(query, ['ids', 'eventType', 'group']));
  }

  #revive(item: CrossedDeadLetter): DeadLetter {
    const { meta, data, failedAt, ...rest } = item;
    const at = new Date(failedAt);
    return { ...rest, failedAt: at, event: { metadata: this.#metadata(item, meta, at), data: parsed(data) } };
  }

  #metadata(item: CrossedDeadLetter, meta: string, at: Date): EventMetadata {
    const crossed = parsed(meta);
    if (meta !== '' && typeof crossed === 'object' && crossed !== null) {
      return toMetadata(crossed as CrossedMetadata, item.eventType, item.attempts, this.#core.retryDefaults);
    }
    // An entry that this bus did not write has none; these say so and keep the shape.
    return {
      id: item.id,
      type: item.eventType,
      source: '',
      timestamp: at,
      version: '',
      priority: EventPriority.NORMAL,
      attempt: item.attempts,
    };
  }
}

const isString = (value: unknown): boolean => typeof value === 'string';

/** Keys of a query, and what each must be; times are seen to apart. */
const QUERY: Record<string, readonly [(value: unknown) => boolean, string]> = {
  ids: [(value) => Array.isArray(value) && value.every(isString), 'must be an array of ids, as list() gives them'],
  eventType: [isString, 'must be a string'],
  group: [isString, 'must be a string'],
  cursor: [isString, 'must be what list() answered as cursor'],
  limit: [
    (value) => Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 1000,
    'must be a whole number from 1 to 1000',
  ],
};

/** A copy of `query`, in which every key is known and right. A misspelt key would widen the query to more than was meant. */
function checked(query: unknown, known: readonly string[]): Record<string, unknown> {
  if (query === undefined || query === null) return {};
  if (typeof query !== 'object' || Array.isArray(query)) throw invalidArgument('query', 'must be an object');
  for (const [key, value] of Object.entries(query)) {
    if (!known.includes(key)) throw invalidArgument(key, `is not known here; known are ${known.join(', ')}`);
    const rule = QUERY[key];
    if (value !== undefined && rule !== undefined && !rule[0](value)) throw invalidArgument(key, rule[1]);
  }
  return { ...query };
}

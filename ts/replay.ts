/** replay(): the history of a type as an async iterable, fetched page by page. */
import type { BusCore } from './core';
import { describeThrown, invalidArgument } from './errors';
import { isText } from './json';
import { toPayload } from './payload';
import { dateMs } from './publishOptions';
import type { EventPayload } from './types';

/** What {@link replay} is asked for. */
export interface ReplayQuery {
  from?: Date | undefined;
  to?: Date | undefined;
  limit?: number | undefined;
}

/** A page as it crosses: metadata and data of an event, one after the other; no cursor: it is the last one. */
interface CrossedPage {
  texts: string[];
  cursor: string | null;
}

/** A checked query: times in ms. */
interface Asked {
  eventType: string;
  from?: number;
  to?: number;
  limit: number;
}

const KEYS: readonly string[] = ['from', 'to', 'limit'];

/**
 * Reads the history of a type. Every iteration begins anew. What is wrong with the arguments is said by the first next(),
 * as everything else.
 */
export function replay<T>(core: BusCore, eventType: unknown, query: unknown): AsyncIterable<EventPayload<T>> {
  return { [Symbol.asyncIterator]: () => events(core, eventType, query) as AsyncGenerator<EventPayload<T>, undefined, undefined> };
}

async function* events(core: BusCore, eventType: unknown, query: unknown): AsyncGenerator<EventPayload, undefined, undefined> {
  // Before anything else, as everywhere.
  core.native();
  const asked = checked(eventType, query);
  let left = asked.limit;
  let coming: Promise<CrossedPage> | undefined = fetchPage(core, asked, left, null);
  while (coming !== undefined && left > 0) {
    const { texts, cursor }: CrossedPage = await coming;
    // One page ahead, unless this one has all that is wanted.
    coming = cursor === null || texts.length / 2 >= left ? undefined : fetchPage(core, asked, left - texts.length / 2, cursor);
    // Not awaited when the loop is left: nobody is to hear of its failure then.
    coming?.catch(() => undefined);
    for (let at = 0; at < texts.length && left > 0; at += 2) {
      core.native();
      const event = payload(core, asked.eventType, texts[at] as string, texts[at + 1] as string);
      if (event === undefined) continue;
      yield event;
      left--;
    }
    // What was no event leaves room for others.
    if (coming === undefined && cursor !== null && left > 0) coming = fetchPage(core, asked, left, cursor);
  }
  core.native();
  return undefined;
}

function fetchPage(core: BusCore, { eventType, from, to }: Asked, left: number, cursor: string | null): Promise<CrossedPage> {
  return core.call<CrossedPage>('replay', {
    eventType,
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(left === Number.POSITIVE_INFINITY ? {} : { count: left }),
    ...(cursor === null ? {} : { cursor }),
  });
}

/** Not an event: its data is not JSON, so this bus did not write it. */
function payload(core: BusCore, eventType: string, meta: string, data: string): EventPayload | undefined {
  try {
    return toPayload(meta, data, eventType, 0, core.retryDefaults);
  } catch (error) {
    core.log.write('debug', `replay of '${eventType}' left out an entry that this bus did not write: ${describeThrown(error)}`);
    return undefined;
  }
}

function checked(eventType: unknown, query: unknown): Asked {
  if (typeof eventType !== 'string' || !isText(eventType)) throw invalidArgument('eventType', 'must be a string');
  if (query === undefined || query === null) return { eventType, limit: Number.POSITIVE_INFINITY };
  if (typeof query !== 'object' || Array.isArray(query)) throw invalidArgument('query', 'must be an object');
  for (const key of Object.keys(query)) {
    if (!KEYS.includes(key)) throw invalidArgument(key, `is not known here; known are ${KEYS.join(', ')}`);
  }
  const { from, to, limit } = query as { from?: unknown; to?: unknown; limit?: unknown };
  const asked: Asked = { eventType, limit: Number.POSITIVE_INFINITY };
  if (from !== undefined) asked.from = dateMs('from', from);
  if (to !== undefined) asked.to = dateMs('to', to);
  if (asked.from !== undefined && asked.to !== undefined && asked.from > asked.to) {
    throw invalidArgument('from', 'is after to: there is nothing between them');
  }
  if (limit !== undefined) {
    if (!Number.isSafeInteger(limit) || (limit as number) < 1) throw invalidArgument('limit', 'must be a whole number, 1 or more');
    asked.limit = limit as number;
  }
  return asked;
}

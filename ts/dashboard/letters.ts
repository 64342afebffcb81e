/** Doing something with many dead letters: as many at a time as one request takes. */
import { get, post } from './client.js';
import { absolute } from './format.js';
import type { LetterIds } from './wire.js';

/** What the API takes as filter. */
export type Filter = Readonly<Partial<Record<'eventType' | 'group' | 'from' | 'to' | 'text', string>>>;

/** What is to be done. */
export type Deed = 'redrive' | 'purge';

/** Most letters that are gathered by a search. */
export const GATHERED_MAX = 10_000;

/** Below the 64 KiB that the API takes. */
const BODY_MAX = 48_000;

/** Ids of all letters that match, and whether there are more than {@link GATHERED_MAX}. */
export async function gather(filter: Filter, told: (found: number) => void): Promise<{ ids: string[]; isCut: boolean }> {
  const ids = new Set<string>();
  let cursor: string | undefined;
  do {
    const page: LetterIds = await get('api/dead-letters', { ...filter, ids: '1', cursor });
    for (const id of page.ids) ids.add(id);
    cursor = page.cursor;
    told(ids.size);
  } while (cursor !== undefined && ids.size < GATHERED_MAX);
  return { ids: [...ids], isCut: cursor !== undefined };
}

/** What became of many letters. */
export interface Outcome {
  /** Letters it was done to. */
  readonly done: number;
  /** Ids that were not asked for, or whose request failed. */
  readonly rest: readonly string[];
  /** What ended it before its time. */
  readonly error?: unknown;
}

/** Does it, until a request fails. */
export async function act(deed: Deed, ids: readonly string[]): Promise<Outcome> {
  let done = 0;
  let asked = 0;
  for (const some of portions(ids)) {
    try {
      const answer = await post<{ redriven?: number; purged?: number }>(`api/dead-letters/${deed}`, { ids: some });
      done += answer.redriven ?? answer.purged ?? 0;
    } catch (error) {
      return { done, rest: ids.slice(asked), error };
    }
    asked += some.length;
  }
  return { done, rest: [] };
}

/** A filter in words: event type 'a', text 'b'; '' where there is none. */
export function described(filter: Filter): string {
  const names = { text: 'text', eventType: 'event type', group: 'group', from: 'failed from', to: 'failed until' } as const;
  return (Object.keys(names) as Array<keyof Filter>)
    .filter((name) => filter[name])
    .map((name) => `${names[name]} ${name === 'from' || name === 'to' ? absolute(filter[name]) : `“${filter[name]}”`}`)
    .join(', ');
}

/** Cut so that each is a body that the API takes. */
function portions(ids: readonly string[]): string[][] {
  const out: string[][] = [];
  let size = BODY_MAX;
  for (const id of ids) {
    // Characters beyond ASCII take up to three bytes for each unit.
    const bytes = id.length * 3 + 3;
    if (size + bytes > BODY_MAX) {
      out.push([]);
      size = 0;
    }
    out.at(-1)?.push(id);
    size += bytes;
  }
  return out;
}

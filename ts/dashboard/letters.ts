/** Doing something with many dead letters: as many at a time as one request takes. */
import { get, post } from './client.js';
import type { LetterPage } from './wire.js';

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
    const page: LetterPage = await get('api/dead-letters', { ...filter, limit: '200', cursor });
    for (const { id } of page.items) ids.add(id);
    cursor = page.cursor;
    told(ids.size);
  } while (cursor !== undefined && ids.size < GATHERED_MAX);
  return { ids: [...ids], isCut: cursor !== undefined };
}

/** Does it, and answers with how many letters. */
export async function act(deed: Deed, ids: readonly string[]): Promise<number> {
  let done = 0;
  for (const some of portions(ids)) {
    const answer = await post<{ redriven?: number; purged?: number }>(`api/dead-letters/${deed}`, { ids: some });
    done += answer.redriven ?? answer.purged ?? 0;
  }
  return done;
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

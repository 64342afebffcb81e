/** Looking for dead letters by text, which the store cannot: a bounded piece of the way at a time. */
import type { DeadLetter, DeadLetters } from '../../index';
import { invalidArgument } from '../errors';
import { given } from './query';

/** What is looked for. */
export interface LetterSearch {
  readonly eventType: string | undefined;
  readonly group: string | undefined;
  readonly from: Date | undefined;
  readonly to: Date | undefined;
  readonly text: string | undefined;
  readonly limit: number;
  readonly cursor: string | undefined;
}

/** What was found. Without a cursor that was all; a page may be short, or empty, and have more behind it. */
export interface LetterPage {
  readonly items: DeadLetter[];
  readonly cursor?: string;
  /** Letters that were looked at for this page. */
  readonly scanned: number;
}

/** Letters that are asked for at once, and pages that one request looks through. */
const SCAN_PAGE = 200;
const SCAN_PAGES_MAX = 10;

/** A place among the letters: a page of the store, and the letter of it that came last. */
interface Place {
  readonly page: string | undefined;
  readonly after?: string;
}

/** A page of dead letters, oldest first within each event type. */
export async function searchLetters(letters: Pick<DeadLetters, 'list'>, search: LetterSearch): Promise<LetterPage> {
  const { text, limit, cursor, ...filter } = search;
  const ask = (count: number, page: string | undefined) => letters.list(given({ ...filter, limit: count, cursor: page }));
  if (text === undefined) {
    const { items, cursor: next } = await ask(limit, cursor);
    return { items, scanned: items.length, ...given({ cursor: next }) };
  }
  const wanted = text.toLowerCase();
  const found: DeadLetter[] = [];
  let scanned = 0;
  let { page, after } = cursor === undefined ? ({ page: undefined } as Place) : parsePlace(cursor);
  for (let pages = 0; pages < SCAN_PAGES_MAX; pages++) {
    const { items, cursor: next } = await ask(SCAN_PAGE, page);
    // Where that letter has gone meanwhile, some come twice; none is left out.
    for (const letter of items.slice(items.findIndex(({ id }) => id === after) + 1)) {
      scanned++;
      if (!matches(letter, wanted)) continue;
      found.push(letter);
      if (found.length === limit) return { items: found, scanned, cursor: writePlace({ page, after: letter.id }) };
    }
    if (next === undefined) return { items: found, scanned };
    page = next;
    after = undefined;
  }
  return { items: found, scanned, cursor: writePlace({ page }) };
}

function matches({ id, eventType, group, reason, error, event }: DeadLetter, wanted: string): boolean {
  return [id, eventType, group, reason, error, JSON.stringify(event)].some((text) => text.toLowerCase().includes(wanted));
}

function writePlace({ page, after }: Place): string {
  return Buffer.from(JSON.stringify([page ?? null, after ?? null])).toString('base64url');
}

function parsePlace(cursor: string): Place {
  try {
    const [page, after] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[];
    const isPart = (part: unknown) => part === null || typeof part === 'string';
    if (isPart(page) && isPart(after))
      return { page: (page as string | null) ?? undefined, ...given({ after: (after as string | null) ?? undefined }) };
  } catch {
    // It is not of this list.
  }
  throw invalidArgument('cursor', 'must be what the page before answered as cursor, with the same text');
}

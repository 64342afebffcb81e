/** Dead letters over HTTP: letters can be as long as events, so that what one request reads and answers is bounded in bytes. */
import type { DeadLetter, DeadLetters } from '../../index';
import { invalidArgument } from '../errors';
import { given } from './query';

/** What a letter becomes in the answer: all of it, without the event's data, or its id alone. */
export type LetterForm = 'brief' | 'full' | 'id';

/** What is looked for. */
export interface LetterSearch {
  readonly eventType: string | undefined;
  readonly group: string | undefined;
  readonly from: Date | undefined;
  readonly to: Date | undefined;
  readonly text: string | undefined;
  readonly limit: number;
  readonly cursor: string | undefined;
  readonly form: LetterForm;
}

/** A letter without the event's data: the beginning of its JSON, and how many bytes that has. */
export type BriefLetter = Omit<DeadLetter, 'event'> & {
  readonly event: Pick<DeadLetter['event'], 'metadata'>;
  readonly preview: string;
  readonly dataBytes: number;
};

/** What was found. Without a cursor that was all; a page may be short, or empty, and have more behind it. */
export interface LetterPage {
  readonly items: ReadonlyArray<BriefLetter | DeadLetter | string>;
  readonly cursor?: string;
  /** Letters that were looked at for this page. */
  readonly scanned: number;
}

/** Letters that are asked for at once: each may have as many bytes as an event. */
const READ = 20;
/** Most letters that one search reads. */
const SCAN_MAX = 2000;
/** Once so much was read, a search ends behind the letters that were read at once. */
const SCAN_BYTES = 8 * 1024 * 1024;
/** The same for a list, and for what is answered. */
const PAGE_BYTES = 1024 * 1024;
/** Characters of an event's data in a list. */
const PREVIEW = 300;

/** A place among the letters: a page of the store, and the letter of it that came last. */
interface Place {
  readonly page: string | undefined;
  readonly after?: string | undefined;
}

type Listed = Pick<DeadLetters, 'list'>;

/** A page of dead letters, oldest first within each event type. */
export async function searchLetters(letters: Listed, { text, limit, cursor, form, ...filter }: LetterSearch): Promise<LetterPage> {
  const wanted = text?.toLowerCase();
  const readMax = wanted === undefined && form !== 'id' ? PAGE_BYTES : SCAN_BYTES;
  const items: Array<BriefLetter | DeadLetter | string> = [];
  let [scanned, read, answered] = [0, 0, 0];
  let { page, after }: Place = cursor === undefined ? { page: undefined } : parsePlace(cursor);
  for (;;) {
    const { items: found, cursor: next } = await letters.list(given({ ...filter, limit: READ, cursor: page }));
    // Where that letter has gone meanwhile, some come twice; none is left out.
    const rest = found.slice(after === undefined ? 0 : found.findIndex(({ id }) => id === after) + 1);
    for (const [at, letter] of rest.entries()) {
      const data = JSON.stringify(letter.event.data) ?? '';
      scanned++;
      read += letter.error.length + data.length;
      if (wanted !== undefined && !matches(letter, data, wanted)) continue;
      items.push(form === 'id' ? letter.id : form === 'full' ? letter : brief(letter, data));
      answered += letter.error.length + (form === 'full' ? data.length : form === 'brief' ? PREVIEW : 0);
      if (items.length < limit && answered < PAGE_BYTES) continue;
      const isLast = at === rest.length - 1;
      if (isLast && next === undefined) break;
      return { items, scanned, cursor: writePlace(isLast ? { page: next } : { page, after: letter.id }) };
    }
    if (next === undefined) return { items, scanned };
    if (scanned >= SCAN_MAX || read >= readMax) return { items, scanned, cursor: writePlace({ page: next }) };
    page = next;
    after = undefined;
  }
}

/** One letter in full; null where there is none. Its id says when it came, so that little is read. */
export async function letterOf(
  letters: Listed,
  id: string,
  filter: { eventType: string | undefined; group: string | undefined },
): Promise<DeadLetter | null> {
  const [, ms, type] = /^\d+\.(\d{1,15})-\d+\.(.+)$/s.exec(id) ?? [];
  if (type === undefined) throw invalidArgument('id', 'must be the id of a dead letter, as the list gives it');
  if (filter.eventType !== undefined && filter.eventType !== type) return null;
  const at = new Date(Number(ms));
  let cursor: string | undefined;
  for (let scanned = 0; scanned < SCAN_MAX; scanned += READ) {
    const page = await letters.list(given({ ...filter, eventType: type, from: at, to: at, limit: READ, cursor }));
    const found = page.items.find((letter) => letter.id === id);
    if (found !== undefined) return found;
    cursor = page.cursor;
    if (cursor === undefined) break;
  }
  return null;
}

function brief({ event: { metadata }, ...letter }: DeadLetter, data: string): BriefLetter {
  return { ...letter, event: { metadata }, preview: data.slice(0, PREVIEW), dataBytes: Buffer.byteLength(data) };
}

function matches({ id, eventType, group, reason, error, event: { metadata } }: DeadLetter, data: string, wanted: string): boolean {
  return [id, eventType, group, reason, error, data, JSON.stringify(metadata) ?? ''].some((text) => text.toLowerCase().includes(wanted));
}

function writePlace({ page, after }: Place): string {
  return Buffer.from(JSON.stringify([page ?? null, after ?? null])).toString('base64url');
}

function parsePlace(cursor: string): Place {
  try {
    const [page, after] = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown[];
    const isPart = (part: unknown) => part === null || typeof part === 'string';
    if (isPart(page) && isPart(after)) return { page: (page as string | null) ?? undefined, after: (after as string | null) ?? undefined };
  } catch {
    // It is not of this list.
  }
  throw invalidArgument('cursor', 'must be what the page before answered as cursor, with the same filters');
}

/** The last messages between projects that were refused. The log is read oldest first: the newest are found by how far back they can be. */
import type { AuditRecord, OSSAEventBus } from '../../index';
import { given } from './query';

/** Records that ended otherwise than well, the newest first. */
export interface Refusals {
  readonly items: AuditRecord[];
  /** Records since then were looked at. */
  readonly from: Date;
  /** false: there are more records since then than one request looks through, and newer refusals may be missing. */
  readonly complete: boolean;
}

const MINUTE_MS = 60_000;
/** How far back is looked, one after the other until enough is found. */
const WINDOWS_MS = [MINUTE_MS, 15 * MINUTE_MS, 6 * 60 * MINUTE_MS, 7 * 24 * 60 * MINUTE_MS];
const PAGE = 1000;
const PAGES_MAX = 5;

/** At most `limit` refusals, of one project where it is named. */
export async function lastRefusals(
  bus: Pick<OSSAEventBus, 'getAuditLog'>,
  limit: number,
  projectId: string | undefined,
): Promise<Refusals> {
  const now = Date.now();
  let found: Refusals | undefined;
  for (const window of WINDOWS_MS) {
    const next = await since(bus, new Date(now - window), limit, projectId);
    // A longer time without its end says less than a shorter one that was looked through.
    if (!next.complete && found !== undefined) return found;
    found = next;
    if (!next.complete || next.items.length === limit) break;
  }
  return found as Refusals;
}

async function since(bus: Pick<OSSAEventBus, 'getAuditLog'>, from: Date, limit: number, projectId: string | undefined): Promise<Refusals> {
  let last: AuditRecord[] = [];
  let cursor: string | undefined;
  for (let pages = 0; pages < PAGES_MAX; pages++) {
    const page = await bus.getAuditLog(given({ from, limit: PAGE, projectId, cursor }));
    const refused = page.items.filter(({ outcome }) => outcome !== 'sent' && outcome !== 'delivered');
    last = [...last, ...refused].slice(-limit);
    cursor = page.cursor;
    if (cursor === undefined) break;
  }
  return { items: last.reverse(), from, complete: cursor === undefined };
}

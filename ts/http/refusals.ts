/** The last messages between projects that were refused. The log is read oldest first: the newest are found by how far back they can be. */
import type { AuditOutcome, AuditRecord, OSSAEventBus } from '../../index';
import { invalidArgument } from '../errors';
import { given } from './query';

/** Records that ended otherwise than well, the newest first. */
export interface Refusals {
  readonly items: AuditRecord[];
  /** Records since then were looked at. */
  readonly from: Date;
  /** Whether these are all since then. */
  readonly complete: boolean;
  /** What is not here: older ones, beyond the limit; or newer ones, as there are more records than one request looks through. */
  readonly missing?: 'older' | 'newer';
}

const MINUTE_MS = 60_000;
/** How far back is looked, one after the other until enough is found. */
const WINDOWS_MS = [MINUTE_MS, 15 * MINUTE_MS, 6 * 60 * MINUTE_MS, 7 * 24 * 60 * MINUTE_MS];
const PAGE = 1000;
const PAGES_MAX = 5;

type Log = Pick<OSSAEventBus, 'getAuditLog'>;

const isRefusal = (outcome: string): boolean => outcome !== 'sent' && outcome !== 'delivered';

/** At most `limit` refusals, of one project or outcome where it is named: rare ones are then found among however many others. */
export async function lastRefusals(bus: Log, limit: number, projectId: string | undefined, only: string | undefined): Promise<Refusals> {
  if (only !== undefined && !isRefusal(only)) throw invalidArgument('only', 'must be an outcome other than sent and delivered');
  const now = Date.now();
  const filter = given({ projectId, outcome: only as AuditOutcome | undefined });
  let found: Refusals | undefined;
  for (const window of WINDOWS_MS) {
    const next = await since(bus, new Date(now - window), limit, filter);
    // A longer time without its end says less than a shorter one that was looked through.
    if (next.missing === 'newer' && found !== undefined) return found;
    found = next;
    if (!next.complete) break;
  }
  return found as Refusals;
}

async function since(bus: Log, from: Date, limit: number, filter: { projectId?: string; outcome?: AuditOutcome }): Promise<Refusals> {
  let last: AuditRecord[] = [];
  let isCut = false;
  let cursor: string | undefined;
  for (let pages = 0; pages < PAGES_MAX; pages++) {
    const page = await bus.getAuditLog(given({ ...filter, from, limit: PAGE, cursor }));
    const refused = page.items.filter(({ outcome }) => isRefusal(outcome));
    isCut ||= last.length + refused.length > limit;
    last = [...last, ...refused].slice(-limit);
    cursor = page.cursor;
    if (cursor === undefined) break;
  }
  const missing = cursor !== undefined ? 'newer' : isCut ? 'older' : undefined;
  return { items: last.reverse(), from, complete: missing === undefined, ...given({ missing }) };
}

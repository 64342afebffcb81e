/** How the parts of a bus are, and how it is as a whole. */
import { describeThrown, property } from './errors';
import type { HealthReport } from './types';

/** How something is, the best first. */
export type Health = HealthReport['status'];
const BY_SEVERITY: readonly Health[] = ['healthy', 'degraded', 'unhealthy'];

/** A part of the bus in healthCheck(). */
export interface HealthComponent {
  status: Health;
  details: unknown;
}

/** A part, and what it says of the whole. */
export interface Part {
  /** Rejects, or does not answer: the part is unhealthy. */
  look(): Promise<HealthComponent> | HealthComponent;
  /** Without it nothing is published or consumed: what it is, the whole is. Else the whole is degraded at worst. */
  vital: boolean;
}

/** Asks all parts at once, each for at most `timeoutMs`. Never rejects. */
export async function checkHealth(parts: Record<string, Part | undefined>, timeoutMs: number): Promise<HealthReport> {
  const timestamp = new Date();
  const there = Object.entries(parts).filter((entry): entry is [string, Part] => entry[1] !== undefined);
  const found = await Promise.all(there.map(async ([name, part]) => [name, part, await within(part, timeoutMs)] as const));
  const status = found.reduce<Health>((all, [, part, { status }]) => worst(all, part.vital ? status : atWorstDegraded(status)), 'healthy');
  return { status, timestamp, components: Object.fromEntries(found.map(([name, , component]) => [name, component])) };
}

async function within(part: Part, timeoutMs: number): Promise<HealthComponent> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<HealthComponent>((resolve) => {
    const details = { code: 'ERR_TIMEOUT', error: `it did not answer within ${timeoutMs} ms (monitoring.healthCheck.timeout)` };
    timer = setTimeout(() => resolve({ status: 'unhealthy', details }), timeoutMs);
  });
  try {
    return await Promise.race([asked(part), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function asked(part: Part): Promise<HealthComponent> {
  try {
    return await part.look();
  } catch (error) {
    return { status: 'unhealthy', details: { code: property(error, 'code'), error: describeThrown(error) } };
  }
}

/** The one that is worse. */
export function worst(a: Health, b: Health): Health {
  return BY_SEVERITY.indexOf(a) > BY_SEVERITY.indexOf(b) ? a : b;
}

function atWorstDegraded(status: Health): Health {
  return status === 'unhealthy' ? 'degraded' : status;
}

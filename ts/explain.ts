/** explain(): all that is known of one event. */
import type { BusCore } from './core';
import { invalidArgument } from './errors';
import { isText } from './json';
import type { CrossedMetadata } from './payload';
import { parsed, toMetadata } from './payload';
import type { EventExplanation } from './types';

type Group = EventExplanation['groups'][number];

/** An explanation as it crosses: the event as two JSON texts, times in ms. */
interface CrossedExplanation {
  meta: string;
  data: string;
  streamId?: string;
  state: EventExplanation['state'];
  groups: Array<Omit<Group, 'nextRetryAt'> & { nextRetryAt?: number }>;
}

/** Asks the engine, and makes Dates of its times. */
export async function explain(core: BusCore, eventType: unknown, eventId: unknown): Promise<EventExplanation | null> {
  core.native();
  if (typeof eventType !== 'string' || !isText(eventType)) throw invalidArgument('eventType', 'must be a string');
  if (typeof eventId !== 'string' || !isText(eventId)) throw invalidArgument('eventId', 'must be a string, as publish() answered it');
  const crossed = await core.call<CrossedExplanation | null>('explain', { eventType, eventId });
  if (crossed === null) return null;
  const { meta, data, streamId, state, groups } = crossed;
  return {
    event: { metadata: toMetadata(parsed(meta) as CrossedMetadata, eventType, 0, core.retryDefaults), data: parsed(data) },
    ...(streamId === undefined ? {} : { streamId }),
    state,
    groups: groups.map(({ nextRetryAt, ...group }) => ({
      ...group,
      ...(nextRetryAt === undefined ? {} : { nextRetryAt: new Date(nextRetryAt) }),
    })),
  };
}

/** What is published: the same data for all, and the envelope that a user of a plain client would make. */
import { randomUUID } from 'node:crypto';

/** What all events are called. */
export const type = 'user.created';

/** About 200 bytes of JSON. */
export const data = (i) => ({
  userId: `user-${i}`,
  email: `user${i}@example.com`,
  number: i,
  tags: ['alpha', 'beta', 'gamma'],
  nested: { ok: true, score: i * 1.5, note: 'the quick brown fox jumps over the lazy dog' },
});

/** Bytes of one event's data. */
export const dataBytes = Buffer.byteLength(JSON.stringify(data(50_000)));

/** What is known of an event beside its data. */
export const metadata = () => ({
  id: randomUUID(),
  type,
  source: 'bench',
  timestamp: Date.now(),
  version: '1.0.0',
  priority: 'normal',
  ttl: 3600,
});

/** The two fields of an entry as a plain client writes it: what this bus stores of an event, made in JavaScript. */
export const envelope = (i) => ({ meta: JSON.stringify(metadata()), data: JSON.stringify(data(i)) });

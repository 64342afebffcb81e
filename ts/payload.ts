/** Payloads: from the JSON texts of a delivery to what a handler is given. */
import type { EventMetadata, EventPayload, EventRetryConfig, EventPriority as Priority } from '../index';

/** The metadata as it crosses: `timestamp` in ms, the ttl apart by who chose it. */
export interface CrossedMetadata {
  id: string;
  source: string;
  target?: string;
  timestamp: number;
  correlationId?: string;
  causationId?: string;
  version: string;
  priority: string;
  ttl?: number;
  dttl?: number;
  retry?: Partial<EventRetryConfig>;
  tags?: string[];
  headers?: Record<string, string>;
  partitionKey?: string;
  /** of a message to a project: namespaces, contracts, route, key */
  message?: { from: string; to: string; contracts?: string[]; route?: string; keyId?: string };
  /** and its signature */
  sig?: string;
}

/** What the metadata of an event say behind id and time. */
export type Tail = Omit<CrossedMetadata, 'id' | 'timestamp'> & {
  /** It says nothing beside what most events do: {@link PLAIN_KEYS}. */
  readonly isPlain: boolean;
};

/** Metadata that crossed apart: id, time, and a tail that many events share. */
export class Head {
  constructor(
    readonly id: string,
    readonly timestamp: number,
    readonly tail: Tail,
  ) {}
}

const PLAIN_KEYS: ReadonlySet<string> = new Set(['source', 'version', 'priority', 'ttl', 'dttl']);
const TAILS_MAX = 256;

/** Text → what it says. */
const tails = new Map<string, Tail>();

/** What a {@link Row.Tail} says. The same few come again and again. */
export function readTail(text: string): Tail {
  const known = tails.get(text);
  if (known !== undefined) return known;
  const said = JSON.parse(`{${text.slice(1)}`) as Tail;
  const isPlain = Object.entries(said).every(([key, value]) => PLAIN_KEYS.has(key) && typeof value !== 'object');
  const tail: Tail = { ...said, isPlain };
  // What else an event says may be its own: another object for each, as handlers may change what they get.
  if (!isPlain) return tail;
  if (tails.size >= TAILS_MAX) tails.clear();
  tails.set(text, tail);
  return tail;
}

/** The event type of a stream: that of messages to a project is `@<project>/<event type>`. */
function eventTypeOf(stream: string): string {
  return stream.charCodeAt(0) === 0x40 ? stream.slice(stream.indexOf('/') + 1) : stream;
}

/** Metadata with its keys in the order of EventMetadata, and only those it has. */
export function toMetadata(meta: CrossedMetadata, type: string, attempt: number, retryDefaults: EventRetryConfig): EventMetadata {
  const out = { id: meta.id, type: eventTypeOf(type), source: meta.source } as EventMetadata;
  if (meta.target !== undefined) out.target = meta.target;
  out.timestamp = new Date(meta.timestamp);
  if (meta.correlationId !== undefined) out.correlationId = meta.correlationId;
  if (meta.causationId !== undefined) out.causationId = meta.causationId;
  out.version = meta.version;
  out.priority = meta.priority as Priority;
  const ttl = meta.ttl ?? meta.dttl;
  if (ttl !== undefined) out.ttl = ttl;
  if (meta.retry !== undefined) out.retry = { ...retryDefaults, ...meta.retry };
  if (meta.tags !== undefined) out.tags = meta.tags;
  if (meta.headers !== undefined) out.headers = meta.headers;
  if (meta.partitionKey !== undefined) out.partitionKey = meta.partitionKey;
  out.attempt = attempt;
  return out;
}

/** All of the metadata that crossed. */
export function parseMetadata(meta: Head | string): CrossedMetadata {
  if (typeof meta === 'string') return JSON.parse(meta) as CrossedMetadata;
  return { ...meta.tail, id: meta.id, timestamp: meta.timestamp };
}

function readMetadata(meta: Head | string, type: string, attempt: number, retryDefaults: EventRetryConfig): EventMetadata {
  if (typeof meta === 'string') return toMetadata(parseMetadata(meta), type, attempt, retryDefaults);
  const { id, timestamp, tail } = meta;
  const ttl = tail.ttl ?? tail.dttl;
  if (!tail.isPlain || ttl === undefined) return toMetadata(parseMetadata(meta), type, attempt, retryDefaults);
  // All at once: an object that grows key by key costs three times as much.
  const { source, version, priority } = tail;
  return {
    id,
    type: eventTypeOf(type),
    source,
    timestamp: new Date(timestamp),
    version,
    priority: priority as Priority,
    ttl,
    attempt,
  };
}

/** A payload from what crossed. Throws where a text is not JSON. */
export function toPayload(meta: Head | string, data: string, type: string, attempt: number, retryDefaults: EventRetryConfig): EventPayload {
  return { metadata: readMetadata(meta, type, attempt, retryDefaults), data: JSON.parse(data) as unknown };
}

/** Data that is not JSON is shown as the text it is. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

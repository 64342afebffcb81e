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
}

/** Metadata with its keys in the order of EventMetadata, and only those it has. */
export function toMetadata(meta: CrossedMetadata, type: string, attempt: number, retryDefaults: EventRetryConfig): EventMetadata {
  const out = { id: meta.id, type, source: meta.source } as EventMetadata;
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

/** A payload from its two texts. Throws where one is not JSON. */
export function toPayload(meta: string, data: string, type: string, attempt: number, retryDefaults: EventRetryConfig): EventPayload {
  return { metadata: toMetadata(JSON.parse(meta) as CrossedMetadata, type, attempt, retryDefaults), data: JSON.parse(data) as unknown };
}

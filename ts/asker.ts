/** Who waits for what a handler returns, and the answer as it crosses. */
import { OSSAError } from './errors';
import { stringifyData } from './json';

/** Where an answer goes: from the metadata of the event. */
export interface Asker {
  /** The inbox that waits. */
  readonly to: string;
  /** The event's id. */
  readonly id: string;
}

/** The asker that the metadata names, if any. */
export function askerOf(meta: string): Asker | undefined {
  const { replyTo, id } = JSON.parse(meta) as { replyTo?: unknown; id?: unknown };
  return typeof replyTo === 'string' && typeof id === 'string' ? { to: replyTo, id } : undefined;
}

/** What a handler returned as JSON text, or why it cannot be sent. */
export function encodeReply(result: unknown, maxBytes: number): { json: string } | { problem: string } {
  try {
    const json = stringifyData(result);
    const bytes = Buffer.byteLength(json);
    if (bytes <= maxBytes) return { json };
    return { problem: `what the handler returned has ${bytes} bytes as JSON, more than limits.maxPayloadBytes (${maxBytes}) allows` };
  } catch (error) {
    const message = error instanceof OSSAError ? error.message.replace(/^data/, 'the result') : String(error);
    return { problem: `what the handler returned cannot be sent: ${message}` };
  }
}

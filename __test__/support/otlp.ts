/** A receiver of traces: OTLP over HTTP, read by a library of protocol buffers. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Root, type Type } from 'protobufjs';
import { until } from './wait';

const repeated = (type: string, id: number) => ({ rule: 'repeated', type, id });
const field = (type: string, id: number) => ({ type, id });

/** Of opentelemetry/proto/{collector/trace,trace,resource,common}/v1 what is looked at here. */
const messages = Root.fromJSON({
  nested: {
    Request: { fields: { resourceSpans: repeated('ResourceSpans', 1) } },
    ResourceSpans: { fields: { resource: field('Resource', 1), scopeSpans: repeated('ScopeSpans', 2) } },
    Resource: { fields: { attributes: repeated('KeyValue', 1) } },
    ScopeSpans: { fields: { scope: field('Scope', 1), spans: repeated('Span', 2) } },
    Scope: { fields: { name: field('string', 1), version: field('string', 2) } },
    Span: {
      fields: {
        traceId: field('bytes', 1),
        spanId: field('bytes', 2),
        traceState: field('string', 3),
        parentSpanId: field('bytes', 4),
        name: field('string', 5),
        kind: field('int32', 6),
        startTimeUnixNano: field('fixed64', 7),
        endTimeUnixNano: field('fixed64', 8),
        attributes: repeated('KeyValue', 9),
        events: repeated('Event', 11),
        links: repeated('Link', 13),
        status: field('Status', 15),
        flags: field('fixed32', 16),
      },
    },
    Event: { fields: { timeUnixNano: field('fixed64', 1), name: field('string', 2), attributes: repeated('KeyValue', 3) } },
    Link: { fields: { traceId: field('bytes', 1), spanId: field('bytes', 2), traceState: field('string', 3) } },
    Status: { fields: { message: field('string', 2), code: field('int32', 3) } },
    KeyValue: { fields: { key: field('string', 1), value: field('AnyValue', 2) } },
    AnyValue: { fields: { stringValue: field('string', 1), intValue: field('int64', 3) } },
  },
});
const request: Type = messages.lookupType('Request');

type Attributes = Record<string, string | number>;

/** A span as a reader of traces sees it. */
export interface Span {
  name: string;
  traceId: string;
  spanId: string;
  /** '' for the first of a trace. */
  parentSpanId: string;
  traceState: string;
  kind: 'PRODUCER' | 'CONSUMER' | number;
  /** ms since 1970. */
  start: number;
  end: number;
  attributes: Attributes;
  events: Array<{ name: string; attributes: Attributes }>;
  links: Array<{ traceId: string; spanId: string }>;
  /** Of one that failed. */
  error: string | undefined;
  service: string;
}

type Raw = Record<string, any>;

const attributesOf = (pairs: Raw[] = []): Attributes =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)]));
const KINDS: Record<number, Span['kind']> = { 4: 'PRODUCER', 5: 'CONSUMER' };

function read(body: Buffer): Span[] {
  const { resourceSpans } = request.toObject(request.decode(body), { longs: String, bytes: String }) as { resourceSpans: Raw[] };
  const hex = (base64 = '') => Buffer.from(base64, 'base64').toString('hex');
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    (scopeSpans as Raw[]).flatMap(({ spans }) =>
      (spans as Raw[]).map(
        (span): Span => ({
          name: span['name'],
          traceId: hex(span['traceId']),
          spanId: hex(span['spanId']),
          parentSpanId: hex(span['parentSpanId']),
          traceState: span['traceState'] ?? '',
          kind: KINDS[span['kind']] ?? span['kind'],
          start: Number(BigInt(span['startTimeUnixNano']) / 1000n) / 1000,
          end: Number(BigInt(span['endTimeUnixNano']) / 1000n) / 1000,
          attributes: attributesOf(span['attributes']),
          events: (span['events'] ?? []).map((event: Raw) => ({ name: event['name'], attributes: attributesOf(event['attributes']) })),
          links: (span['links'] ?? []).map((link: Raw) => ({ traceId: hex(link['traceId']), spanId: hex(link['spanId']) })),
          error: span['status']?.code === 2 ? span['status'].message : undefined,
          service: String(attributesOf(resource.attributes)['service.name']),
        }),
      ),
    ),
  );
}

/** A receiver, until it is closed. */
export class Receiver {
  readonly spans: Span[] = [];
  /** Status of the answers that come next; then 200. */
  readonly answers: number[] = [];
  /** Requests, taken or not. */
  requests = 0;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((asked, answer) => {
      const chunks: Buffer[] = [];
      asked.on('data', (chunk) => chunks.push(chunk));
      asked.on('end', () => {
        this.requests++;
        const status =
          asked.url === '/v1/traces' && asked.headers['content-type'] === 'application/x-protobuf' ? (this.answers.shift() ?? 200) : 404;
        if (status === 200) this.spans.push(...read(Buffer.concat(chunks)));
        answer.writeHead(status).end();
      });
    });
  }

  static async start(): Promise<Receiver> {
    const receiver = new Receiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, '127.0.0.1', resolve));
    return receiver;
  }

  /** The base URL. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Spans of this name, once there are as many. */
  async named(name: string, count = 1): Promise<Span[]> {
    const found = () => this.spans.filter((span) => span.name === name);
    await until(() => found().length >= count, { show: () => this.spans.map((span) => span.name) });
    return found();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** The header that names a span. */
export const traceparentOf = ({ traceId, spanId }: { traceId: string; spanId: string }, flags = '01') => `00-${traceId}-${spanId}-${flags}`;

/**
 * Traces on this side: what is published under a span says so in its headers, and a handler runs in the trace of its event. The
 * engine makes the bus's own spans (docs/tracing.md); here it is only carried, by `@opentelemetry/api` where the program has it.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type * as otel from '@opentelemetry/api';
import type { ResolvedEventBus } from './config';
import type { Delivery } from './delivery';
import { isRecord } from './json';
import { encodePublishOptions } from './publishOptions';
import { currentDelivery } from './running';

type Api = typeof otel;
type Headers = Record<string, string>;

const TRACEPARENT = 'traceparent';
const TRACESTATE = 'tracestate';
/** As the engine reads it; what is not of this form begins no trace. */
const TRACEPARENT_FORM = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/;
/** Most headers of an event, and the longest value, bytes: a trace is no reason for an event to be refused. */
const HEADERS_MAX = 100;
const VALUE_BYTES_MAX = 8192;

/** The headers of one trace, for all that is published under it. */
export class Carried {
  #text: string | undefined;

  constructor(readonly headers: Headers) {}

  /** JSON text of options that are nothing else. */
  get text(): string {
    return (this.#text ??= encodePublishOptions({ headers: this.headers }));
  }

  /** Beside what the caller gave, which wins. What cannot be read is left for the engine to refuse. */
  beside<T extends object>(options: T): T {
    if (!isRecord(options)) return options;
    const own: unknown = options['headers'];
    if (own === undefined) return { ...options, headers: this.headers };
    if (!isRecord(own)) return options;
    const headers: Record<string, unknown> = { ...this.headers, ...own };
    // Of another trace it would be wrong.
    if (TRACEPARENT in own && !(TRACESTATE in own)) delete headers[TRACESTATE];
    return Object.keys(headers).length > HEADERS_MAX ? options : { ...options, headers };
  }
}

/** What a bus does about traces. */
export class Tracing {
  readonly #api: Api | undefined;
  /** Whether the engine makes spans. */
  readonly #exports: boolean;
  /** Many events in a row are published in the same context. */
  #context: otel.Context | undefined;
  #carried: Carried | undefined;

  /** undefined: nothing is to be done, by configuration or because there is neither an API nor an endpoint. */
  static of({ config, monitoring }: Pick<ResolvedEventBus, 'config' | 'monitoring'>): Tracing | undefined {
    const { tracing } = config.monitoring;
    const isOn = typeof tracing === 'object' ? tracing.enabled : tracing;
    const spans = monitoring?.tracing;
    if (!isOn || spans?.enabled === false) return undefined;
    const exports = spans?.otlpEndpoint !== undefined || spans?.jaegerEndpoint !== undefined;
    const api = load();
    return api === undefined && !exports ? undefined : new Tracing(api, exports);
  }

  constructor(api: Api | undefined, exports: boolean) {
    this.#api = api;
    this.#exports = exports;
  }

  /** What an event says that is published here: of the active span, or of the event that is handled here. */
  outgoing(): Carried | undefined {
    return this.#ofActiveSpan() ?? (this.#exports ? currentDelivery()?.seldom.carried : undefined);
  }

  #ofActiveSpan(): Carried | undefined {
    const api = this.#api;
    if (api === undefined) return undefined;
    const active = api.context.active();
    if (active !== this.#context) {
      this.#carried = carriedBy(api, active);
      this.#context = active;
    }
    return this.#carried;
  }

  /** Calls a handler in the trace of its event, where that has one. */
  run<A, B>(delivery: Delivery, headers: Headers | undefined, call: (a: A, b: B) => unknown, a: A, b: B): unknown {
    const traceparent = headers?.[TRACEPARENT];
    const found = traceparent === undefined ? null : TRACEPARENT_FORM.exec(traceparent);
    if (headers === undefined || traceparent === undefined || found === null) return call(a, b);
    if (this.#exports) {
      const tracestate = headers[TRACESTATE];
      delivery.own.carried = new Carried({ [TRACEPARENT]: traceparent, ...(tracestate === undefined ? {} : { [TRACESTATE]: tracestate }) });
    }
    const api = this.#api;
    if (api === undefined) return call(a, b);
    const [, traceId, spanId, flags] = found as unknown as [string, string, string, string];
    const context = entered(api, headers, { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true });
    return api.context.with(context, call, undefined, a, b);
  }
}

/** The headers of the active span, by the program's own propagator and always as W3C has it. */
function carriedBy(api: Api, active: otel.Context): Carried | undefined {
  const span = api.trace.getSpanContext(active);
  if (span === undefined || !api.isSpanContextValid(span)) return undefined;
  const carrier: Record<string, unknown> = {};
  let isW3C = false;
  try {
    api.propagation.inject(active, carrier);
    isW3C = api.propagation.fields().includes(TRACEPARENT);
  } catch {
    // A propagator of the program: what it wrote before it failed counts.
  }
  const fits = ([, value]: [string, unknown]) => typeof value === 'string' && Buffer.byteLength(value) <= VALUE_BYTES_MAX;
  const headers = Object.fromEntries(Object.entries(carrier).filter(fits)) as Headers;
  // One that could have written it and did not had a reason: the program suppresses tracing here.
  if (headers[TRACEPARENT] === undefined && !isW3C) {
    headers[TRACEPARENT] = `00-${span.traceId}-${span.spanId}-${(span.traceFlags & 1) === 0 ? '00' : '01'}`;
    const state = span.traceState?.serialize();
    if (state !== undefined && state !== '') headers[TRACESTATE] = state;
  }
  return Object.keys(headers).length === 0 ? undefined : new Carried(headers);
}

/**
 * The context of an event: what the program's propagator reads from its headers, with the bus's span in it. Headers of other
 * formats name the span of the publisher, the bus's is in `traceparent` alone.
 */
function entered(api: Api, headers: Headers, span: otel.SpanContext): otel.Context {
  let context = api.ROOT_CONTEXT;
  try {
    context = api.propagation.extract(context, headers);
  } catch {
    // A propagator of the program: there is the span all the same.
  }
  const read = api.trace.getSpanContext(context);
  if (read?.spanId === span.spanId && read.traceId === span.traceId) return context;
  const state = headers[TRACESTATE];
  return api.trace.setSpanContext(context, state === undefined ? span : { ...span, traceState: api.createTraceState(state) });
}

let loaded: { api: Api | undefined } | undefined;

/** The API, if the program has it: every copy of it leads to the one SDK that is registered. */
function load(): Api | undefined {
  loaded ??= { api: find() };
  return loaded.api;
}

function find(): Api | undefined {
  try {
    return require('@opentelemetry/api') as Api;
  } catch {
    // Not beside this package; perhaps beside the program.
  }
  try {
    return createRequire(require.main?.filename ?? join(process.cwd(), 'index.js'))('@opentelemetry/api') as Api;
  } catch {
    return undefined;
  }
}

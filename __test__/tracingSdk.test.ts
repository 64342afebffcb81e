/** With the SDK of OpenTelemetry in the program: its spans and those of the bus are one trace. */
import { createOSSAEventBus, type EventPayload, RedisEventBus } from '@bluefly/ossa';
import { type Context, context, propagation, SpanKind, SpanStatusCode, type TextMapPropagator, trace } from '@opentelemetry/api';
import { InMemorySpanExporter, NodeTracerProvider, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { Receiver, traceparentOf } from './support/otlp';
import { until } from './support/wait';
import { stores, useWorld } from './support/world';

jest.setTimeout(60_000);

const exporter = new InMemorySpanExporter();
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const tracer = trace.getTracer('test');

/** Another format than the W3C's, as some programs have it. */
const foreign: TextMapPropagator = {
  fields: () => ['x-trace'],
  inject(active: Context, carrier, setter) {
    const span = trace.getSpanContext(active);
    if (span !== undefined) setter.set(carrier, 'x-trace', `${span.traceId}:${span.spanId}:${span.traceFlags}`);
  },
  extract(active: Context, carrier, getter) {
    const [traceId, spanId, traceFlags] = String(getter.get(carrier, 'x-trace') ?? '').split(':');
    if (traceId === undefined || spanId === undefined) return active;
    return trace.setSpanContext(active, { traceId, spanId, traceFlags: Number(traceFlags), isRemote: true });
  },
};

beforeEach(() => {
  exporter.reset();
  provider.register();
});
afterEach(() => {
  trace.disable();
  context.disable();
  propagation.disable();
});

async function finished(name: string): Promise<ReadableSpan> {
  const found = () => exporter.getFinishedSpans().find((span) => span.name === name);
  return (await until(found)) as ReadableSpan;
}

describe.each(stores)('over %s', (kind) => {
  const world = useWorld(kind);
  let receiver: Receiver;
  beforeEach(async () => {
    receiver = await Receiver.start();
  });
  afterEach(() => receiver.close());

  async function exporting(samplingRate = 0) {
    return createOSSAEventBus(null, {
      eventBus: world.config(),
      orchestration: { enabled: false },
      monitoring: { tracing: { samplingRate, otlpEndpoint: receiver.url } },
    });
  }

  test('the active span is above the publish, and what a handler does below its processing', async () => {
    const bus = await exporting();
    const seen: EventPayload[] = [];
    await bus.subscribe('t', async (event) => {
      await Promise.resolve();
      tracer.startActiveSpan('work', (span) => {
        span.setAttribute('user', propagation.getActiveBaggage()?.getEntry('user')?.value ?? '');
        span.end();
      });
      seen.push(event);
      await bus.publish('next', 1);
    });
    const baggage = propagation.createBaggage({ user: { value: 'jane' } });
    await context.with(propagation.setBaggage(context.active(), baggage), () =>
      tracer.startActiveSpan('request', { kind: SpanKind.SERVER }, async (span) => {
        await bus.publish('t', 1, { headers: { own: 'x' } });
        span.setStatus({ code: SpanStatusCode.OK }).end();
      }),
    );
    const [request, work] = [(await finished('request')).spanContext(), await finished('work')];
    const [publish, process, next] = await Promise.all(
      ['publish t', 'process t', 'publish next'].map(async (name) => (await receiver.named(name))[0]!),
    );
    await bus.shutdown();
    expect(publish).toMatchObject({ traceId: request.traceId, parentSpanId: request.spanId });
    expect(work.spanContext().traceId).toBe(request.traceId);
    expect(work.parentSpanContext).toMatchObject({ spanId: process!.spanId, isRemote: true });
    expect(work.attributes).toEqual({ user: 'jane' });
    expect(next).toMatchObject({ traceId: request.traceId, parentSpanId: process!.spanId });
    expect(seen[0]?.metadata.headers).toEqual({ own: 'x', baggage: 'user=jane', traceparent: traceparentOf(process!) });
  });

  test('without an endpoint the trace goes through the bus, from span to handler', async () => {
    const bus = await world.bus();
    await bus.subscribe('t', () => tracer.startActiveSpan('work', (span) => span.end()));
    await tracer.startActiveSpan('request', async (span) => {
      await bus.publish('t', 1);
      span.end();
    });
    const [request, work] = [await finished('request'), await finished('work')];
    expect(work.spanContext().traceId).toBe(request.spanContext().traceId);
    expect(work.parentSpanContext?.spanId).toBe(request.spanContext().spanId);
  });

  test('a span that is not recorded is not recorded by the bus', async () => {
    const bus = await exporting(1);
    let seen = false;
    await bus.subscribe('t', () => {
      seen = true;
    });
    const span = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7', traceFlags: 0 };
    await context.with(trace.setSpanContext(context.active(), span), () => bus.publish('t', 1));
    await until(() => seen);
    await bus.shutdown();
    expect(receiver.spans).toEqual([]);
  });

  test('events of one turn say the same, and events outside of a span say nothing', async () => {
    const bus = await world.bus();
    const seen: EventPayload[] = [];
    await bus.subscribe('t', (event) => void seen.push(event));
    await tracer.startActiveSpan('request', async (span) => {
      await Promise.all([bus.publish('t', 1), bus.publish('t', 2), bus.publish('t', 3, null as any)]);
      span.end();
    });
    await bus.publish('t', 4);
    await until(() => seen.length === 4);
    const traceparent = traceparentOf((await finished('request')).spanContext());
    const said = seen.map((event) => event.metadata.headers);
    expect(said).toEqual([{ traceparent }, { traceparent }, { traceparent }, undefined]);
  });

  test('headers of the caller win', async () => {
    const bus = await world.bus();
    const seen: EventPayload[] = [];
    await bus.subscribe('t', (event) => void seen.push(event));
    const own = { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' };
    await tracer.startActiveSpan('request', async (span) => {
      await bus.publish('t', 1, { headers: own });
      const many = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`h${n}`, 'x']));
      await bus.publish('t', 2, { headers: many });
      span.end();
    });
    await until(() => seen.length === 2);
    expect(seen[0]?.metadata.headers).toEqual(own);
    expect(Object.keys(seen[1]?.metadata.headers ?? {}).length).toBe(100);
  });

  test('wrong headers are refused as without a span', async () => {
    const bus = await world.bus();
    for (const options of [{ headers: 'x' }, { headers: [] }, { headers: { a: 1 } }, 'x', []]) {
      await tracer.startActiveSpan('request', async (span) => {
        await expect(bus.publish('t', 1, options as any)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
        span.end();
      });
    }
  });

  test('batch handlers run in no trace: their events have several', async () => {
    const bus = await world.bus();
    const active: unknown[] = [];
    const handler = (_: EventPayload[]) => void active.push(trace.getActiveSpan());
    await bus.subscribe('t', handler, { batch: { maxSize: 1 } });
    await tracer.startActiveSpan('request', async (span) => {
      await bus.publish('t', 1);
      span.end();
    });
    await until(() => active.length === 1);
    expect(active).toEqual([undefined]);
  });
});

describe('with a propagator of another format', () => {
  const world = useWorld('memory');
  beforeEach(() => {
    propagation.disable();
    propagation.setGlobalPropagator(foreign);
  });

  test('events say both, and handlers run below the span of the bus', async () => {
    const receiver = await Receiver.start();
    const bus = await createOSSAEventBus(null, {
      eventBus: world.config(),
      orchestration: { enabled: false },
      monitoring: { tracing: { samplingRate: 0, otlpEndpoint: receiver.url } },
    });
    const seen: EventPayload[] = [];
    await bus.subscribe('t', (event) => {
      seen.push(event);
      tracer.startActiveSpan('work', (span) => span.end());
    });
    await tracer.startActiveSpan('request', async (span) => {
      await bus.publish('t', 1);
      span.end();
    });
    const [request, work] = [(await finished('request')).spanContext(), await finished('work')];
    const process = (await receiver.named('process t'))[0]!;
    await bus.shutdown();
    await receiver.close();
    expect(seen[0]?.metadata.headers).toEqual({
      'x-trace': `${request.traceId}:${request.spanId}:1`,
      traceparent: traceparentOf(process),
    });
    expect(work.parentSpanContext).toMatchObject({ traceId: request.traceId, spanId: process.spanId });
  });
});

test('a propagator that throws costs the trace nothing', async () => {
  propagation.disable();
  const broken = () => {
    throw new Error('broken');
  };
  propagation.setGlobalPropagator({ fields: broken, inject: broken, extract: broken });
  const bus = new RedisEventBus({ redis: { url: 'memory://' } });
  await bus.connect();
  await bus.subscribe('t', () => tracer.startActiveSpan('work', (span) => span.end()));
  await tracer.startActiveSpan('request', async (span) => {
    await bus.publish('t', 1);
    span.end();
  });
  const [request, work] = [await finished('request'), await finished('work')];
  await bus.disconnect();
  expect(work.parentSpanContext?.spanId).toBe(request.spanContext().spanId);
});

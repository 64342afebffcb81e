/** Spans of the bus: one trace from publish to handler, as a receiver of OTLP sees it. */
import { createOSSAEventBus, type DeepPartial, type EventPayload, type OSSAEventBus, type OSSAEventBusConfig } from '@bluefly/ossa';
import { project } from './support/crossing';
import { Receiver, type Span, traceparentOf } from './support/otlp';
import { until, within } from './support/wait';
import { quick, stores, useWorld } from './support/world';

jest.setTimeout(60_000);
// As in a program that does not have it.
jest.mock('@opentelemetry/api', () => {
  throw new Error("Cannot find module '@opentelemetry/api'");
});

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const SAMPLED = `00-${TRACE}-${SPAN}-01`;
const NOT_SAMPLED = `00-${TRACE}-${SPAN}-00`;

type Tracing = Partial<OSSAEventBusConfig['monitoring']['tracing']>;

describe.each(stores)('over %s', (kind) => {
  const world = useWorld(kind);
  let receiver: Receiver;
  const open: OSSAEventBus[] = [];

  beforeEach(async () => {
    receiver = await Receiver.start();
  });
  afterEach(async () => {
    await Promise.all(open.splice(0).map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    await receiver.close();
  });

  /** A bus that records everything, unless it is told otherwise. */
  async function bus(tracing: Tracing = {}, over: DeepPartial<OSSAEventBusConfig> = {}): Promise<OSSAEventBus> {
    const made = await createOSSAEventBus(null, {
      eventBus: { ...world.config(), defaults: { retry: quick(3) } },
      orchestration: { enabled: false },
      ...over,
      monitoring: { tracing: { samplingRate: 1, otlpEndpoint: receiver.url, ...tracing } },
    });
    open.push(made);
    return made;
  }

  const one = async (name: string): Promise<Span> => {
    const [span] = await receiver.named(name);
    return span as Span;
  };

  test('an event is one trace: published, received, processed', async () => {
    const publishing = await bus({ serviceName: 'shop' });
    const consuming = await bus({ serviceName: 'billing' });
    const seen: EventPayload[] = [];
    await consuming.subscribe('order.placed', (event) => void seen.push(event), { group: 'billing' });
    const before = Date.now();
    const id = await publishing.publish('order.placed', { total: 5 }, { correlationId: 'c-1' });
    const [publish, receive, process] = [
      await one('publish order.placed'),
      await one('receive order.placed'),
      await one('process order.placed'),
    ];
    expect(publish).toMatchObject({ kind: 'PRODUCER', parentSpanId: '', service: 'shop', error: undefined });
    expect(receive).toMatchObject({ kind: 'CONSUMER', traceId: publish.traceId, parentSpanId: publish.spanId, service: 'billing' });
    expect(process).toMatchObject({
      kind: 'CONSUMER',
      traceId: publish.traceId,
      parentSpanId: receive.spanId,
      error: undefined,
      events: [],
    });
    expect(publish.attributes).toEqual({
      'messaging.system': 'ossa',
      'messaging.operation.name': 'publish',
      'messaging.operation.type': 'send',
      'messaging.destination.name': 'order.placed',
      'messaging.destination.partition.id': '0',
      'messaging.message.id': id,
      'messaging.message.conversation_id': 'c-1',
      'messaging.message.body.size': 11,
      ...(kind === 'redis' ? { 'server.address': '127.0.0.1', 'server.port': expect.any(Number) } : {}),
    });
    expect(process.attributes).toEqual({
      'messaging.system': 'ossa',
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.name': 'order.placed',
      'messaging.destination.partition.id': '0',
      'messaging.message.id': id,
      'messaging.message.body.size': 11,
      'messaging.consumer.group.name': 'billing',
      'messaging.client.id': expect.any(String),
      'ossa.delivery.attempt': 1,
    });
    expect(receive.attributes).toMatchObject({ 'messaging.operation.type': 'receive', 'messaging.message.id': id });
    for (const { start, end } of [publish, receive, process])
      expect(start > before - 1000 && start <= end && end < Date.now() + 1000).toBe(true);
    // The handler's event names the span that it is handled in; what is stored, the one that published it.
    expect(seen[0]?.metadata.headers).toEqual({ traceparent: traceparentOf(process) });
    const stored: EventPayload[] = [];
    for await (const event of consuming.getEventBus().replay('order.placed')) stored.push(event);
    expect(stored[0]?.metadata.headers).toEqual({ traceparent: traceparentOf(publish) });
  });

  test('what a handler publishes goes on from there', async () => {
    const made = await bus();
    await made.subscribe('first', async () => {
      await Promise.resolve();
      await made.publish('second', 1, { headers: { own: 'x' } });
    });
    const seen: EventPayload[] = [];
    await made.subscribe('second', (event) => void seen.push(event));
    await made.publish('first', 1);
    const [process, second] = [await one('process first'), await one('publish second')];
    expect(second).toMatchObject({ traceId: process.traceId, parentSpanId: process.spanId });
    const last = await one('process second');
    expect(last.traceId).toBe(process.traceId);
    expect(seen[0]?.metadata.headers).toEqual({ own: 'x', traceparent: traceparentOf(last) });
  });

  test('a failure has a status and an exception, and each delivery its spans', async () => {
    const made = await bus();
    let calls = 0;
    await made.subscribe('t', () => {
      if (++calls < 3) throw new Error(`failure ${calls}`);
    });
    await made.publish('t', 1);
    const processed = await receiver.named('process t', 3);
    const received = await receiver.named('receive t', 3);
    const publish = await one('publish t');
    expect(new Set([...processed, ...received].map((span) => span.traceId))).toEqual(new Set([publish.traceId]));
    expect(received.map((span) => span.parentSpanId)).toEqual([publish.spanId, publish.spanId, publish.spanId]);
    expect(processed.map((span) => span.attributes['ossa.delivery.attempt'])).toEqual([1, 2, 3]);
    expect(processed.map((span) => span.error)).toEqual(['failure 1', 'failure 2', undefined]);
    expect(processed[0]).toMatchObject({
      attributes: { 'error.type': 'handler_error' },
      events: [{ name: 'exception', attributes: { 'exception.type': 'handler_error', 'exception.message': 'failure 1' } }],
    });
  });

  test('a handler past its time ends its span, and how it ends does not matter', async () => {
    const made = await bus();
    let end!: () => void;
    const handled = new Promise<void>((resolve) => {
      end = resolve;
    });
    await made.subscribe('t', () => handled, { consumerTimeout: 50, errorStrategy: 'dlq' });
    await made.publish('t', 1);
    const process = await one('process t');
    end();
    expect(process).toMatchObject({ attributes: { 'error.type': 'timeout' }, error: expect.stringContaining('consumerTimeout') });
  });

  test('a batch is one span with a link to each of its events', async () => {
    const made = await bus();
    const batches: EventPayload[][] = [];
    const handler = (events: EventPayload[]) => void batches.push(events);
    await made.publishBatch([1, 2, 3].map((data) => ({ eventType: 't', data })));
    await made.subscribe('t', handler, { batch: { maxSize: 3, maxWaitMs: 5000 } });
    const process = await one('process t');
    const published = await receiver.named('publish t', 3);
    const received = await receiver.named('receive t', 3);
    expect(process.links.map(({ spanId }) => spanId).sort()).toEqual(published.map(({ spanId }) => spanId).sort());
    expect(process).toMatchObject({ parentSpanId: '', attributes: { 'messaging.batch.message_count': 3 } });
    expect(published.map(({ traceId }) => traceId)).not.toContain(process.traceId);
    const given = batches[0]?.map((event) => event.metadata.headers?.['traceparent']).sort();
    expect(given).toEqual(received.map((span) => traceparentOf(span)).sort());
  });

  test('a batch of which one fails, fails with that', async () => {
    const made = await bus();
    await made.publishBatch([1, 2].map((data) => ({ eventType: 't', data })));
    const handler = (_: EventPayload[], context: any) => context.fail(1, new Error('that one'));
    await made.subscribe('t', handler, { batch: { maxSize: 2, maxWaitMs: 5000 }, errorStrategy: 'dlq' });
    expect(await one('process t')).toMatchObject({ error: 'that one', attributes: { 'messaging.batch.message_count': 2 } });
  });

  test('with a rate of 0 no trace begins, and one that is recorded goes on', async () => {
    const made = await bus({ samplingRate: 0 });
    const seen: EventPayload[] = [];
    await made.subscribe('t', (event) => void seen.push(event));
    await made.publish('t', 'plain');
    await made.publish('t', 'sampled', { headers: { traceparent: SAMPLED, tracestate: 'a=b' } });
    const process = await one('process t');
    const publish = await one('publish t');
    expect(publish).toMatchObject({ traceId: TRACE, parentSpanId: SPAN, traceState: 'a=b' });
    expect(process).toMatchObject({ traceId: TRACE, traceState: 'a=b' });
    await until(() => seen.length === 2);
    expect(seen.map((event) => event.metadata.headers)).toEqual([undefined, { traceparent: traceparentOf(process), tracestate: 'a=b' }]);
    await made.shutdown();
    expect(receiver.spans.map((span) => span.name).sort()).toEqual(['process t', 'publish t', 'receive t']);
  });

  test('with a rate of 1 one that is not recorded stays so, and its header is passed on as it is', async () => {
    const made = await bus();
    const seen: EventPayload[] = [];
    await made.subscribe('t', async (event) => {
      seen.push(event);
      await made.publish('next', 1);
    });
    await made.subscribe('next', (event) => void seen.push(event));
    await made.publish('t', 1, { headers: { traceparent: NOT_SAMPLED } });
    await until(() => seen.length === 2);
    await made.shutdown();
    expect(seen.map((event) => event.metadata.headers)).toEqual([{ traceparent: NOT_SAMPLED }, { traceparent: NOT_SAMPLED }]);
    expect(receiver.spans).toEqual([]);
  });

  test('a share of the traces is recorded, each as a whole', async () => {
    const made = await bus({ samplingRate: 0.3 });
    let seen = 0;
    await made.subscribe('t', () => void seen++);
    await made.publishBatch(Array.from({ length: 500 }, (_, n) => ({ eventType: 't', data: n })));
    await until(() => seen === 500);
    await made.shutdown();
    const traces = new Map<string, string[]>();
    for (const { traceId, name } of receiver.spans) traces.set(traceId, [...(traces.get(traceId) ?? []), name]);
    expect(traces.size).toBeGreaterThan(90);
    expect(traces.size).toBeLessThan(210);
    for (const names of traces.values()) expect(names.sort()).toEqual(['process t', 'publish t', 'receive t']);
  });

  test('requests and transient events are traced too', async () => {
    const made = await bus();
    await made.subscribe('ask', (event) => (event.data as number) + 1);
    await made.subscribe('now', () => undefined);
    expect(await made.request('ask', 1)).toBe(2);
    await made.publish('now', 1, { transient: true });
    for (const type of ['ask', 'now']) {
      const [publish, receive, process] = [await one(`publish ${type}`), await one(`receive ${type}`), await one(`process ${type}`)];
      expect([receive.parentSpanId, process.parentSpanId]).toEqual([publish.spanId, receive.spanId]);
    }
  });

  test('a message between projects is traced through its signature', async () => {
    const made = await bus();
    for (const id of ['a', 'b', 'c']) await made.registerProject(project(id));
    const seen: string[] = [];
    for (const id of ['b', 'c']) {
      await made.setupCrossProjectHandler(
        id,
        't',
        async (message) => {
          seen.push(message.target.projectId);
          if (message.target.projectId === 'b') await made.publish('follow', 1);
        },
        { requireSignatureValidation: true },
      );
    }
    await made.sendCrossProjectMessage('a', ['b', 'c'], 't', 1, { headers: { traceparent: SAMPLED } });
    for (const id of ['b', 'c']) {
      const [publish, receive, process] = [await one(`publish @${id}/t`), await one(`receive @${id}/t`), await one(`process @${id}/t`)];
      expect(publish).toMatchObject({ traceId: TRACE, parentSpanId: SPAN, error: undefined });
      expect([receive.parentSpanId, process.parentSpanId, process.error]).toEqual([publish.spanId, receive.spanId, undefined]);
      if (id === 'b') expect((await one('publish follow')).parentSpanId).toBe(process.spanId);
    }
    expect(seen.sort()).toEqual(['b', 'c']);
    await made.sendCrossProjectMessage('a', ['b', 'c'], 'alone', 1);
    const copies = [await one('publish @b/alone'), await one('publish @c/alone')];
    expect(new Set(copies.map((span) => span.traceId)).size).toBe(1);
    expect((await made.verifyAuditLog()).ok).toBe(true);
  });

  test('a publish that fails says why', async () => {
    const made = await bus({}, { eventBus: { ...world.config(), limits: { maxStreamLength: 2 } } });
    // Nothing of it is done with, so nothing can make room.
    await made.subscribe('full', () => new Promise(() => undefined));
    const results = await Promise.allSettled([1, 2, 3, 4].map((n) => made.publish('full', n)));
    const refused = results.filter((result) => result.status === 'rejected').length;
    expect(refused).toBeGreaterThan(0);
    const spans = await receiver.named('publish full', 4);
    expect(spans.filter((span) => span.attributes['error.type'] === 'ERR_STREAM_FULL').length).toBe(refused);
  });

  test.each([
    ['eventBus.monitoring.tracing is false', { eventBus: false, monitoring: true }],
    ['monitoring.tracing.enabled is false', { eventBus: true, monitoring: false }],
  ])('where %s there are no spans', async (_, on) => {
    const made = await bus({ enabled: on.monitoring }, { eventBus: { ...world.config(), monitoring: { tracing: on.eventBus } } });
    const seen: EventPayload[] = [];
    await made.subscribe('t', (event) => void seen.push(event));
    await made.publish('t', 1, { headers: { traceparent: SAMPLED } });
    await until(() => seen.length === 1);
    await made.shutdown();
    expect(seen[0]?.metadata.headers).toEqual({ traceparent: SAMPLED });
    expect(receiver.requests).toBe(0);
  });

  test('spans go to both endpoints', async () => {
    const jaeger = await Receiver.start();
    const made = await bus({ jaegerEndpoint: `${jaeger.url}/` });
    await made.publish('t', 1);
    await made.shutdown();
    await jaeger.close();
    expect(jaeger.spans).toEqual(receiver.spans);
    expect(jaeger.spans.map((span) => span.name)).toEqual(['publish t']);
  });

  test('what is there when the bus shuts down is sent', async () => {
    const made = await bus();
    await made.publish('t', 1);
    await made.shutdown();
    expect(receiver.spans.map((span) => span.name)).toEqual(['publish t']);
  });
});

describe('an endpoint', () => {
  const world = useWorld('memory');
  const make = (tracing: Tracing) =>
    createOSSAEventBus(null, {
      eventBus: world.config(),
      orchestration: { enabled: false },
      monitoring: { tracing: { samplingRate: 1, ...tracing } },
    });
  const warnings = () => world.logs.filter((line) => line.startsWith('warn'));

  test('that is busy for a moment gets the spans a moment later', async () => {
    const receiver = await Receiver.start();
    receiver.answers.push(503, 429);
    const bus = await make({ otlpEndpoint: receiver.url });
    await bus.publish('t', 1);
    await receiver.named('publish t');
    await bus.shutdown();
    await receiver.close();
    expect([receiver.requests, receiver.spans.length]).toEqual([3, 1]);
    expect(warnings()).toEqual([]);
  });

  test('that refuses is told of once, without what is secret', async () => {
    const receiver = await Receiver.start();
    const bus = await make({ otlpEndpoint: `${receiver.url.replace('//', '//user:hunter2@')}/v2/hunter2?key=hunter2` });
    await bus.publish('t', 1);
    await until(() => receiver.requests === 1 && warnings().length === 1);
    await bus.publish('t', 2);
    await until(() => receiver.requests === 2);
    await bus.shutdown();
    await receiver.close();
    expect(warnings()).toEqual([expect.stringMatching(/spans are lost: monitoring\.tracing\.otlpEndpoint answers with HTTP status 404/)]);
    expect(world.logs.join()).not.toContain('hunter2');
  });

  test('that is away disturbs nothing', async () => {
    const receiver = await Receiver.start();
    const { url } = receiver;
    await receiver.close();
    const bus = await make({ otlpEndpoint: url });
    let seen = 0;
    await bus.subscribe('t', () => void seen++);
    for (let n = 0; n < 200; n++) await bus.publish('t', n);
    await until(() => seen === 200);
    await until(() => warnings().length === 1);
    await within(8000, 'shutdown()', bus.shutdown());
    expect(warnings()).toEqual([
      expect.stringMatching(/spans are lost: monitoring\.tracing\.otlpEndpoint cannot be used: .* cannot be reached/),
    ]);
  });

  test("that is Jaeger's own is refused with what to give instead", async () => {
    const bus = make({ jaegerEndpoint: 'http://jaeger:14268/api/traces' });
    await expect(bus).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG', details: { path: 'monitoring.tracing.jaegerEndpoint' } });
    await expect(bus).rejects.toThrow(/OTLP/);
  });
});

/** One trace over two processes, which know nothing of each other but the event. */
import { endAll, start } from '../support/children';
import { Receiver, traceparentOf } from '../support/otlp';
import { until } from '../support/wait';
import { redisUrl, useWorld } from '../support/world';

jest.setTimeout(60_000);
afterEach(endAll);

const world = useWorld('redis');

test('from the process that publishes to the one that handles, failing once', async () => {
  const receiver = await Receiver.start();
  const run = (role: string) => start('tracing.cjs', { redis: { url: redisUrl(), keyPrefix: world.prefix }, endpoint: receiver.url, role });
  const consumer = run('consume');
  await until(() => consumer.lines.some((line) => line['ready']), { show: consumer.stderr });
  const publisher = run('publish');
  expect(await publisher.ended).toEqual({ code: 0, signal: null });
  const handled = () => consumer.lines.filter((line) => line['attempt'] !== undefined);
  await until(() => handled().length === 2, { show: consumer.stderr });
  consumer.kill('SIGTERM');
  expect(await consumer.ended).toEqual({ code: 0, signal: null });
  await receiver.close();

  const { spans } = receiver;
  expect(new Set(spans.map((span) => span.traceId)).size).toBe(1);
  const named = (name: string) => spans.filter((span) => span.name === name);
  const [publish, ...others] = named('publish t');
  expect(others).toEqual([]);
  expect(publish).toMatchObject({
    service: 'publish',
    parentSpanId: '',
    attributes: { 'messaging.message.id': publisher.lines[0]?.['id'] },
  });
  const received = named('receive t');
  const processed = named('process t');
  expect(spans.length).toBe(5);
  expect(received.map(({ parentSpanId, service }) => [parentSpanId, service])).toEqual([
    [publish?.spanId, 'consume'],
    [publish?.spanId, 'consume'],
  ]);
  expect(processed.map(({ parentSpanId }) => parentSpanId)).toEqual(received.map(({ spanId }) => spanId));
  expect(processed.map(({ error, attributes }) => [error, attributes['ossa.delivery.attempt']])).toEqual([
    ['not yet', 1],
    [undefined, 2],
  ]);
  expect(handled().map((line) => line['headers'])).toEqual(processed.map((span) => ({ traceparent: traceparentOf(span) })));
});

'use strict';
const { connected, fake, turns, OSSAError, RedisEventBus } = require('./bus');

let bus;
let native;
beforeEach(async () => {
  ({ bus, native } = await connected());
});
afterEach(() => bus.disconnect());

test('a thousand publishes of one turn cross once and resolve with their own ids', async () => {
  const ids = await Promise.all(Array.from({ length: 1000 }, (_, n) => bus.publish('a.b', { n })));
  expect(native.published).toHaveLength(1);
  expect(ids).toEqual(Array.from({ length: 1000 }, (_, n) => `id-${n}`));
  expect(native.records[999]).toEqual(['a.b', '', '{"n":999}']);
});

test('a thousand loops that each await their publish still cross once a round', async () => {
  await Promise.all(
    Array.from({ length: 1000 }, async () => {
      for (let round = 0; round < 3; round++) await bus.publish('a.b', round);
    }),
  );
  expect(native.published).toHaveLength(3);
});

test('the text crosses early when it grows large, in order', async () => {
  const large = 'x'.repeat(20_000);
  const all = Array.from({ length: 8 }, (_, n) => bus.publish('a', n + large));
  expect(native.published).toHaveLength(2);
  expect(await Promise.all(all)).toEqual(Array.from({ length: 8 }, (_, n) => `id-${n}`));
});

test('results in any order find their promise', async () => {
  native.auto = false;
  const all = [bus.publish('a', 1), bus.publish('a', 2), bus.publish('a', 3)];
  await turns();
  native.onPublished(
    Uint32Array.of(2, 0),
    ['two', 'zero'],
    JSON.stringify([[1, { code: 'ERR_BACKPRESSURE', message: 'full', retryable: true, details: { limit: 2 } }]]),
  );
  const [zero, one, two] = await Promise.allSettled(all);
  expect([zero.value, two.value]).toEqual(['zero', 'two']);
  expect(one.reason).toBeInstanceOf(OSSAError);
  expect(one.reason).toMatchObject({
    name: 'OSSAError',
    code: 'ERR_BACKPRESSURE',
    message: 'full',
    retryable: true,
    details: { limit: 2 },
  });
});

test('ids come one behind the other, and what is none by itself', async () => {
  native.auto = false;
  const all = [bus.publish('a', 1), bus.publish('a', 2)];
  await turns();
  const ids = ['0190a7c3-0000-7000-8000-000000000001', '0190a7c3-0000-7000-8000-000000000002'];
  native.onStored(Uint32Array.of(1, 0), ids.join(''));
  expect(await Promise.all(all)).toEqual([ids[1], ids[0]]);
});

test('tokens go on from where they were over many blocks', async () => {
  native.auto = false;
  const first = bus.publish('a', 'waits');
  await turns();
  for (let round = 0; round < 5; round++) {
    const all = Array.from({ length: 700 }, () => bus.publish('a', 1));
    await turns();
    native.answer(native.published.at(-1).firstToken, 700);
    await Promise.all(all);
  }
  expect(native.published.at(-1).firstToken).toBe(1 + 4 * 700);
  native.answer(0, 1);
  expect(await first).toBe('id-0');
});

test('undefined is null, a Date its ISO string', async () => {
  await bus.publish('a', undefined);
  await bus.publish('a', { at: new Date(0), none: undefined });
  expect(native.records.map((record) => record[2])).toEqual(['null', '{"at":"1970-01-01T00:00:00.000Z"}']);
});

const circular = { list: [{}] };
circular.list[0].back = circular;
let deep = [];
for (let i = 0; i < 100_000; i++) deep = [deep];
test.each([
  ['a BigInt', { a: [0, { 'b c': 1n }] }, 'data.a[1]["b c"]', /BigInt/],
  ['a circle', circular, 'data.list[0].back', /circle/],
  [
    'a throwing toJSON',
    {
      x: {
        toJSON() {
          throw new Error('no way');
        },
      },
    },
    'data.x',
    /no way/,
  ],
  [
    'a throwing getter',
    {
      get y() {
        throw new Error('closed door');
      },
    },
    'data.y',
    /closed door/,
  ],
  ['a function', () => 1, 'data', /function/],
  ['a symbol', Symbol('s'), 'data', /symbol/],
  ['toJSON without an answer', { toJSON() {} }, 'data', /toJSON/],
  ['100,000 levels', deep, expect.any(String), /nested|deep/],
])('data with %s is refused with its path', async (_, data, path, message) => {
  const error = await bus.publish('a', data).catch((e) => e);
  expect(error).toMatchObject({ code: 'ERR_NOT_SERIALIZABLE', details: { path } });
  expect(error.message).toMatch(message);
  expect(native.published).toHaveLength(0);
});

test('data longer than the limit is refused before it crosses', async () => {
  await bus.disconnect();
  ({ bus, native } = await connected({ limits: { maxPayloadBytes: 10 } }));
  await expect(bus.publish('a', 'x'.repeat(9))).rejects.toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE', details: { limit: 10 } });
  await expect(bus.publish('a', 'x'.repeat(8))).resolves.toBe('id-0');
});

test.each([[''], ['a b'], ['x'.repeat(257)], ['a\tb'], [undefined], [null], [7], [{}]])(
  'the type %p is refused by a rejection',
  async (type) => {
    await expect(bus.publish(type, 1)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(native.published).toHaveLength(0);
  },
);

test('a name is checked by the addon once', async () => {
  const check = jest.spyOn(fake, 'checkName');
  await bus.publish('only.once', 1);
  await bus.publish('only.once', 1);
  expect(check.mock.calls.filter(([, name]) => name === 'only.once')).toHaveLength(1);
});

test('options cross as JSON, times as ms, what JSON cannot say marked', async () => {
  await bus.publish('a', 1, {});
  await bus.publish('a', 1, { ttl: 5, priority: 'high', correlationId: undefined });
  await bus.publish('a', 1, { deliverAt: new Date(5), retry: { maxAttempts: Infinity }, tags: ['t\n'], bad: () => 1 });
  expect(native.records.map((record) => (record[1] === '' ? '' : JSON.parse(record[1])))).toEqual([
    '',
    { ttl: 5, priority: 'high' },
    { deliverAt: 5, retry: { maxAttempts: { $invalid: 'Infinity' } }, tags: ['t\n'], bad: { $invalid: 'function' } },
  ]);
});

test.each([['x'], [[]], [{ deliverAt: 5 }], [{ deliverAt: new Date(NaN) }], [{ deliverAt: 'tomorrow' }], [{ signal: {} }]])(
  'options %p are refused by a rejection',
  async (options) => {
    await expect(bus.publish('a', 1, options)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  },
);

describe('with a signal', () => {
  test('aborted before: nothing crosses', async () => {
    await expect(bus.publish('a', 1, { signal: AbortSignal.abort('why') })).rejects.toMatchObject({ code: 'ERR_ABORTED', cause: 'why' });
    expect(native.published).toHaveLength(0);
  });

  test('aborted in the same turn: all but that one cross, under their own tokens', async () => {
    const control = new AbortController();
    const all = [
      bus.publish('a', 0),
      bus.publish('a', 1, { signal: control.signal }),
      bus.publish('a', 2),
      bus.publish('a', 3, { signal: control.signal }),
    ];
    control.abort();
    const results = await Promise.allSettled(all);
    expect(results.map((r) => r.value ?? r.reason.code)).toEqual(['id-0', 'ERR_ABORTED', 'id-2', 'ERR_ABORTED']);
    expect(native.records.map((record) => record[2])).toEqual(['0', '2']);
    expect(native.cancelled).toEqual([]);
  });

  test('aborted while waiting: rejected at once, and the engine is told', async () => {
    native.auto = false;
    const control = new AbortController();
    const publish = bus.publish('a', 1, { signal: control.signal });
    await turns();
    control.abort();
    await expect(publish).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(native.cancelled).toEqual([0]);
    native.answer(0, 1);
  });

  test('a long-lived signal keeps no listener of what is done', async () => {
    const control = new AbortController();
    const remove = jest.spyOn(control.signal, 'removeEventListener');
    await bus.publish('a', 1, { signal: control.signal });
    expect(remove).toHaveBeenCalledTimes(1);
    control.abort();
    expect(native.cancelled).toEqual([]);
  });
});

describe('publishBatch', () => {
  test('resolves with all ids in order, in one crossing', async () => {
    const ids = await bus.publishBatch([
      { eventType: 'a', data: 1 },
      { eventType: 'b', data: 2, options: { ttl: 1 } },
    ]);
    expect(ids).toEqual(['id-0', 'id-1']);
    expect(native.published).toHaveLength(1);
    expect(await bus.publishBatch([])).toEqual([]);
  });

  test('tells of each event when one fails', async () => {
    const error = await bus
      .publishBatch([{ eventType: 'a', data: 1 }, { eventType: 'a', data: 1n }, null, { eventType: 'b', data: 2 }])
      .catch((e) => e);
    expect(error).toMatchObject({ code: 'ERR_NOT_SERIALIZABLE', retryable: false, message: expect.stringMatching(/2 of 4.*events\[1\]/) });
    expect(error.details.results).toEqual([
      { id: 'id-0' },
      { error: expect.objectContaining({ code: 'ERR_NOT_SERIALIZABLE' }) },
      { error: expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }) },
      { id: 'id-1' },
    ]);
  });

  test.each([[undefined], ['x'], [{}]])('%p is refused', async (events) => {
    await expect(bus.publishBatch(events)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});

test('before connect and after disconnect publishing is refused, each with its code', async () => {
  const fresh = new RedisEventBus();
  await expect(fresh.publish('a', 1)).rejects.toMatchObject({ code: 'ERR_NOT_INITIALIZED', message: expect.stringMatching(/connect\(\)/) });
  await bus.disconnect();
  await expect(bus.publish('a', 1)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
});

test('publishes that the engine never answered are rejected at disconnect', async () => {
  native.auto = false;
  const publish = bus.publish('a', 1);
  await Promise.all([expect(publish).rejects.toMatchObject({ code: 'ERR_CLOSED' }), bus.disconnect()]);
});

test('an addon that throws rejects the batch and not the program', async () => {
  native.publish = () => {
    throw new Error('broken');
  };
  const results = await Promise.allSettled([bus.publish('a', 1), bus.publish('a', 2)]);
  expect(results.map((r) => r.reason.code)).toEqual(['ERR_INTERNAL', 'ERR_INTERNAL']);
});

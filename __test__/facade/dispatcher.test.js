'use strict';
const { connected, turns, sleep, until, OSSAError } = require('./bus');

let bus;
let native;
beforeEach(async () => {
  ({ bus, native } = await connected());
});
afterEach(() => bus.disconnect());

test('payload and context are what the contract says, made in this realm', async () => {
  const got = [];
  await bus.subscribe('a.*', (payload, context) => void got.push([payload, context]), { group: 'g' });
  native.deliver(1, {
    type: 'a.b',
    data: { list: [1] },
    attempt: 2,
    flags: 1,
    ms: 1700000000123,
    seq: 7,
    meta: {
      id: 'i',
      target: 't',
      correlationId: 'c',
      causationId: 'k',
      partitionKey: 'p',
      ttl: 5,
      dttl: undefined,
      retry: { maxAttempts: 1 },
      tags: ['x'],
      headers: { h: '1' },
    },
  });
  const [[payload, context]] = got;
  expect(payload).toEqual({
    metadata: {
      id: 'i',
      type: 'a.b',
      source: 's',
      target: 't',
      timestamp: new Date(1700000000123),
      correlationId: 'c',
      causationId: 'k',
      version: '1.0.0',
      priority: 'normal',
      ttl: 5,
      retry: { maxAttempts: 1, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000, jitter: 'equal' },
      tags: ['x'],
      headers: { h: '1' },
      partitionKey: 'p',
      attempt: 2,
    },
    data: { list: [1] },
  });
  expect(payload.metadata.timestamp).toBeInstanceOf(Date);
  expect(payload.data.list).toBeInstanceOf(Array);
  expect(context).toMatchObject({ group: 'default', streamId: '1700000000123-7', attempt: 2, redelivered: true });
  expect(context.signal).toBeInstanceOf(AbortSignal);
  expect(context.signal).toBe(context.signal);
});

test('only the keys that an event has are in its metadata', async () => {
  const got = [];
  await bus.subscribe('a', (payload) => void got.push(payload));
  native.deliver(1, { meta: { dttl: undefined } });
  expect(Object.keys(got[0].metadata)).toEqual(['id', 'type', 'source', 'timestamp', 'version', 'priority', 'attempt']);
});

test('metadata that cross apart, beside others that do not, are the same', async () => {
  const got = [];
  await bus.subscribe('a', (payload) => void got.push(payload));
  const metas = [{}, { dttl: undefined }, { dttl: undefined, ttl: 0 }, { source: 'é"' }, { tags: ['x'], headers: { a: 'b' }, target: 't' }];
  const events = metas.flatMap((meta, n) =>
    [true, false, true].map((apart) => ({ apart, data: n, meta: { id: `e${n}`, timestamp: 1_700_000_000_000 + n, ...meta } })),
  );
  native.deliver(1, ...events);
  expect(got).toHaveLength(events.length);
  for (let n = 0; n < got.length; n += 3) {
    const [first, whole, again] = got.slice(n, n + 3);
    expect(JSON.stringify(first)).toBe(JSON.stringify(whole));
    expect(again).toEqual(whole);
    expect(first.metadata.timestamp).toBeInstanceOf(Date);
    first.metadata.source = 'changed';
    first.metadata.tags?.push('changed');
    expect(again).toEqual(whole);
  }
});

test("a '__proto__' in the data stays a property of its own", async () => {
  const got = [];
  await bus.subscribe('a', ({ data }) => void got.push(data));
  native.deliver(1, { text: '{"__proto__":{"polluted":true}}' });
  expect(Object.getPrototypeOf(got[0])).toBe(Object.prototype);
  expect(Object.keys(got[0])).toEqual(['__proto__']);
  expect(got[0].polluted).toBeUndefined();
});

test('handlers are called in the order of the rows and settled in one crossing', async () => {
  const order = [];
  await bus.subscribe('a', async ({ data }) => void order.push(data));
  await bus.subscribe('a', ({ data }) => void order.push(-data));
  native.deliver(1, { data: 1 }, { data: 2, subscription: 2 }, { data: 3 });
  expect(order).toEqual([1, -2, 3]);
  await turns();
  expect(native.settled).toEqual([{ done: [2, 1, 3], failed: [], confirm: 0 }]);
});

const hostile = {
  get message() {
    throw new Error('x');
  },
  toString() {
    throw new Error('y');
  },
};
test.each([
  ['an Error', new Error('boom'), 'boom', []],
  ['a text', 'just text', 'just text', []],
  ['undefined', undefined, 'undefined', []],
  ['null', null, 'null', []],
  ['a symbol', Symbol('s'), 'Symbol(s)', []],
  ['an object without prototype', Object.create(null), 'a value that cannot be shown', []],
  ['an object that throws when shown', hostile, 'a value that cannot be shown', []],
  ['a permanent error', Object.assign(new Error('never'), { permanent: true }), 'never', [{ permanent: true }]],
  ['an error that is almost permanent', Object.assign(new Error('maybe'), { permanent: 1 }), 'maybe', []],
])('a handler that throws %s fails its delivery, sync and async', async (_, value, message, options) => {
  await bus.subscribe('a', () => {
    throw value;
  });
  await bus.subscribe('a', async () => {
    throw value;
  });
  native.deliver(1, {}, { subscription: 2 }, {});
  await turns();
  expect(native.outcome.failed).toHaveLength(3);
  for (const [, kind, text, ...rest] of native.outcome.failed) expect([kind, text, ...rest]).toEqual(['error', message, ...options]);
});

test('thenables count as promises, and settle once', async () => {
  const kinds = [
    { then: (ok) => ok() },
    { then: (_, fail) => fail(new Error('no')) },
    {
      then: (ok, fail) => {
        ok();
        fail(new Error('late'));
        ok();
      },
    },
    {
      then() {
        throw new Error('in then');
      },
    },
    {
      get then() {
        throw new Error('getting then');
      },
    },
  ];
  await bus.subscribe('a', ({ data }) => kinds[data]);
  native.deliver(1, ...kinds.map((_, data) => ({ data })));
  await turns();
  expect(native.outcome.done).toEqual([1, 3]);
  expect(native.outcome.failed.map(([token, kind, text]) => [token, kind, text])).toEqual([
    [2, 'error', 'no'],
    [4, 'error', 'in then'],
    [5, 'error', 'getting then'],
  ]);
});

test('data that is not JSON is malformed and reaches no handler; the rows after it do', async () => {
  const got = [];
  await bus.subscribe('a', ({ data }) => void got.push(data));
  native.deliver(1, { data: 1 }, { text: '{"a":' }, { text: '' }, { data: 'ü💥' });
  await turns();
  expect(got).toEqual([1, 'ü💥']);
  expect(native.outcome.failed.map(([token, kind]) => [token, kind])).toEqual([
    [2, 'malformed'],
    [3, 'malformed'],
  ]);
  expect(native.outcome.done).toEqual([1, 4]);
});

test('a delivery for nobody is handed back', async () => {
  native.deliver(99, {});
  await turns();
  expect(native.outcome.failed).toEqual([[1, 'back', '']]);
});

test('what comes before the engine said yes waits for it', async () => {
  const got = [];
  let yes;
  native.answers.subscribe = () => new Promise((resolve) => (yes = () => resolve({ group: 'g', consumer: 'c' })));
  const subscribing = bus.subscribe('a', ({ data }, { group }) => void got.push([data, group]));
  await turns();
  native.deliver(1, { data: 1 });
  expect(got).toEqual([]);
  yes();
  await subscribing;
  expect(got).toEqual([[1, 'g']]);
});

test('a refused subscription hands back what came for it', async () => {
  let no;
  native.answers.subscribe = () =>
    new Promise((_, reject) => (no = () => reject({ code: 'ERR_INVALID_ARGUMENT', message: 'no', retryable: false })));
  const subscribing = bus.subscribe('a', () => undefined);
  await turns();
  native.deliver(1, {});
  no();
  await expect(subscribing).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  await turns();
  expect(native.outcome.failed).toEqual([[1, 'back', '']]);
});

describe('time', () => {
  test('a handler past consumerTimeout fails within 20 ms of it, its signal aborted', async () => {
    const signals = [];
    await bus.subscribe(
      'a',
      (_, { signal }) => {
        signals.push(signal);
        return new Promise(() => {});
      },
      { consumerTimeout: 50 },
    );
    // Timers of one thread fire in the order of their times, however slow the machine is.
    const before = sleep(45);
    native.deliver(1, {}, {});
    const after = sleep(75);
    await before;
    expect(native.outcome.failed).toEqual([]);
    await after;
    expect(native.outcome.failed.map(([token, kind]) => [token, kind])).toEqual([
      [1, 'timeout'],
      [2, 'timeout'],
    ]);
    expect(native.outcome.failed[0][2]).toMatch(/consumerTimeout \(50 ms\)/);
    expect(signals[0].aborted).toBe(true);
    expect(signals[0].reason).toMatchObject({ code: 'ERR_HANDLER_TIMEOUT' });
  });

  test('a signal first looked at after the timeout is aborted already', async () => {
    let late;
    await bus.subscribe(
      'a',
      async (_, context) => {
        await sleep(40);
        late = context.signal.aborted;
      },
      { consumerTimeout: 15 },
    );
    native.deliver(1, {});
    await until(() => late !== undefined);
    expect(late).toBe(true);
  });

  test('a late end is still told: success and failure', async () => {
    await bus.subscribe(
      'a',
      async ({ data }) => {
        await sleep(40);
        if (data) throw new Error('late');
      },
      { consumerTimeout: 15 },
    );
    native.deliver(1, { data: 0 }, { data: 1 });
    await until(() => native.outcome.done.length === 1 && native.outcome.failed.length === 3);
    expect(native.outcome.failed.map(([token, kind]) => `${token} ${kind}`)).toEqual(['1 timeout', '2 timeout', '2 error']);
    expect(native.outcome.done).toEqual([1]);
  });

  test('extend gives more time', async () => {
    await bus.subscribe(
      'a',
      async ({ data }, { extend }) => {
        if (data) extend(150);
        await sleep(80);
      },
      { consumerTimeout: 40 },
    );
    native.deliver(1, { data: 0 }, { data: 1 });
    await until(() => native.outcome.done.length === 2);
    expect(native.outcome.failed.map(([token, kind]) => [token, kind])).toEqual([[1, 'timeout']]);
  });

  test.each([[NaN], [-1], ['5'], [undefined], [Infinity]])('extend(%p) throws in the handler', async (ms) => {
    await bus.subscribe('a', (_, { extend }) => extend(ms));
    native.deliver(1, {});
    await turns();
    expect(native.outcome.failed[0].slice(1, 3)).toEqual(['error', expect.stringMatching(/^ms: /)]);
  });

  test('a handler in time has no timeout', async () => {
    await bus.subscribe('a', () => sleep(10), { consumerTimeout: 30 });
    native.deliver(1, {}, {});
    await sleep(70);
    expect(native.outcome).toEqual({ done: [1, 2], failed: [] });
  });
});

test('faked timers of a test tool change nothing', async () => {
  jest.useFakeTimers();
  try {
    await bus.subscribe('a', () => new Promise(() => {}), { consumerTimeout: 20 });
    expect(await bus.publish('a', 1)).toBe('id-0');
    native.deliver(1, {});
    const timers = require('node:timers/promises');
    for (let i = 0; i < 50 && native.outcome.failed.length === 0; i++) await timers.setTimeout(5);
    expect(native.outcome.failed[0].slice(0, 2)).toEqual([1, 'timeout']);
  } finally {
    jest.useRealTimers();
  }
});

describe('by hand (autoAck: false)', () => {
  const subscribe = (handler, options) => bus.subscribe('a', handler, { autoAck: false, ...options });

  test('returning settles nothing; ack() resolves once it is stored', async () => {
    native.auto = false;
    const contexts = [];
    await subscribe((_, context) => void contexts.push(context));
    native.deliver(1, {});
    await turns();
    expect(native.settled).toEqual([]);
    let stored = false;
    const { ack } = contexts[0];
    const acking = ack().then(() => (stored = true));
    await turns();
    expect(native.settled).toEqual([{ done: [1], failed: [], confirm: 1 }]);
    expect(stored).toBe(false);
    native.onSettled(Uint32Array.of(1), '');
    await acking;
    await expect(contexts[0].ack()).resolves.toBeUndefined();
    expect(native.settled).toHaveLength(1);
  });

  test('ack() rejects with what the store said', async () => {
    native.auto = false;
    let acking;
    await subscribe((_, { ack }) => void (acking = ack()));
    native.deliver(1, {});
    await turns();
    native.onSettled(new Uint32Array(), JSON.stringify([[1, { code: 'ERR_CONNECTION', message: 'away', retryable: true }]]));
    await expect(acking).rejects.toMatchObject({ code: 'ERR_CONNECTION', retryable: true });
  });

  test('nack() carries its options; after it ack() is refused, and the other way round', async () => {
    const results = [];
    await subscribe(async ({ data }, context) => {
      const [first, second] = data ? ['ack', 'nack'] : ['nack', 'ack'];
      await context[first](data ? undefined : { delayMs: 5, reason: 'later' });
      await context[first]();
      results.push(await context[second]().catch((error) => [error.code, error.message]));
    });
    native.deliver(1, { data: 0 }, { data: 1 });
    await until(() => results.length === 2);
    expect(native.outcome).toEqual({ done: [2], failed: [[1, 'nack', 'later', { delayMs: 5, reason: 'later' }]] });
    for (const [code] of results) expect(code).toBe('ERR_INVALID_ARGUMENT');
  });

  test.each([[{ delayMs: -1 }], [{ delayMs: '5' }], [{ deadLetters: true }], [{ reason: 5 }], ['x'], [null]])(
    'nack(%p) is refused and settles nothing',
    async (options) => {
      let error;
      await subscribe(async (_, { nack }) => (error = await nack(options).catch((e) => e)));
      native.deliver(1, {});
      await turns();
      expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
      expect(native.settled).toEqual([]);
    },
  );

  test('the time runs on after the handler returned, and a late ack() counts', async () => {
    let context;
    await subscribe((_, c) => void (context = c), { consumerTimeout: 20 });
    native.deliver(1, {});
    await until(() => native.outcome.failed.length === 1);
    await context.ack();
    expect(native.outcome).toEqual({ done: [1], failed: [[1, 'timeout', expect.any(String)]] });
  });

  test('throwing fails the delivery; ack() after that is refused', async () => {
    let context;
    await subscribe((_, c) => {
      context = c;
      throw new Error('no');
    });
    native.deliver(1, {});
    await expect(context.ack()).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT', message: expect.stringMatching(/already failed/) });
  });

  test('throwing after ack() is logged, not settled', async () => {
    const errors = [];
    const logger = { debug() {}, info() {}, warn() {}, error: (m) => errors.push(m) };
    const other = await connected({ logger });
    await other.bus.subscribe(
      'a',
      async (_, { ack }) => {
        await ack();
        throw new Error('after');
      },
      { autoAck: false },
    );
    other.native.deliver(1, {});
    await until(() => errors.length === 1);
    expect(errors[0]).toMatch(/after/);
    expect(other.native.outcome.failed).toEqual([]);
    await other.bus.disconnect();
  });

  test('who waits for ack() at disconnect is told', async () => {
    native.auto = false;
    let acking;
    await subscribe((_, { ack }) => void (acking = ack()));
    native.deliver(1, {});
    await Promise.all([expect(acking).rejects.toMatchObject({ code: 'ERR_CLOSED' }), turns().then(() => bus.disconnect())]);
  });
});

test('fail() is for batch handlers', async () => {
  let error;
  await bus.subscribe('a', (_, { fail }) => {
    try {
      fail(0, new Error('x'));
    } catch (e) {
      error = e;
    }
  });
  native.deliver(1, {});
  expect(error).toBeInstanceOf(OSSAError);
});

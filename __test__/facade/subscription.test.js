'use strict';
const { connected, turns, sleep, until } = require('./bus');

let bus;
let native;
beforeEach(async () => {
  ({ bus, native } = await connected());
});
afterEach(() => bus.disconnect());

const calls = (method) => native.calls.filter(([name]) => name === method).map(([, args]) => args);

test('subscribe passes options on, signal taken out, times as ms, what JSON cannot say marked', async () => {
  const subscription = await bus.subscribe('a', () => 1, {
    group: 'g',
    startFrom: 'timestamp',
    startTimestamp: new Date(5),
    concurrency: NaN,
    odd: true,
    signal: new AbortController().signal,
  });
  expect(calls('subscribe')).toEqual([
    {
      id: 1,
      eventType: 'a',
      iterator: false,
      options: { group: 'g', startFrom: 'timestamp', startTimestamp: 5, concurrency: { $invalid: 'NaN' }, odd: true },
    },
  ]);
  expect(subscription).toMatchObject({ eventType: 'a', group: 'default', consumer: 'me' });
});

test.each([
  [[5]],
  [['a', 5]],
  [['a', {}]],
  [['a', () => 1, 5]],
  [['a', () => 1, []]],
  [['a', () => 1, { signal: 5 }]],
  [['a', () => 1, { startTimestamp: 5 }]],
])('subscribe%p is refused by a rejection', async (args) => {
  await expect(bus.subscribe(...args)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  expect(calls('subscribe')).toEqual([]);
});

test('paused: deliveries go back; resumed: they come', async () => {
  const got = [];
  const subscription = await bus.subscribe('a', ({ data }) => void got.push(data));
  subscription.pause();
  subscription.pause();
  native.deliver(1, { data: 1 });
  await turns();
  subscription.resume();
  native.deliver(1, { data: 2 });
  await turns();
  expect(got).toEqual([2]);
  expect(native.outcome).toEqual({ done: [2], failed: [[1, 'back', '']] });
  expect(native.calls.slice(-2)).toEqual([
    ['pause', { id: 1 }],
    ['resume', { id: 1 }],
  ]);
});

test('a handler that pauses its subscription hands back the rest of the batch', async () => {
  const subscription = await bus.subscribe('a', () => subscription.pause());
  native.deliver(1, {}, {}, {});
  await turns();
  expect(native.outcome).toEqual({
    done: [1],
    failed: [
      [2, 'back', ''],
      [3, 'back', ''],
    ],
  });
});

test('close waits for the engine, once, and takes nothing more', async () => {
  let closed = false;
  let over;
  const got = [];
  native.answers.unsubscribe = () => new Promise((resolve) => (over = () => resolve({})));
  const subscription = await bus.subscribe('a', () => void got.push(1));
  const closing = subscription.close({ drainTimeoutMs: 50 }).then(() => (closed = true));
  native.deliver(1, {});
  await turns();
  expect([closed, got.length, native.outcome.failed]).toEqual([false, 0, [[1, 'back', '']]]);
  over();
  await Promise.all([closing, subscription.close(), subscription[Symbol.asyncDispose]()]);
  expect(calls('unsubscribe')).toEqual([{ id: 1, drainTimeoutMs: 50 }]);
});

test.each([[{ drainTimeoutMs: -1 }], [{ drainTimeoutMs: '1' }], [{ drainTimeoutMs: NaN }], [{ drain: 1 }], [5]])(
  'close(%p) and disconnect(%p) are refused by a rejection',
  async (options) => {
    const subscription = await bus.subscribe('a', () => 1);
    await expect(subscription.close(options)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(bus.disconnect(options)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  },
);

test('close aborts the signals of handlers under way; who gives up for that reason has not failed', async () => {
  const reasons = [];
  const subscription = await bus.subscribe(
    'a',
    ({ data }, { signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          reasons.push(signal.reason.code);
          reject(data === 0 ? signal.reason : data === 1 ? Object.assign(new Error(), { name: 'AbortError' }) : new Error('of its own'));
        }),
      ),
  );
  native.deliver(1, { data: 0 }, { data: 1 }, { data: 2 });
  await subscription.close();
  await turns();
  expect(reasons).toEqual(['ERR_CLOSED', 'ERR_CLOSED', 'ERR_CLOSED']);
  expect(native.outcome.failed).toEqual([
    [1, 'back', ''],
    [2, 'back', ''],
    [3, 'error', 'of its own'],
  ]);
});

describe('an AbortSignal', () => {
  test('closes the subscription', async () => {
    const control = new AbortController();
    await bus.subscribe('a', () => 1, { signal: control.signal });
    control.abort();
    await turns();
    expect(calls('unsubscribe')).toEqual([{ id: 1 }]);
  });

  test('aborted before or meanwhile: no subscription', async () => {
    await expect(bus.subscribe('a', () => 1, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(calls('subscribe')).toEqual([]);
    const control = new AbortController();
    const subscribing = bus.subscribe('a', () => 1, { signal: control.signal });
    control.abort();
    await expect(subscribing).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(calls('unsubscribe')).toHaveLength(1);
  });

  test('is let go of at close', async () => {
    const control = new AbortController();
    const remove = jest.spyOn(control.signal, 'removeEventListener');
    await (await bus.subscribe('a', () => 1, { signal: control.signal })).close();
    expect(remove).toHaveBeenCalled();
    control.abort();
    await turns();
    expect(calls('unsubscribe')).toHaveLength(1);
  });
});

describe('from inside a handler', () => {
  /** An engine that answers only when all its deliveries are settled, as the real one does. */
  const drain = (count) => () => until(() => native.outcome.done.length === count).then(() => ({}));

  test.each([
    ['at once', 0],
    ['after an await', 20],
  ])('closing its own subscription %s does not wait for itself', async (_, pause) => {
    native.answers.unsubscribe = drain(1);
    let after = false;
    const subscription = await bus.subscribe('a', async () => {
      if (pause) await sleep(pause);
      await subscription.close();
      after = true;
    });
    native.deliver(1, {});
    await until(() => after);
    await turns();
    expect(native.outcome).toEqual({ done: [1], failed: [] });
  });

  test.each([
    ['at once', 0],
    ['after an await', 20],
  ])('shutting its own bus down %s does not wait for itself', async (_, pause) => {
    native.answers.disconnect = drain(1);
    let after = false;
    await bus.subscribe('a', async () => {
      if (pause) await sleep(pause);
      await bus.disconnect();
      after = true;
    });
    native.deliver(1, {});
    await until(() => after);
    await bus.disconnect();
    expect(native.outcome).toEqual({ done: [1], failed: [] });
  });

  test('it does wait for the other handlers', async () => {
    native.answers.unsubscribe = drain(2);
    const order = [];
    const subscription = await bus.subscribe('a', async ({ data }) => {
      if (data === 0) {
        await sleep(40);
        order.push('other');
      } else {
        await subscription.close();
        order.push('closer');
      }
    });
    native.deliver(1, { data: 0 }, { data: 1 });
    await until(() => order.length === 2);
    expect(order).toEqual(['other', 'closer']);
  });

  test('publishing while the bus drains is taken', async () => {
    native.answers.disconnect = drain(1);
    let id;
    await bus.subscribe('a', async () => {
      await sleep(20);
      id = await bus.publish('b', 1);
    });
    native.deliver(1, {});
    await bus.disconnect();
    expect(id).toBe('id-0');
  });
});

test('unsubscribe closes those of the type, or those of the type and handler', async () => {
  const handler = () => 1;
  await bus.subscribe('a', handler);
  await bus.subscribe('a', () => 2);
  await bus.subscribe('b', handler);
  await bus.unsubscribe('a', handler);
  expect(calls('unsubscribe')).toEqual([{ id: 1 }]);
  await bus.unsubscribe('a');
  expect(calls('unsubscribe')).toEqual([{ id: 1 }, { id: 2 }]);
  await bus.unsubscribe('nobody');
  await expect(bus.unsubscribe(5)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
});

describe('async iteration', () => {
  test('an event is acknowledged when the next is asked for; leaving hands the current one back and closes', async () => {
    const subscription = await bus.subscribe('a');
    expect(calls('subscribe')[0].iterator).toBe(true);
    native.deliver(1, { data: 0 }, { data: 1 }, { data: 2 }, { data: 3 });
    const got = [];
    for await (const event of subscription) {
      got.push(event.data);
      expect(native.outcome.done).toEqual(native.outcome.done.slice(0, got.length - 1));
      if (event.data === 2) break;
    }
    await turns();
    expect(got).toEqual([0, 1, 2]);
    expect(native.outcome).toEqual({
      done: [1, 2],
      failed: [
        [3, 'back', ''],
        [4, 'back', ''],
      ],
    });
    expect(calls('unsubscribe')).toEqual([{ id: 1 }]);
  });

  test('waits for events, and ends when the subscription is closed', async () => {
    const subscription = await bus.subscribe('a', null);
    const got = [];
    const loop = (async () => {
      for await (const event of subscription) got.push(event);
    })();
    await turns();
    native.deliver(1, { data: 'x' });
    await until(() => got.length === 1);
    expect(got[0].metadata).toMatchObject({ type: 'a', attempt: 1 });
    expect(Object.keys(got[0])).toEqual(['metadata', 'data']);
    await subscription.close();
    await loop;
    await turns();
    expect(native.outcome.done).toEqual([1]);
    expect(await subscription[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined });
  });

  test('closing or shutting down from the loop ends it', async () => {
    const subscription = await bus.subscribe('a');
    native.deliver(1, {}, {});
    let rounds = 0;
    for await (const _ of subscription) {
      rounds++;
      await subscription.close();
    }
    await turns();
    expect(rounds).toBe(1);
    expect(native.outcome).toEqual({ done: [1], failed: [[2, 'back', '']] });
  });

  test('what was settled by hand stays so', async () => {
    const subscription = await bus.subscribe('a', undefined, { autoAck: false });
    native.deliver(1, { data: 0 }, { data: 1 }, { data: 2 });
    for await (const event of subscription) {
      if (event.data === 0) await event.ack();
      if (event.data === 1) await event.nack({ deadLetter: true });
      if (event.data === 2) {
        await event.ack();
        break;
      }
    }
    await turns();
    expect(native.outcome).toEqual({ done: [1, 3], failed: [[2, 'nack', '', { deadLetter: true }]] });
  });

  test('an error in the body hands the event back', async () => {
    const subscription = await bus.subscribe('a');
    native.deliver(1, {});
    await expect(
      (async () => {
        for await (const _ of subscription) throw new Error('body');
      })(),
    ).rejects.toThrow('body');
    await turns();
    expect(native.outcome).toEqual({ done: [], failed: [[1, 'back', '']] });
  });

  test('the time of an event begins when the loop gets it', async () => {
    const subscription = await bus.subscribe('a', null, { consumerTimeout: 30 });
    native.deliver(1, { data: 0 }, { data: 1 });
    await sleep(60);
    expect(native.outcome.failed).toEqual([]);
    for await (const event of subscription) {
      if (event.data === 1) break;
      await until(() => native.outcome.failed.length > 0);
    }
    expect(native.outcome.failed[0].slice(0, 2)).toEqual([1, 'timeout']);
  });

  test('a subscription with a handler cannot be iterated', async () => {
    const subscription = await bus.subscribe('a', () => 1);
    expect(() => subscription[Symbol.asyncIterator]()).toThrow(/without/);
  });
});

'use strict';
const { OSSAError } = require('../../dist');
const { Outbox } = require('../../dist/outbox');

const away = new OSSAError('away', { code: 'ERR_CONNECTION', retryable: true });

/** An outbox whose attempts and timers are in the test's hands. */
function made() {
  const timers = [];
  const clock = {
    now: () => 0,
    after(ms, run) {
      const timer = { ms, run, cancelled: false, cancel: () => (timer.cancelled = true) };
      timers.push(timer);
      return timer;
    },
  };
  const attempts = [];
  const keeps = [];
  const troubles = [];
  const publish = (...event) => new Promise((resolve, reject) => attempts.push({ event, resolve, reject }));
  const outbox = new Outbox(publish, clock, { set: (holds) => keeps.push(holds) }, (error) => troubles.push(error));
  return { outbox, timers, attempts, keeps, troubles };
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('an event is tried after longer and longer pauses, by one key; its first error alone is told', async () => {
  const { outbox, timers, attempts, troubles } = made();
  const { sent } = outbox.post('t', { n: 1 }, 'c');
  for (let i = 0; i < 8; i++) {
    attempts.at(-1).reject(away);
    await turn();
    timers.at(-1).run();
    await turn();
  }
  attempts.at(-1).resolve('id');
  expect(await sent).toBe('stored');
  expect(timers.map(({ ms }) => ms)).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  expect(new Set(attempts.map(({ event }) => JSON.stringify(event))).size).toBe(1);
  expect(attempts[0].event).toEqual([
    't',
    { n: 1 },
    { correlationId: 'c', idempotencyKey: expect.any(String), idempotencyWindowMs: 600000 },
  ]);
  expect(troubles).toEqual([away]);
});

test('Node is kept alive while there are events', async () => {
  const { outbox, attempts, keeps } = made();
  const posts = [outbox.post('t', {}), outbox.post('t', {}, null)];
  expect(keeps).toEqual([true, true]);
  attempts[0].resolve();
  await posts[0].sent;
  expect(keeps).toEqual([true, true]);
  attempts[1].resolve();
  await posts[1].sent;
  await turn();
  expect(keeps).toEqual([true, true, false]);
});

test('what never can be stored is not tried again', async () => {
  for (const code of ['ERR_NOT_SERIALIZABLE', 'ERR_PAYLOAD_TOO_LARGE', 'ERR_INVALID_ARGUMENT']) {
    const { outbox, attempts, timers } = made();
    const error = new OSSAError('never', { code });
    const { sent } = outbox.post('t', {});
    attempts[0].reject(error);
    expect(await sent).toBe(error);
    expect(timers).toEqual([]);
  }
});

test('a bus that was closed ends it', async () => {
  const { outbox, attempts } = made();
  const { sent } = outbox.post('t', {});
  attempts[0].reject(new OSSAError('closed', { code: 'ERR_CLOSED' }));
  expect(await sent).toBe('dropped');
});

test('empty() waits for all, but not for ever', async () => {
  const { outbox, attempts, timers } = made();
  await outbox.empty(50);
  const { sent } = outbox.post('t', {});
  const [one, other] = [outbox.empty(50), outbox.empty(60)];
  expect(timers.map(({ ms }) => ms)).toEqual([50, 60]);
  timers[0].run();
  await one;
  attempts[0].resolve();
  await Promise.all([sent, other]);
  expect(timers[1].cancelled).toBe(true);
});

test('close() gives those that pause a last attempt; those on their way stay so', async () => {
  const { outbox, attempts } = made();
  const [pausing, going] = [outbox.post('t', 1), outbox.post('t', 2)];
  attempts[0].reject(away);
  await turn();
  outbox.close();
  expect(attempts.map(({ event }) => event[1])).toEqual([1, 2, 1]);
  attempts[1].resolve();
  attempts[2].reject(away);
  expect([await pausing.sent, await going.sent]).toEqual(['dropped', 'stored']);
});

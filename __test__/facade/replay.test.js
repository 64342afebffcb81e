/** replay() over pages that the test plays: how many are asked for, and when. */
'use strict';

const { connected, turns } = require('./bus');

const META = (n) =>
  `{"v":1,"id":"018bcfe5-6800-7000-8000-${String(n).padStart(12, '0')}","timestamp":1700000000000,"source":"s","version":"1","priority":"normal"}`;
const texts = (...numbers) => numbers.flatMap((n) => [META(n), String(n)]);
const asked = (native) => native.calls.filter(([method]) => method === 'replay').map(([, args]) => args);

/** Pages of two events: 0 1, 2 3, … */
function pages(count) {
  return ({ cursor }) => {
    const page = cursor === undefined ? 0 : Number(cursor);
    return { texts: texts(page * 2, page * 2 + 1), cursor: page + 1 < count ? String(page + 1) : null };
  };
}

test('one page is fetched ahead, and no more', async () => {
  const { bus, native } = await connected();
  native.answers.replay = pages(5);
  const iterator = bus.replay('a')[Symbol.asyncIterator]();
  expect(asked(native)).toEqual([]);
  const seen = [];
  for (const pagesAsked of [2, 2, 3, 3, 4, 4, 5, 5, 5, 5]) {
    seen.push((await iterator.next()).value.data);
    await turns();
    expect(asked(native).length).toBe(pagesAsked);
  }
  expect(await iterator.next()).toEqual({ done: true, value: undefined });
  expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(asked(native).map(({ cursor }) => cursor)).toEqual([undefined, '1', '2', '3', '4']);
  await bus.disconnect();
});

test('with a limit no page is fetched that is not needed, and the engine is told how many are', async () => {
  const { bus, native } = await connected();
  native.answers.replay = pages(5);
  const seen = [];
  for await (const { data } of bus.replay('a', { limit: 4, from: new Date(5), to: new Date(6) })) seen.push(data);
  expect(seen).toEqual([0, 1, 2, 3]);
  expect(asked(native)).toEqual([
    { eventType: 'a', from: 5, to: 6, count: 4 },
    { eventType: 'a', from: 5, to: 6, count: 2, cursor: '1' },
  ]);
  await bus.disconnect();
});

test('what is no event makes room for another within the limit', async () => {
  const { bus, native } = await connected();
  const play = pages(5);
  native.answers.replay = (args) => {
    const page = play(args);
    if (args.cursor === undefined) page.texts[1] = '{';
    return page;
  };
  const seen = [];
  for await (const { data } of bus.replay('a', { limit: 2 })) seen.push(data);
  expect(seen).toEqual([1, 2]);
  await bus.disconnect();
});

test('a page without events is not the end', async () => {
  const { bus, native } = await connected();
  native.answers.replay = ({ cursor }) => (cursor === undefined ? { texts: [], cursor: 'x' } : { texts: texts(7), cursor: null });
  const seen = [];
  for await (const { data } of bus.replay('a')) seen.push(data);
  expect(seen).toEqual([7]);
  await bus.disconnect();
});

test('a page ahead that fails is told when it is its turn, and not at all when the loop was left', async () => {
  const { bus, native } = await connected();
  const play = pages(5);
  native.answers.replay = (args) => {
    if (args.cursor !== undefined) throw { code: 'ERR_CONNECTION', message: 'away', retryable: true };
    return play(args);
  };
  for await (const _ of bus.replay('a')) {
    await turns();
    break;
  }
  const seen = [];
  const all = async () => {
    for await (const { data } of bus.replay('a')) seen.push(data);
  };
  await expect(all()).rejects.toMatchObject({ code: 'ERR_CONNECTION', retryable: true });
  expect(seen).toEqual([0, 1]);
  await bus.disconnect();
});

test('a call that the engine does not answer any more ends with the bus', async () => {
  const { bus, native } = await connected();
  native.answers.replay = () => new Promise(() => undefined);
  native.answers.explain = () => new Promise(() => undefined);
  const waiting = [bus.replay('a')[Symbol.asyncIterator]().next(), bus.explain('a', 'i')];
  const outcomes = Promise.allSettled(waiting);
  await turns();
  await bus.disconnect();
  for (const { reason } of await outcomes) expect(reason).toMatchObject({ name: 'OSSAError', code: 'ERR_CLOSED' });
});

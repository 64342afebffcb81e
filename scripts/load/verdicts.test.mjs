/** Runs made by hand: what grows, is missing or went wrong is found, and nothing else is. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { buses } from './plan.mjs';
import { judge } from './verdicts.mjs';

const mebibyte = 2 ** 20;

/** A run of ten minutes in which all goes well; `grow` changes its samples. */
function run(grow = () => ({}), change = {}) {
  const zero = { refused: 0, failed: 0, errors: 0, deadLettered: 0, expired: 0, wrong: 0, lost: 0, disconnected: 0 };
  const sample = (at) => ({
    ...{ at, ...zero, published: at * 300, expected: at * 900, pending: 10, lag: 5, undelivered: 20 },
    ...{ rss: 400 * mebibyte, usedMemory: 40 * mebibyte, files: 600, connectedClients: 500, connections: Array(buses).fill(10) },
    ...grow(at),
  });
  const samples = Array.from({ length: 60 }, (_, n) => sample(10 * (n + 1)));
  return {
    options: { seconds: 600, rate: 300, ttl: 60, levels: true, seed: 1, topology: 'single' },
    ...{ masters: 1, first: sample(0), samples: [...samples, { ...sample(600), at: 'drained' }] },
    ...{ left: [], deadLetters: 0, closed: [true, true, true, true], complaints: [] },
    tally: { published: 180_000, expected: 540_000, handled: 540_000, missing: 0, named: [] },
    ...change,
  };
}

const failed = (facts) => judge(facts).flatMap(({ name, holds }) => (holds === false ? [name] : []));

test('a run in which nothing grows passes', () => assert.deepEqual(failed(run()), []));

test('what grows in the second half is found', () => {
  assert.deepEqual(failed(run((at) => ({ rss: (400 + at / 2) * mebibyte }))), ['RSS of the processes levels off']);
  assert.deepEqual(failed(run((at) => ({ usedMemory: (40 + at / 10) * mebibyte }))), ["Redis' used_memory levels off"]);
  assert.deepEqual(failed(run((at) => ({ files: 600 + at / 30 }))), ['number of open file descriptors levels off']);
  assert.deepEqual(failed(run((at) => ({ connectedClients: 500 + at / 30 }))), ['number of connections to Redis levels off']);
});

test('what grows at the start only is no growth', () =>
  assert.deepEqual(failed(run((at) => ({ rss: Math.min(at, 200) * mebibyte, usedMemory: Math.min(at, 200) * mebibyte }))), []));

test('where there are no file descriptors to count nothing is said of them', () => {
  const verdict = judge(run(() => ({ files: Number.NaN }))).find(({ name }) => name.includes('descriptors'));
  assert.equal(verdict.holds, null);
});

test('a short run is not judged by how it levels off', () => {
  const facts = run((at) => ({ rss: at * mebibyte }));
  facts.options.levels = false;
  assert.deepEqual(failed(facts), []);
});

test('a backlog is found', () => {
  assert.deepEqual(failed(run((at) => ({ lag: at * 10 }))), ['pending and lag at the end']);
  assert.deepEqual(failed(run((at) => ({ undelivered: at * 10 }))), ['published and not handled at the end']);
});

test('a machine that does not keep up is found', () =>
  assert.deepEqual(failed(run((at) => ({ published: at * 200 }))), ['published at the rate']));

test('a bus with more connections than it may have is found', () =>
  assert.deepEqual(failed(run(() => ({ connections: [...Array(buses - 1).fill(10), 100] }))), [
    'connections of each bus within the bound',
  ]));

test('what is missing, left or went wrong is found', () => {
  const tally = { published: 1, expected: 3, handled: 2, missing: 1, named: ['event 1'] };
  assert.deepEqual(failed(run(undefined, { tally })), ['handled by every group that matches']);
  assert.deepEqual(failed(run(undefined, { left: [{ what: 'pending' }] })), ['no event left in a group after the drain']);
  assert.deepEqual(failed(run(undefined, { deadLetters: 2 })), ['no dead letter']);
  assert.deepEqual(failed(run(() => ({ failed: 1 }))), ['no handler failed']);
  assert.deepEqual(failed(run(undefined, { closed: [true, false] })), ['no process that did not end by itself']);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { perEvent } from './callgrind.mjs';
import { compare, differences, table } from './verdict.mjs';

const printed = (events, collected) => `==77== Callgrind, a call-graph generating cache profiler
==77== Command: target/instructions/instructions publish
${events}==77==${' '}
==77== Events    : Ir
==77== Collected : ${collected}
==77==${' '}
==77== I   refs:      123,456
`;

test('what was counted is told for one event', () => {
  assert.equal(perEvent(printed('20000\n', 30_009_999)), 1500);
  assert.equal(perEvent(printed('20000\n', 30_010_000)), 1501);
});

test('a count of nothing is no count', () => {
  assert.throws(() => perEvent(printed('20000\n', 0)), /counted nothing/);
  assert.throws(() => perEvent(printed('20000\n', '')), /counted nothing/);
  assert.throws(() => perEvent(printed('', 1000)), /how many events/);
  assert.throws(() => perEvent(printed('0\n', 1000)), /how many events/);
});

test('a tenth more than the reference passes, anything above it fails', () => {
  const failed = (measured, reference) => compare({ publish: measured }, { publish: reference })[0].failed;
  assert.equal(failed(1000, 1000), false);
  assert.equal(failed(1100, 1000), false);
  assert.equal(failed(1101, 1000), true);
  assert.equal(failed(500, 1000), false);
  // Exact where a tenth is no whole number of binary digits.
  assert.equal(failed(77, 70), false);
  assert.equal(failed(78, 70), true);
});

test('each path is judged for itself, and the difference is that to the reference', () => {
  const rows = compare({ publish: 900, consume: 1200 }, { publish: 1000, consume: 1000 });
  assert.deepEqual(
    rows.map(({ path, failed, percent }) => [path, failed, Math.round(percent)]),
    [
      ['publish', false, -10],
      ['consume', true, 20],
    ],
  );
});

test('a path without a reference fails, and says so', () => {
  const rows = compare({ publish: 900 }, {});
  assert.equal(rows[0].failed, true);
  assert.match(table(rows), /publish +900 +none +FAILED/);
});

test('the table has measured, reference and difference of each path', () => {
  const text = table(compare({ publish: 12_300, reply: 99 }, { publish: 10_000, reply: 100 }));
  assert.match(text, /publish +12,300 +10,000 +\+23\.0 % +FAILED/);
  assert.match(text, /reply +99 +100 +-1\.0 % +ok/);
});

test('what differs between here and the reference is told, and nothing else', () => {
  assert.deepEqual(differences({ rustc: '1.96.0', glibc: '2.36' }, { rustc: '1.95.0', glibc: '2.36', valgrind: '3.19' }), [
    'rustc: 1.96.0 here, 1.95.0 for the reference',
    'valgrind: unknown here, 3.19 for the reference',
  ]);
  assert.deepEqual(differences({ rustc: '1.95.0' }, { rustc: '1.95.0' }), []);
});

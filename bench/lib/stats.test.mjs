import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bend, difference, line, median, quantile, ratio, spread } from './stats.mjs';

test('a ratio is one of figures of the same round, not of their medians', () => {
  const slowing = ratio(spread([100, 40, 10]), spread([50, 10, 5]));
  assert.deepEqual(slowing.rounds, [2, 4, 2]);
  assert.deepEqual([slowing.median, slowing.min, slowing.max], [2, 2, 4]);
  assert.deepEqual(difference(spread([3, 5]), spread([1, 1])).rounds, [2, 4]);
});

test('the median of an even number is between the two middle ones, and a quantile is one of the values', () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([9, 1, 5]), 5);
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.equal(quantile(hundred, 0.5), 51);
  assert.equal(quantile(hundred, 0.99), 100);
});

test('a line has no bend, whatever its offset; a parabola has', () => {
  const xs = [100, 1_000, 10_000, 100_000];
  const points = (y) => xs.map((x) => [x, y(x)]);
  assert.ok(Math.abs(bend(points((x) => 12 + 0.015 * x)) - 1) < 1e-9);
  assert.ok(Math.abs(bend(points((x) => x ** 2)) - 10) < 1e-9);
});

test('the nearest line is the line itself, and small figures count as much as large ones', () => {
  const exact = line([1, 10, 100, 1_000].map((x) => [x, 7 + 2 * x]));
  assert.ok(Math.abs(exact.offset - 7) < 1e-9 && Math.abs(exact.slope - 2) < 1e-9);
  const off = line([
    [0, 10],
    [100, 110],
    [1_000, 1_200],
  ]);
  assert.ok(Math.abs(off.offset - 10) < 1, `the offset is ${off.offset}`);
});

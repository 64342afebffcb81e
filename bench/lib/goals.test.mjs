import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from './goals.mjs';
import { spread } from './stats.mjs';

const figures = (...rounds) => spread(rounds);

function publishing(sides) {
  const cpu = { javascript: figures(2) };
  return { publish: { sides: { ossa: { ...figures(100, 90), cpu }, ioredis: figures(20, 20), BullMQ: figures(10, 10), ...sides } } };
}

const named = (goals, name) => goals.find((goal) => goal.name === name);

test('a goal is reached by the median of the ratios of the rounds', () => {
  const goals = judge(publishing({}));
  const { figure, reached } = named(goals, 'publish, times ioredis');
  assert.equal(figure.median, 4.75);
  assert.ok(reached);
  assert.ok(!named(judge(publishing({ ioredis: figures(20, 30) })), 'publish, times ioredis').reached);
});

test('what was not measured has no row, and what the machine has no program for has one without a figure', () => {
  const goals = judge(publishing({}));
  assert.equal(named(goals, 'consume, times ioredis'), undefined);
  assert.equal(named(goals, 'publishBatch of 100, times publish'), undefined);
  const limit = named(goals, "publish, times the server's limit");
  assert.equal(limit.figure, undefined);
  const slow = named(judge(publishing({ 'redis-benchmark XADD, pipeline 100': figures(400, 400) })), limit.name);
  assert.ok(!slow.reached);
});

test('an aim that was missed is told apart from a goal that was', () => {
  const at = (p50) => ({ ...figures(p50), p99: figures(p50) });
  const single = (p50) => judge({ singlePublish: { sides: { ossa: at(p50), ioredis: at(100), 'PING by ioredis': at(70) } } });
  const verdict = (p50) => {
    const { reached, aimed } = named(single(p50), 'one publish at a time, p50, times ioredis');
    return [reached, aimed];
  };
  assert.deepEqual(verdict(99), [true, true]);
  assert.deepEqual(verdict(110), [true, false]);
  assert.deepEqual(verdict(120), [false, false]);
  assert.deepEqual(named(single(131), "the same above the server's round trip, µs").aimed, false);
});

/** A whole run against the built package, spoilt on purpose: what the checker is for is found where it really happens. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import test from 'node:test';
import { makePlan } from './plan.mjs';
import { carryOut } from './run.mjs';

/** The rules that a run with these faults alone violates. */
async function violated(...only) {
  const plan = makePlan({ seed: `test-${only.join('-')}`, seconds: 4, topology: 'single', only });
  const { violations, counts, folder } = await carryOut(plan, { clocks: false });
  rmSync(folder, { recursive: true, force: true });
  assert.ok(counts.resolved > 100 && counts.handled > counts.resolved);
  return new Set(violations.map(({ rule }) => rule));
}

test('retries that vanish are lost events', { timeout: 180_000 }, async () => {
  assert.ok((await violated('forgetRetries')).has('lost'));
});

test('an entry that is written again is an event stored twice', { timeout: 180_000 }, async () => {
  assert.ok((await violated('storeAgain')).has('twice'));
});

test('a killed consumer violates nothing', { timeout: 180_000 }, async () => {
  assert.deepEqual(await violated('killConsumer'), new Set());
});

test('the same seed makes the same plan, another one another', () => {
  const plan = (seed) => JSON.stringify(makePlan({ seed, seconds: 20, topology: 'single' }));
  assert.equal(plan(7), plan(7));
  assert.notEqual(plan(7), plan(8));
});

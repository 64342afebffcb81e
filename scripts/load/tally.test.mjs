/** Books made by hand: what a group did not handle is found. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { groups, groupsOfTypes, processes, subscriptions, types } from './plan.mjs';
import { tally } from './tally.mjs';

const seed = 1;
const events = 20;

/** Each process has published `events` events of different types; process 0 has handled all of them in every group. */
function kept() {
  const groupsOf = groupsOfTypes(subscriptions(seed));
  const all = Array.from({ length: processes }, () => ({
    books: new Uint16Array(events),
    bitmaps: groups.map(() => Array.from({ length: processes }, () => new Uint8Array(Math.ceil(events / 8)))),
  }));
  all.forEach(({ books }, publisher) => {
    for (let number = 0; number < events; number++) {
      const type = publisher * events + number;
      books[number] = type + 1;
      for (const group of groupsOf[type]) all[0].bitmaps[group][publisher][number >> 3] |= 1 << (number & 7);
    }
  });
  return all;
}

const base64 = (array) => Buffer.from(array.buffer).toString('base64');
const sent = (all) => all.map(({ books, bitmaps }) => ({ books: base64(books), bitmaps: bitmaps.map((group) => group.map(base64)) }));

test('all that was published was handled', () => {
  const { published, expected, handled, missing, twice } = tally(sent(kept()), seed);
  assert.equal(published, processes * events);
  assert.ok(expected >= 3 * published);
  assert.deepEqual({ handled, missing, twice }, { handled: expected, missing: 0, twice: 0 });
});

test('what one group did not handle is named', () => {
  const all = kept();
  all[0].bitmaps[0][2][1] &= ~(1 << 3);
  const { missing, named } = tally(sent(all), seed);
  assert.equal(missing, 1);
  assert.deepEqual(named, [`event 11 of process 2, ${types[2 * events + 11]}, in ${groups[0]}`]);
});

test('what two processes handled is counted once', () => {
  const all = kept();
  all[1].bitmaps[0][0][0] |= 1;
  const { missing, twice } = tally(sent(all), seed);
  assert.deepEqual({ missing, twice }, { missing: 0, twice: 1 });
});

test('the plan has what it says, and every type has groups', () => {
  const plan = subscriptions(seed);
  assert.equal(plan.length, 500);
  assert.equal(new Set(types).size, 1000);
  assert.ok(groupsOfTypes(plan).every((own) => own.length >= 3));
  const places = plan.map(({ bus, group, pattern }) => `${bus} ${group} ${pattern}`);
  assert.equal(new Set(places).size, 500);
  assert.notDeepEqual(subscriptions(2), plan);
});

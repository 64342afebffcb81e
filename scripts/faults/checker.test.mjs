/** Histories made by hand: each violation is found, and what is allowed is none. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { check } from './checker.mjs';

/** A run in which all goes well, to be spoilt: one event, `p:1`, of a type with the groups `a` and `b`. */
function history() {
  const records = [];
  const say = (t, p, e, line) => records.push({ t, p, e, ...line });
  const run = {
    processes: ['p', 'c', 'd'].map((name) => ({
      name,
      role: name === 'p' ? 'publisher' : 'consumer',
      proxied: false,
      killed: null,
      stderr: '',
    })),
    faults: [],
    outstanding: [],
    inventory: { entries: [], dead: [], streams: [] },
    groupsOf: () => ['a', 'b'],
    ordered: [],
    process: (name) => run.processes.find((process) => process.name === name),
    call: (t, k, key) => say(t, 'p', 'call', { k, type: 'T', key }),
    resolve: (t, k, id = `id-${k}`) => say(t, 'p', 'ok', { k, id }),
    reject: (t, k, maybe = false) => say(t, 'p', 'no', { k, code: 'ERR_CONNECTION', maybe }),
    store: (k, { id = `id-${k}`, sid = `${run.inventory.entries.length}-0`, key = 'P:{b9}:stream:T:0' } = {}) =>
      run.inventory.entries.push({ key, sid, type: 'T', id, k }),
    bury: (k, group) => run.inventory.dead.push({ type: 'T', group, id: `id-${k}`, k }),
    start: (t, k, group, { p = 'c', attempt = 1 } = {}) => say(t, p, 'start', { g: group, id: `id-${k}`, k, a: attempt, type: 'T' }),
    end: (t, k, group, { p = 'c', attempt = 1, e = 'done' } = {}) => say(t, p, e, { g: group, id: `id-${k}`, k, a: attempt }),
    handle: (t, k, group, about) => {
      run.start(t, k, group, about);
      run.end(t + 1, k, group, about);
    },
    loss: (t, loss) => say(t, 'c', 'loss', { loss }),
    fault: (kind, from, to, more) => run.faults.push({ kind, from, to, forgets: kind === 'flushAll', ...more }),
    publish: (t, k, key) => {
      run.call(t, k, key);
      run.resolve(t + 1, k);
      run.store(k);
    },
    check: () => check({ ...run, records: [...records].sort((a, b) => a.t - b.t) }),
  };
  return run;
}

function good() {
  const run = history();
  run.publish(0, 'p:1');
  run.handle(10, 'p:1', 'a');
  run.handle(10, 'p:1', 'b');
  return run;
}

const rulesOf = (run) => run.check().violations.map(({ rule }) => rule);

test('a run in which all went well has no violation', () => {
  const { violations, counts } = good().check();
  assert.deepEqual(violations, []);
  assert.deepEqual([counts.published, counts.resolved, counts.handled], [1, 1, 2]);
});

test('lost: resolved, and a group never handled it, though it is in its stream', () => {
  const run = history();
  run.publish(0, 'p:1');
  run.handle(10, 'p:1', 'a');
  const [violation, ...more] = run.check().violations;
  assert.deepEqual([violation.rule, violation.group, more.length], ['lost', 'b', 0]);
  assert.ok(violation.history.some((line) => line.includes('call')));
});

test('lost: resolved, and nowhere', () => {
  const run = history();
  run.call(0, 'p:1');
  run.resolve(1, 'p:1');
  assert.deepEqual(rulesOf(run), ['lost', 'lost']);
});

test('lost: a handler that only failed has not handled it', () => {
  const run = history();
  run.publish(0, 'p:1');
  run.handle(10, 'p:1', 'a', { e: 'fail' });
  run.handle(10, 'p:1', 'b');
  assert.deepEqual(rulesOf(run), ['lost']);
});

test('a dead letter of the group is not lost, one of another group is no excuse', () => {
  const run = history();
  run.publish(0, 'p:1');
  run.bury('p:1', 'a');
  assert.deepEqual(
    run.check().violations.map(({ rule, group }) => [rule, group]),
    [['lost', 'b']],
  );
});

test('rejected for sure or perhaps: nothing is owed', () => {
  for (const maybe of [true, false]) {
    const run = history();
    run.call(0, 'p:1');
    run.reject(1, 'p:1', maybe);
    assert.deepEqual(rulesOf(run), []);
  }
});

test('rejected with maybeStored it may be stored, without it may not', () => {
  for (const maybe of [true, false]) {
    const run = history();
    run.call(0, 'p:1');
    run.reject(1, 'p:1', maybe);
    run.store('p:1');
    run.handle(5, 'p:1', 'a');
    assert.deepEqual(rulesOf(run), maybe ? [] : ['storedThoughRejected']);
  }
});

test('gone with a FLUSHALL: to be announced, by whomever, for its type', () => {
  const flushed = () => {
    const run = history();
    run.call(0, 'p:1');
    run.resolve(1, 'p:1');
    run.fault('flushAll', 5, 6);
    return run;
  };
  assert.deepEqual(rulesOf(flushed()), ['unannounced', 'unannounced']);
  for (const loss of [{ eventType: 'T', group: 'x' }, { eventType: 'T', publisher: true }, {}]) {
    const run = flushed();
    run.loss(7, loss);
    const { violations, counts } = run.check();
    assert.deepEqual([violations, counts.lostByRedis], [[], 2]);
  }
  for (const [t, loss] of [
    [4, { eventType: 'T' }],
    [7, { eventType: 'other' }],
  ]) {
    const run = flushed();
    run.loss(t, loss);
    assert.deepEqual(rulesOf(run), ['unannounced', 'unannounced']);
  }
});

test('a FLUSHALL is no excuse for what was published after it, nor for what is in its stream', () => {
  const later = history();
  later.fault('flushAll', 5, 6);
  later.loss(7, {});
  later.call(8, 'p:1');
  later.resolve(9, 'p:1');
  assert.deepEqual(rulesOf(later), ['lost', 'lost']);
  const stored = history();
  stored.publish(0, 'p:1');
  stored.fault('flushAll', 5, 6);
  stored.loss(7, {});
  assert.deepEqual(rulesOf(stored), ['lost', 'lost']);
});

test('twice: one id in two entries, in one stream or in two', () => {
  for (const key of ['P:{b9}:stream:T:0', 'P:{b9}:stream:T:0:high']) {
    const run = good();
    run.store('p:1', { key, sid: '9-0' });
    assert.deepEqual(rulesOf(run), ['twice']);
  }
});

test('twice: one event under two ids', () => {
  const run = good();
  run.store('p:1', { id: 'other' });
  assert.deepEqual(rulesOf(run), ['twice']);
});

test('an idempotency key answers with one id, unless Redis was emptied', () => {
  const run = good();
  run.call(2, 'p:1');
  run.resolve(3, 'p:1', 'other');
  assert.ok(rulesOf(run).includes('twoIds'));
  run.fault('flushAll', 1.5, 1.6);
  assert.ok(!rulesOf(run).includes('twoIds'));
});

test('delivered, and nobody published it', () => {
  const run = good();
  run.handle(20, 'p:2', 'a');
  assert.deepEqual(rulesOf(run), ['unknown']);
});

test('handled twice for no reason', () => {
  const run = good();
  run.handle(500, 'p:1', 'a', { p: 'd' });
  const { violations, duplicates } = run.check();
  assert.deepEqual([violations.map(({ rule }) => rule), duplicates], [['duplicate'], { none: 1 }]);
});

test('handled twice for a reason', () => {
  const reasons = {
    killed: (run) => Object.assign(run.process('c'), { killed: 12 }),
    stopped: (run) => run.fault('stopConsumer', 10.5, 9_000, { target: 'c' }),
    restart: (run) => run.fault('restart', 11.5, 300),
    cut: (run) => {
      run.process('c').proxied = true;
      run.fault('cut', 11.5, 300);
    },
  };
  for (const [reason, make] of Object.entries(reasons)) {
    const run = good();
    run.handle(12_000, 'p:1', 'a', { p: 'd' });
    make(run);
    const { violations, duplicates } = run.check();
    assert.deepEqual([violations, duplicates], [[], { [reason]: 1 }]);
  }
});

test('handled twice, and the fault is no reason for it', () => {
  const excuses = {
    'killed before': (run) => Object.assign(run.process('c'), { killed: 5 }),
    'killed long after': (run) => Object.assign(run.process('c'), { killed: 9_000 }),
    'another process was killed': (run) => Object.assign(run.process('d'), { killed: 13_000 }),
    'stopped for less than a lease': (run) => run.fault('stopConsumer', 10.5, 3_000, { target: 'c' }),
    'another process was stopped': (run) => run.fault('stopConsumer', 10.5, 9_000, { target: 'e' }),
    'Redis restarted long after': (run) => run.fault('restart', 6_000, 6_300),
    'a cut of others’ connections': (run) => run.fault('cut', 11.5, 300),
    'scripts were flushed': (run) => run.fault('scriptFlush', 11.5, 300),
    'the clock of a process jumped': (run) => run.fault('workerClock', 10, 300, { target: 'c' }),
  };
  for (const [name, make] of Object.entries(excuses)) {
    const run = good();
    run.handle(12_000, 'p:1', 'a', { p: 'd' });
    make(run);
    assert.deepEqual(rulesOf(run), ['duplicate'], name);
  }
});

test('a retry after a failure is no duplicate', () => {
  const run = history();
  run.publish(0, 'p:1');
  run.handle(5, 'p:1', 'a', { e: 'fail' });
  run.handle(10, 'p:1', 'a', { attempt: 2 });
  run.handle(10, 'p:1', 'b');
  assert.deepEqual(run.check().duplicates, {});
});

/** Three events of one key, handled by an ordered group at these times. */
function keyed(...times) {
  const run = history();
  run.ordered = ['a'];
  run.groupsOf = () => ['a'];
  times.forEach((t, n) => {
    run.publish(n, `p:${n}`, 'key');
    run.handle(t, `p:${n}`, 'a');
  });
  return run;
}

test('order: by key, in the order of publishing', () => {
  assert.deepEqual(rulesOf(keyed(10, 20, 30)), []);
  assert.deepEqual(rulesOf(keyed(10, 30, 20)), ['order']);
});

test('order: a retry that others overtook', () => {
  const run = keyed(10, 40, 30);
  run.handle(20, 'p:1', 'a', { attempt: 0, e: 'fail' });
  assert.deepEqual(rulesOf(run), ['order']);
});

test('order: a second handling later on is none of its business', () => {
  const run = keyed(10, 20, 30);
  run.handle(40, 'p:0', 'a', { p: 'd' });
  assert.deepEqual(rulesOf(run), ['duplicate']);
});

test('order: events of other keys are free, so are those on the other side of a FLUSHALL', () => {
  const others = history();
  others.ordered = ['a'];
  others.groupsOf = () => ['a'];
  others.publish(0, 'p:0', 'x');
  others.publish(1, 'p:1', 'y');
  others.handle(20, 'p:0', 'a');
  others.handle(10, 'p:1', 'a');
  assert.deepEqual(rulesOf(others), []);
  const flushed = keyed(30, 20);
  flushed.fault('flushAll', 0.5, 0.6);
  assert.ok(!rulesOf(flushed).includes('order'));
});

test('order: events whose publish failed are counted apart', () => {
  const run = history();
  run.ordered = ['a'];
  run.groupsOf = () => ['a'];
  run.call(0, 'p:0', 'key');
  run.reject(5, 'p:0', true);
  run.publish(1, 'p:1', 'key');
  run.handle(20, 'p:0', 'a');
  run.handle(10, 'p:1', 'a');
  const { violations, counts } = run.check();
  assert.deepEqual([violations, counts.orderUnresolved], [[], 1]);
});

test('stuck: what is left at the end', () => {
  const run = good();
  run.outstanding.push({ what: 'pending', key: 'K', group: 'a', count: 3 });
  assert.deepEqual(rulesOf(run), ['stuck']);
});

test('expired long before its ttl', () => {
  const run = good();
  run.check();
  const spoilt = check({
    ...run,
    records: [{ t: 1, p: 'c', e: 'expired', type: 'T', id: 'x', group: 'a' }],
    inventory: { entries: [], dead: [], streams: [] },
  });
  assert.deepEqual(
    spoilt.violations.map(({ rule }) => rule),
    ['expired'],
  );
});

test('a process that ended by itself, badly, or not at all', () => {
  const ends = {
    'ended by itself': { ended: { t: 5, code: 0, signal: null } },
    'crashed at its end': { closed: 4, ended: { t: 5, code: 134, signal: null } },
    'did not end': { closed: 4, hung: true, killed: 9, ended: { t: 9, code: null, signal: 'SIGKILL' } },
  };
  for (const [name, facts] of Object.entries(ends)) {
    const run = good();
    Object.assign(run.process('d'), facts);
    assert.deepEqual(rulesOf(run), ['process'], name);
  }
  const fine = good();
  Object.assign(fine.process('d'), { closed: 4, ended: { t: 5, code: 0, signal: null } });
  assert.deepEqual(rulesOf(fine), []);
});

test('ERR_INTERNAL is a violation wherever it comes up', () => {
  const run = history();
  const records = [{ t: 1, p: 'c', e: 'error', code: 'ERR_INTERNAL', message: 'x' }];
  assert.deepEqual(
    check({ ...run, records }).violations.map(({ rule }) => rule),
    ['internal'],
  );
});

/**
 * What is to be said of a run: a pure function of its records, of the faults that were made, and of what Redis holds
 * at the end. The rules are those of docs/reliability.md.
 */

/** An acknowledgement is in Redis this long after the handler's end, unless something keeps it from there. */
const settleMs = 2_000;
/** A process or connection is back to work this long after a fault is healed. */
const recoverMs = 3_000;
/** A process that is stopped for longer may lose its lease (8 s, renewed every 2 s). */
const leaseLeastMs = 6_000;

/** Faults between a bus and Redis under which an acknowledgement may be late or lost. */
const ofRedis = new Set([
  'restart',
  'stopServer',
  'killClients',
  'flushAll',
  'full',
  'readOnly',
  'pauseClients',
  'loading',
  'serverClock',
  'failover',
  'moveSlot',
]);
/** The same, for processes that go by the proxy. */
const ofNetwork = new Set(['stall', 'cut', 'cutAll']);

/**
 * `processes`: [{ name, role, proxied, killed, closed, hung, ended: { t, code, signal }, stderr }]; `killed` and `closed`
 * are the times at which that was asked for. `records`: their lines with `p`, the process. `faults`: those of the log.
 * `outstanding` and `inventory`: of Redis. `groupsOf`: type → groups that have to get it; `ordered`: names of ordered
 * groups.
 *
 * Returns { counts, duplicates: { reason: count }, violations: [{ rule, text, k, history }] }.
 */
export function check({ processes, records, faults, outstanding, inventory, groupsOf, ordered }) {
  const run = index({ processes, records, faults, inventory });
  const violations = [];
  const violated = (rule, text, about = {}) => violations.push({ rule, text, ...about });
  const context = { run, violated, groupsOf, ordered };

  const lost = checkLost(context);
  checkStoredOnce(context);
  checkRejected(context);
  const duplicates = checkHandledOnce(context);
  const order = checkOrder(context);
  for (const left of outstanding)
    violated('stuck', `${left.key}${left.group ? ` group ${left.group}` : ''}: ${left.count} ${left.what}`, { left });
  checkProcesses(context);

  for (const violation of violations) if (violation.k !== undefined) violation.history = history(run, violation.k);
  const events = [...run.events.values()];
  return {
    counts: {
      published: events.length,
      resolved: events.filter((event) => event.id !== undefined).length,
      rejected: run.rejections,
      refusals: countBy(
        events.flatMap(({ refusals }) => refusals),
        ({ code, reply }) => reply ?? code,
      ),
      unanswered: events.filter((event) => event.id === undefined && event.refusals.length < event.calls.length).length,
      handled: run.handlings.filter((handling) => handling.done !== undefined).length,
      deadLetters: inventory.dead.length,
      faults: faults.length,
      losses: run.losses.length,
      orderUnresolved: order.unresolved,
      ...lost,
      ...tally(violations),
    },
    duplicates,
    violations,
  };
}

const rules = [
  'lost',
  'unannounced',
  'twice',
  'twoIds',
  'storedThoughRejected',
  'unknown',
  'duplicate',
  'order',
  'stuck',
  'expired',
  'process',
  'internal',
];
const tally = (violations) =>
  Object.fromEntries(rules.map((rule) => [rule, violations.filter((violation) => violation.rule === rule).length]));

/** Everything that is looked up, gathered in one pass over the records. */
function index({ processes, records, faults, inventory }) {
  const events = new Map();
  const handlings = [];
  const open = new Map();
  const losses = [];
  const deadSeen = [];
  const expired = [];
  const internal = [];
  let rejections = 0;
  const event = (k) => events.get(k) ?? events.set(k, { k, calls: [], refusals: [], ids: new Set() }).get(k);
  for (const line of records) {
    switch (line.e) {
      case 'call':
        Object.assign(event(line.k), { type: line.type, key: line.key, by: line.p }).calls.push(line.t);
        break;
      case 'ok': {
        const found = event(line.k);
        found.id ??= line.id;
        found.answered ??= line.t;
        found.ids.add(line.id);
        break;
      }
      case 'no':
        rejections++;
        event(line.k).refusals.push(line);
        if (line.code === 'ERR_INTERNAL') internal.push(line);
        break;
      case 'start': {
        const handling = {
          p: line.p,
          group: line.g,
          id: line.id,
          k: line.k,
          type: line.type,
          attempt: line.a,
          sid: line.sid,
          start: line.t,
        };
        handlings.push(handling);
        open.set(`${line.p} ${line.g} ${line.id} ${line.a}`, handling);
        break;
      }
      case 'done':
      case 'fail': {
        const handling = open.get(`${line.p} ${line.g} ${line.id} ${line.a}`);
        if (handling) handling[line.e === 'done' ? 'done' : 'failed'] = line.t;
        break;
      }
      case 'loss':
        losses.push(line);
        break;
      case 'dead':
        deadSeen.push(line);
        break;
      case 'expired':
        expired.push(line);
        break;
      case 'error':
        if (line.code === 'ERR_INTERNAL') internal.push(line);
        break;
    }
  }
  const successes = groupBy(
    handlings.filter((handling) => handling.done !== undefined),
    ({ group, id }) => `${group} ${id}`,
  );
  for (const list of successes.values()) list.sort((a, b) => a.done - b.done);
  const dead = new Set([...inventory.dead, ...deadSeen.map(({ group, id }) => ({ group, id }))].map(({ group, id }) => `${group} ${id}`));
  return {
    ...{ events, handlings, successes, dead, losses, expired, internal, rejections, faults, inventory, records },
    processes: new Map(processes.map((process) => [process.name, process])),
    stored: groupBy(inventory.entries, (entry) => entry.id),
    // A FLUSHALL, and a failover that nobody had agreed on.
    gaps: faults.filter(({ forgets }) => forgets),
  };
}

/** A fault by which Redis forgot what it had, at a time at which it may have had the event. */
const forgottenAfter = (run, event) => run.gaps.find((gap) => event.calls.some((t) => t <= gap.to));

/** Each resolved event is handled by each of its groups, or a dead letter; or Redis lost it, and somebody said so. */
function checkLost({ run, violated, groupsOf }) {
  let lostByRedis = 0;
  let announced = 0;
  for (const event of run.events.values()) {
    for (const id of event.ids)
      for (const group of groupsOf(event.type)) {
        if (run.successes.has(`${group} ${id}`) || run.dead.has(`${group} ${id}`)) continue;
        const about = { k: event.k, id, group };
        const entries = run.stored.get(id);
        const gap = forgottenAfter(run, event);
        if (entries) {
          violated(
            'lost',
            `${event.k} (${event.type}) stands in ${entries[0].key} as ${entries[0].sid}, and group ${group} never handled it`,
            about,
          );
        } else if (gap) {
          lostByRedis++;
          if (run.losses.some(({ t, loss }) => t >= gap.from && names(loss.eventType, event.type))) announced++;
          else
            violated(
              'unannounced',
              `${event.k} (${event.type}) went with a ${gap.kind} before group ${group} had it, and no bus said data:loss`,
              about,
            );
        } else {
          violated('lost', `${event.k} (${event.type}) resolved, is in no stream, and group ${group} never handled it`, about);
        }
      }
  }
  for (const { type, id, group } of run.expired) {
    const k = [...run.events.values()].find((event) => event.ids.has(id))?.k;
    violated('expired', `${k ?? id} (${type}) expired for group ${group}, long before its ttl`, { k });
  }
  return { lostByRedis, announced };
}

/** Whether an announcement for `named` (a type, a pattern, or nothing: all) concerns a type. */
const names = (named, type) =>
  named === undefined || named === null || named === type || (named.endsWith('**') && type.startsWith(named.slice(0, -2)));

/** No event stands in the streams twice: neither by its id, nor by its name under two ids. */
function checkStoredOnce({ run, violated }) {
  for (const [id, entries] of run.stored)
    if (entries.length > 1)
      violated('twice', `${id} stands in the streams as ${entries.map(({ key, sid }) => `${key} ${sid}`).join(' and ')}`, {
        k: entries[0].k,
        id,
      });
  for (const [k, entries] of groupBy(run.inventory.entries, (entry) => entry.k)) {
    const ids = new Set(entries.map(({ id }) => id));
    if (k !== undefined && ids.size > 1)
      violated('twice', `${k} stands in the streams under ${ids.size} ids: ${[...ids].join(', ')}`, { k });
  }
  for (const event of run.events.values())
    if (event.ids.size > 1 && !forgottenAfter(run, event))
      violated('twoIds', `${event.k}: its idempotency key was answered with ${[...event.ids].join(' and ')}`, { k: event.k });
}

/** What was refused for sure is nowhere; what nobody published is nowhere either. */
function checkRejected({ run, violated }) {
  const seen = new Map();
  for (const entry of run.inventory.entries) if (entry.k !== undefined) seen.set(entry.k, `stands in ${entry.key} as ${entry.sid}`);
  for (const handling of run.handlings) seen.set(handling.k, `was delivered to ${handling.group}`);
  for (const [k, where] of seen) {
    const event = run.events.get(k);
    if (event === undefined) violated('unknown', `${k} ${where}, and nobody published it`, { k });
    else if (event.ids.size === 0 && event.refusals.length === event.calls.length && event.refusals.every(({ maybe }) => !maybe))
      violated('storedThoughRejected', `${k} was rejected without maybeStored (${event.refusals[0].code}), and ${where}`, { k });
  }
  for (const line of run.internal) violated('internal', `${line.p}: ${line.message}`, { k: line.k });
}

/** A second success needs a reason in the faults. */
function checkHandledOnce({ run, violated }) {
  const reasons = {};
  for (const list of run.successes.values())
    for (let n = 1; n < list.length; n++) {
      const [first, next] = [list[n - 1], list[n]];
      const reason = whyTwice(run, first, next);
      reasons[reason ?? 'none'] = (reasons[reason ?? 'none'] ?? 0) + 1;
      if (!reason)
        violated(
          'duplicate',
          `${first.k} was handled by group ${first.group} in ${first.p} and again in ${next.p} ${Math.round(next.done - first.done)} ms later, for no reason`,
          {
            k: first.k,
            id: first.id,
          },
        );
    }
  return reasons;
}

/** The fault that kept the first success from being acknowledged, or that took it from its process. */
function whyTwice(run, first, next) {
  const { killed } = run.processes.get(first.p);
  if (killed && killed >= first.done && killed <= first.done + settleMs) return 'killed';
  for (const handling of [first, next])
    for (const fault of run.faults)
      if (
        fault.kind === 'stopConsumer' &&
        fault.target === handling.p &&
        fault.to - fault.from >= leaseLeastMs &&
        // What it had fetched before, it begins with when it goes on.
        meets({ from: fault.from, to: fault.to + recoverMs }, handling.start, handling.done + settleMs)
      )
        return 'stopped';
  const proxied = run.processes.get(first.p).proxied;
  const near = run.faults
    .filter(({ kind }) => ofRedis.has(kind) || (proxied && ofNetwork.has(kind)))
    .filter(({ from, to }) => meets({ from, to: to + recoverMs }, first.start, first.done + settleMs))
    .map((fault) => ({ kind: fault.kind, ms: Math.max(0, fault.from - first.done, first.done - fault.to) }));
  return near.sort((a, b) => a.ms - b.ms)[0]?.kind;
}

const meets = ({ from, to }, start, end) => from <= end && to >= start;

/** In an ordered group the first successes of a key come in the order in which its events were published. */
function checkOrder({ run, violated, ordered }) {
  let unresolved = 0;
  const keyed = groupBy(
    [...run.events.values()].filter(({ key }) => key !== undefined),
    ({ key }) => key,
  );
  for (const group of ordered)
    for (const [key, list] of keyed) {
      const stretches = groupBy(
        list.filter((event) => !meetsGap(run, event)),
        (event) => run.gaps.filter((gap) => gap.to < event.calls[0]).length,
      );
      for (const stretch of stretches.values()) {
        let latest;
        for (const event of stretch.sort((a, b) => a.calls[0] - b.calls[0] || numberOf(a.k) - numberOf(b.k))) {
          const done = firstDone(run, group, event);
          if (done === undefined) continue;
          if (latest && done.done < latest.done.done) {
            const text = `${event.k} (key ${key}) was handled by group ${group} ${(latest.done.done - done.done).toFixed(1)} ms before ${latest.event.k}, which was published earlier`;
            // Of an event whose publish failed nobody can say when it was stored.
            if (event.id !== undefined && latest.event.id !== undefined) violated('order', text, { k: event.k, other: latest.event.k });
            else unresolved++;
          } else latest = { event, done };
        }
      }
    }
  return { unresolved };
}

const numberOf = (k) => Number(k.split(':')[1]);
const meetsGap = (run, event) => run.gaps.some((gap) => meets(gap, event.calls[0], event.answered ?? Number.POSITIVE_INFINITY));

function firstDone(run, group, event) {
  const ids = event.ids.size > 0 ? event.ids : new Set(run.handlings.filter(({ k }) => k === event.k).map(({ id }) => id));
  return [...ids].flatMap((id) => run.successes.get(`${group} ${id}`) ?? []).sort((a, b) => a.done - b.done)[0];
}

/** A process ends when it is told to, with exit code 0, and not before. */
function checkProcesses({ run, violated }) {
  for (const { name, killed, closed, hung, ended, stderr } of run.processes.values()) {
    const said = stderr ? `:\n${stderr}` : '';
    if (hung) violated('process', `${name} did not end within its time after SIGTERM${said}`);
    else if (ended && !killed && (closed === undefined || ended.code !== 0))
      violated('process', `${name} ended by itself with ${ended.signal ?? `exit code ${ended.code}`}${said}`);
  }
}

/** All that is known of one event, in order of time. */
export function history(run, k) {
  const ids = new Set(run.events.get(k)?.ids);
  for (const handling of run.handlings) if (handling.k === k) ids.add(handling.id);
  const lines = run.records
    .filter((line) => line.k === k || (line.id !== undefined && ids.has(line.id)))
    .map(({ t, p, e, ...rest }) => ({ t, text: `${p} ${e} ${JSON.stringify(rest)}` }));
  const first = lines[0]?.t ?? 0;
  const last = lines.at(-1)?.t ?? 0;
  for (const { kind, from, to, ...rest } of run.faults)
    if (rest.forgets || meets({ from: from - recoverMs, to: to + recoverMs }, first, last))
      lines.push({ t: from, text: `fault ${kind} ${JSON.stringify(rest)}` }, { t: to, text: `fault ${kind} is over` });
  for (const { name, started, killed } of run.processes.values())
    if (killed && killed >= first - recoverMs && killed <= last + recoverMs)
      lines.push({ t: killed, text: `${name} is killed (it began at ${Math.round(started)})` });
  return lines.sort((a, b) => a.t - b.t).map(({ t, text }) => `${t.toFixed(1)} ${text}`);
}

const countBy = (list, nameOf) => Object.fromEntries([...groupBy(list, nameOf)].map(([name, items]) => [name, items.length]));

function groupBy(list, nameOf) {
  const groups = new Map();
  for (const item of list) {
    const name = nameOf(item);
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  return groups;
}

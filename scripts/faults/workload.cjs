/** What is published and who handles it: known to the plan, the programs and the checker alike. */

/** Types with their share of the events. */
const types = [
  { name: 'shop.order.placed', weight: 5 },
  { name: 'shop.order.paid', weight: 3, priorities: ['critical', 'high', 'normal', 'low'] },
  { name: 'shop.account.moved', weight: 5, keyed: true },
  { name: 'shop.report.made', weight: 0.3, payloadBytes: 100_000 },
  { name: 'shop.reminder.due', weight: 1, delayed: true },
  // First seen in the course of a run: the wildcard group has to find them.
  ...[0, 1, 2, 3, 4, 5].map((n) => ({ name: `shop.new.kind-${n}`, weight: 0.2 })),
];

/** The stream of the keyed type: as many partitions as consumers can share. */
const keyedStream = {
  name: 'shop.account.moved',
  config: { maxLength: 1_000_000, retention: 'time', retentionValue: 3600, partitioning: 'hash', partitions: 4 },
};

/** Durable groups; each gets every event of its pattern. */
const subscriptions = [
  { group: 'plain', pattern: 'shop.order.placed' },
  { group: 'plain', pattern: 'shop.order.paid' },
  { group: 'plain', pattern: 'shop.report.made' },
  { group: 'second', pattern: 'shop.order.placed' },
  { group: 'ledger', pattern: 'shop.account.moved', ordered: true },
  { group: 'audit', pattern: 'shop.**' },
];

const matches = (pattern, type) => pattern === type || (pattern.endsWith('.**') && type.startsWith(pattern.slice(0, -2)));

/** The groups that have to get events of a type. */
const groupsOf = (type) => subscriptions.filter(({ pattern }) => matches(pattern, type)).map(({ group }) => group);

const retry = { maxAttempts: 3, initialDelay: 50, backoffMultiplier: 2, maxDelay: 500 };

/** How the handler of a group fares with an event: the same in every process and at every delivery of that attempt. */
function fails(seed, group, key, attempt) {
  const share = spread(`${seed}/${group}/${key}`);
  if (share < 0.004) return true;
  return share < 0.08 ? attempt === 1 : share < 0.1 && attempt <= 2;
}

/** ms that the handler takes: mostly next to nothing, sometimes long enough for a fault to come in between. */
function workMs(seed, group, key) {
  const share = spread(`${seed}/${group}/${key}/work`);
  return share < 0.6 ? 0 : share < 0.98 ? Math.floor(share * 20) : 400;
}

/** 0 to 1 of a text. */
function spread(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return ((value ^ (value >>> 13)) >>> 0) / 2 ** 32;
}

module.exports = { types, keyedStream, subscriptions, groupsOf, retry, fails, workMs };

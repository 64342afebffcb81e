/** What is published and who subscribes to what: made from the seed, the same in every process. */
import { random } from '../faults/random.mjs';

export const processes = 4;
export const busesEach = 10;
export const buses = processes * busesEach;
/** Acknowledged events that a stream keeps: few, so that Redis comes to rest with the ttl at the latest. */
export const keepAcknowledged = 20;
export const connectionPoolSize = 4;

const numbers = (count) => Array.from({ length: count }, (_, number) => number);
const each = (...counts) => counts.reduce((all, count) => all.flatMap((head) => numbers(count).map((n) => [...head, n])), [[]]);

/** 1,000 types, `load.<area>.<kind>.<name>`. */
export const types = each(20, 5, 10).map(([area, kind, name]) => `load.a${area}.k${kind}.t${name}`);

/**
 * Groups, the patterns each can have, how many of them it has, and how many buses take each. The patterns of a group have
 * no types in common, so that an event is handled once in each group that has a pattern for it.
 */
const groupPlans = [
  { group: 'audit', patterns: each(20).map(([area]) => `load.a${area}.**`), takes: 20, members: 3 },
  { group: 'report', patterns: each(20, 5).map(([area, kind]) => `load.a${area}.k${kind}.*`), takes: 100, members: 1 },
  { group: 'cross', patterns: each(5, 10).map(([kind, name]) => `load.*.k${kind}.t${name}`), takes: 50, members: 1 },
  ...numbers(5).map((n) => ({ group: `exact-${n}`, patterns: types, takes: 29, members: 2 })),
];
export const groups = groupPlans.map(({ group }) => group);

/** 500 of { bus, group, pattern }: every bus has 12 or 13. */
export function subscriptions(seed) {
  const all = groupPlans.flatMap(({ group, patterns, takes, members }) =>
    shuffled(patterns, random(seed, `patterns/${group}`))
      .slice(0, takes)
      .flatMap((pattern) => numbers(members).map(() => ({ group, pattern }))),
  );
  // In turn, so that the members of a pattern are on different buses.
  return all.map((subscription, n) => ({ ...subscription, bus: n % buses }));
}

/** For each type the groups, by number, that have to handle it. */
export function groupsOfTypes(plan) {
  const patterns = new Map();
  for (const { group, pattern } of plan) patterns.set(`${group} ${pattern}`, { group: groups.indexOf(group), matches: matcher(pattern) });
  return types.map((type) => [...new Set([...patterns.values()].filter(({ matches }) => matches(type)).map(({ group }) => group))]);
}

/** Enough for the patterns above, which have `**` at their end only, and types that go on there. */
function matcher(pattern) {
  const parts = pattern.split('.').map((part) => ({ '*': '[^.]+', '**': '.+' })[part] ?? part);
  const whole = new RegExp(`^${parts.join('\\.')}$`);
  return (type) => whole.test(type);
}

/** A share of the events, and from how many to how many bytes of JSON text they have; log-uniform in between. */
export const payloads = [
  { share: 0.9, least: 100, most: 1024 },
  { share: 0.09, least: 1024, most: 32 * 1024 },
  { share: 0.009, least: 32 * 1024, most: 256 * 1024 },
  { share: 0.001, least: 256 * 1024, most: 1024 * 1024 },
];

/** Mean of the n-th power of a payload's size. */
const moment = (n) =>
  payloads.reduce((sum, { share, least, most }) => sum + (share * (most ** n - least ** n)) / (n * Math.log(most / least)), 0);
export const meanBytes = moment(1);
/** How much the bytes of the events of `seconds` at `rate` vary by chance: their standard deviation. */
export const spreadBytes = (rate, seconds) => Math.sqrt(rate * seconds * moment(2));

/** What process `number` publishes, one after the other: the types by number, and bytes. */
export function publications(seed, number) {
  const chance = random(seed, `publications/${number}`);
  const own = types.map((_, type) => type).filter((type) => type % processes === number);
  const popular = shuffled(own, random(seed, 'popular')).slice(0, own.length / 10);
  const sizes = payloads.map((payload) => [payload, payload.share]);
  return () => {
    const { least, most } = chance.weighted(sizes);
    const bytes = Math.round(least * (most / least) ** (chance.between(0, 1_000_000) / 1_000_000));
    return { type: chance.chance(0.5) ? chance.pick(popular) : chance.pick(own), bytes };
  };
}

/** The types whose first event is published by process `number`. */
export const firstTypes = (number) => types.map((_, type) => type).filter((type) => type % processes === number);

function shuffled(list, chance) {
  const left = [...list];
  for (let n = left.length - 1; n > 0; n--) {
    const other = chance.between(0, n);
    [left[n], left[other]] = [left[other], left[n]];
  }
  return left;
}

/** The connections of each bus, and how many it may have, as docs/reliability.md and README.md say. */
import { buses, connectionPoolSize, groups, groupsOfTypes, subscriptions, types } from './plan.mjs';

const buckets = 16;

/**
 * For each bus: the most connections it was seen with, and its bound. On one server that is the pool, one for each group,
 * one for announcements and one for answers; in a cluster a pool for each master, one for each group and bucket that its
 * types can be in, and three.
 */
export function bound({ samples, masters, options: { seed, topology } }) {
  const seen = (bus) => Math.max(...samples.map(({ connections }) => connections[bus]));
  return Array.from({ length: buses }, (_, bus) => {
    const own = typesOfGroups(seed, bus);
    const readers = topology === 'cluster' ? own.reduce((sum, count) => sum + Math.min(buckets, count), 0) : own.length;
    const rest = topology === 'cluster' ? masters * connectionPoolSize + 3 : connectionPoolSize + 2;
    return { bus, connections: seen(bus), groups: own.length, bound: readers + rest };
  });
}

/** How many types the patterns of each group on a bus match. */
function typesOfGroups(seed, bus) {
  const own = subscriptions(seed).filter((subscription) => subscription.bus === bus);
  const matched = groupsOfTypes(own);
  return groups.map((_, group) => types.filter((_, type) => matched[type].includes(group)).length).filter((count) => count > 0);
}

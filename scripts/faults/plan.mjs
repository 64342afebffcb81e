/** What a run is going to do, all of it from the seed: who takes part, and which faults come when. */

import { random } from './random.mjs';
import workload from './workload.cjs';

const { subscriptions } = workload;

/** Longer than a process's lease (8 s): others take over what it holds. */
const beyondLease = [9_500, 11_000];

/**
 * Kinds of faults with their weight. A lane makes one fault after the other, so that two faults of one lane never meet;
 * those of different lanes do. `choose` makes the parameters.
 */
const kinds = {
  server: {
    restart: [2, (c) => ({ downMs: c.between(0, 1500) })],
    stopServer: [1, (c) => ({ forMs: c.chance(0.2) ? c.between(...beyondLease) : c.between(200, 5000) })],
    killClients: [3, (c) => ({ type: c.pick(['normal', 'pubsub']), times: c.between(1, 5), everyMs: c.between(20, 300) })],
    flushAll: [0.5, () => ({})],
    flushUnseen: [0.3, (c) => ({ aheadMs: c.pick([0, 5_000]), forMs: c.between(5_500, 7_500) })],
    scriptFlush: [1, (c) => ({ times: c.between(1, 20), everyMs: c.between(1, 50) })],
    full: [1, (c) => ({ forMs: c.between(500, 3500) })],
    readOnly: [1, (c) => ({ forMs: c.between(500, 3500) })],
    pauseClients: [1, (c) => ({ mode: c.pick(['WRITE', 'ALL']), forMs: c.between(200, 3000) })],
    loading: [1, (c) => ({ forMs: c.between(300, 3000) })],
    serverClock: [1, (c) => ({ jumpMs: c.pick([-1, 1]) * c.pick([500, 5_000, 60_000]), forMs: c.between(500, 4000) })],
  },
  // Not faults but crimes: what no bus can answer for. They are made when asked for by name, to see that the checker finds them.
  crimes: {
    forgetRetries: [1, () => ({ times: 100, everyMs: 20 })],
    storeAgain: [1, () => ({})],
  },
  // A cluster's own faults, beside those of single servers that make sense for one of its nodes.
  cluster: {
    restart: [2, (c) => ({ node: c.between(0, 5), downMs: c.between(0, 6000) })],
    stopServer: [1, (c) => ({ node: c.between(0, 5), forMs: c.between(200, 6000) })],
    killClients: [
      2,
      (c) => ({ node: c.between(0, 5), type: c.pick(['normal', 'pubsub']), times: c.between(1, 5), everyMs: c.between(20, 300) }),
    ],
    scriptFlush: [1, (c) => ({ node: c.between(0, 5), times: c.between(1, 20), everyMs: c.between(1, 50) })],
    failover: [2, (c) => ({ node: c.between(0, 5) })],
    moveSlot: [3, (c) => ({ bucket: c.between(0, 15), to: c.between(0, 2) })],
  },
  processes: {
    killConsumer: [3, (c) => ({ index: c.between(0, 9), downMs: c.between(0, 2000) })],
    stopConsumer: [2, (c) => ({ index: c.between(0, 9), forMs: c.chance(0.4) ? c.between(...beyondLease) : c.between(100, 4000) })],
    restartConsumer: [1, (c) => ({ index: c.between(0, 9) })],
    killPublisher: [2, (c) => ({ index: c.between(0, 9), downMs: c.between(0, 1000) })],
    stopPublisher: [1, (c) => ({ index: c.between(0, 9), forMs: c.between(100, 6000) })],
    workerClock: [
      1,
      (c) => ({ index: c.between(0, 9), jumpMs: c.pick([-1, 1]) * c.pick([1_000, 30_000, 3_600_000]), forMs: c.between(500, 5000) }),
    ],
  },
  network: {
    latency: [2, (c) => ({ ms: c.pick([5, 30, 150]), forMs: c.between(500, 4000) })],
    stall: [1, (c) => ({ forMs: c.chance(0.2) ? c.between(...beyondLease) : c.between(200, 4000) })],
    cut: [4, (c) => ({ way: c.pick(['up', 'down']), bytes: c.between(0, 60_000) })],
    cutAll: [2, () => ({})],
  },
};

/** All names that `only` may hold. */
export const faultKinds = Object.values(kinds).flatMap((lane) => Object.keys(lane));

export function makePlan({ seed, seconds, topology, only, without = [] }) {
  const choice = random(seed, 'plan');
  const proxied = () => choice.chance(0.5) && topology === 'single';
  const consumers = Array.from({ length: choice.between(3, 4) }, () => ({ proxied: proxied(), subscriptions: [] }));
  // Each subscription has at least two members, so that somebody is there to take over.
  subscriptions.forEach((_, index) => {
    consumers.forEach((consumer, n) => {
      const sure = [index, index + 1].some((at) => at % consumers.length === n);
      if (choice.chance(0.5) || sure) consumer.subscriptions.push(index);
    });
  });
  const publishers = Array.from({ length: choice.between(2, 3) }, () => ({
    proxied: choice.chance(0.5),
    rate: choice.pick([40, 100, 160]),
  }));
  const lanes = {};
  for (const lane of topology === 'cluster'
    ? ['cluster', 'processes']
    : ['server', 'processes', 'network', ...(only?.some((kind) => kind in kinds.crimes) ? ['crimes'] : [])])
    lanes[lane] = schedule(random(seed, lane), kinds[lane], { seconds, only, without });
  return { seed, seconds, topology, consumers, publishers, lanes };
}

/** Faults with pauses before them, until `seconds` are filled. */
function schedule(choice, lane, { seconds, only, without }) {
  const list = Object.entries(lane)
    .filter(([kind]) => (only?.includes(kind) ?? true) && !without.includes(kind))
    .map(([kind, [weight]]) => [kind, weight]);
  const faults = [];
  if (list.length === 0) return faults;
  for (let at = 0; at < seconds * 1000; ) {
    const kind = choice.weighted(list);
    const afterMs = choice.between(100, 2500);
    const params = lane[kind][1](choice);
    faults.push({ kind, afterMs, ...params });
    at += afterMs + (params.forMs ?? params.downMs ?? 0);
  }
  return faults;
}

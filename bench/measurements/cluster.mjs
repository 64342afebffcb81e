/**
 * Three processes publish and three consume as one group, each an OSSAEventBus with a ServiceRegistry and everything that is on by default:
 * on three masters, on one server, and signed and held against a contract on three masters. From the first publish to the last handler.
 */
import { begin } from '../lib/children.mjs';
import { processesUs, serverPid } from '../lib/cpu.mjs';
import { contract, project } from '../lib/projects.mjs';
import { streamState } from '../peers/group.mjs';

const processes = 3;
/** Published and not yet stored, of each process. */
const width = 500;
/** Several, as in use: one of them is in one slot, and so on one master. */
const types = Array.from({ length: 12 }, (_, n) => `kind-${n}.created`);
const pattern = '*.created';
const options = { maxUnacknowledged: 1_000 };

const sum = (values) => values.reduce((all, one) => all + one, 0);
const times = (make) => Array.from({ length: processes }, (_, n) => make(n));

/** Resolves when so many were handled in all, with the time of the last one. */
const allHandled = (consumers, total) =>
  new Promise((resolve) => {
    const counts = consumers.map(() => ({ handled: 0, lastNs: 0 }));
    for (const [at, { child }] of consumers.entries())
      child.on('message', (count) => {
        if (count.handled === undefined) return;
        counts[at] = count;
        if (sum(counts.map(({ handled }) => handled)) >= total) resolve(Math.max(...counts.map(({ lastNs }) => lastNs)));
      });
  });

async function measure({ redis, clients, total, signed }) {
  const share = total / processes;
  const consumers = times(() => begin('consumer.mjs', { redis, pattern, options, ...(signed ? { receiver: project('receiver') } : {}) }));
  const all = [...consumers];
  try {
    await Promise.all(consumers.map(({ told }) => told()));
    const projects = (n) => (signed ? { sender: project('sender'), ...(n === 0 ? { contract: contract(types) } : {}) } : {});
    const publishers = times((n) => begin('publisher.mjs', { redis, types, ...projects(n) }));
    all.push(...publishers);
    await Promise.all(publishers.map(({ told }) => told()));

    const servers = await Promise.all(clients.map(serverPid));
    const parts = { publishers: publishers.map(({ child }) => child.pid), consumers: consumers.map(({ child }) => child.pid), servers };
    const used = () => Object.values(parts).map((pids) => sum(processesUs(pids)));
    const before = used();
    const handled = allHandled(consumers, total);
    const began = Promise.all(publishers.map(({ ask }, n) => ask({ width, first: n * share, count: share })));
    const failed = Promise.race(all.map(({ ended }) => ended));
    const lastNs = await Promise.race([began.then(() => handled), failed]);
    const cpu = used().map((us, at) => (us - before[at]) / total);
    const beganNs = Math.min(...(await began).map((each) => each.beganNs));
    return {
      value: total / ((lastNs - beganNs) / 1e9),
      cpu: Object.fromEntries(Object.keys(parts).map((part, at) => [part, cpu[at]])),
    };
  } finally {
    await Promise.all(all.map(({ end }) => end()));
  }
}

/** Measures, and looks whether all was stored and acknowledged, when the processes are gone. */
async function checked({ events, ...setup }) {
  const what = { ...setup, total: events - (events % processes) };
  const figures = await measure(what);
  const states = await Promise.all(what.clients.map((client) => streamState(client, 'bench:*:stream:*.created:*')));
  const [stored, unsettled] = [sum(states.map((state) => state.stored)), sum(states.map((state) => state.unsettled))];
  if (stored !== what.total || unsettled !== 0)
    throw new Error(`${what.total} stored and acknowledged expected, but ${stored} stored, ${unsettled} of them not acknowledged`);
  return figures;
}

async function onCluster({ servers, events, signed = false }) {
  const { addresses, clients } = await servers.cluster();
  await Promise.all(clients.map((client) => client.flushall()));
  const nodes = addresses.map((address) => new URL(address)).map(({ hostname, port }) => ({ host: hostname, port: Number(port) }));
  return checked({ redis: { keyPrefix: 'bench', cluster: { nodes } }, clients, events, signed });
}

export const cluster = {
  name: 'three processes publish, three consume, everything on',
  unit: 'events/s',
  sides: {
    'three masters': ({ servers, fleet }) => onCluster({ servers, events: fleet }),
    'one server, no Cluster': ({ address, redis, fleet }) =>
      checked({ redis: { url: address, keyPrefix: 'bench' }, clients: [redis], events: fleet, signed: false }),
    'three masters, signed, with a contract': ({ servers, signed }) => onCluster({ servers, events: signed, signed: true }),
  },
};

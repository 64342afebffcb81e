/**
 * How each kind of fault is made and healed. A maker resolves when its fault is over, whatever happens in between; what
 * it did is in the log with its times.
 */
import { keysOf } from './inventory.mjs';
import { now, pause } from './log.mjs';

/** Makes one fault of a plan in a world: { log, prefix, topology, consumers, publishers, replace }. */
export const makeFault = (world, { kind, ...params }) => makers[kind](world, params);

/** Members of a team whose process runs. */
const alive = (team) => team.filter((worker) => worker.ended === null && !worker.leaving);
const chosen = (team, index) => alive(team)[index % alive(team).length];

async function repeatedly(times, everyMs, action) {
  for (let n = 0; n < times; n++) {
    if (n) await pause(everyMs);
    await action();
  }
}

async function kill(world, team, { index, downMs, kind }) {
  const worker = chosen(world[team], index);
  if (!worker) return;
  await world.log.during({ kind, target: worker.name }, async () => {
    await worker.kill();
    await pause(downMs);
    await world.replace(worker);
  });
}

async function stop(world, team, { index, forMs, kind }) {
  const worker = chosen(world[team], index);
  if (!worker) return;
  await world.log.during({ kind, target: worker.name, forMs }, async () => {
    worker.signal('SIGSTOP');
    await pause(forMs);
    worker.signal('SIGCONT');
  });
}

/**
 * A server does not answer for a while. Where another one took its place meanwhile, what had not been replicated is
 * forgotten: `forgets`.
 */
function unavailable({ log, topology }, { node, ...fault }, action) {
  const server = topology.nodeAt(node);
  return log.during({ ...fault, target: server.port }, async (entry) => {
    const wasMaster = await topology.isMaster(server);
    await action(server);
    await server.ready();
    await topology.ready();
    entry.forgets = wasMaster && !(await topology.isMaster(server));
  });
}

/** Runs `action` between two configurations of the server. */
async function between({ topology: { node } }, before, forMs, after) {
  try {
    await node.call(...before);
    await pause(forMs);
  } finally {
    await node.call(...after);
  }
}

const makers = {
  restart: (world, { node, downMs }) =>
    unavailable(world, { kind: 'restart', node, downMs }, async (server) => {
      await server.kill();
      await pause(downMs);
      await server.start();
    }),
  stopServer: (world, { node, forMs }) =>
    unavailable(world, { kind: 'stopServer', node, forMs }, async (server) => {
      server.signal('SIGSTOP');
      await pause(forMs);
      server.signal('SIGCONT');
    }),
  killClients: (world, { node: index, type, times, everyMs }) =>
    world.log.during({ kind: 'killClients', type, times }, () =>
      world.topology
        .nodeAt(index)
        .with((client) => repeatedly(times, everyMs, () => client.call('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'))),
    ),
  flushAll: (world) => world.log.during({ kind: 'flushAll', forgets: true }, () => world.topology.node.call('FLUSHALL')),
  // While no consumer looks. Where the clock was ahead before, the new streams begin before the end of the old ones.
  async flushUnseen(world, { aheadMs, forMs }) {
    if (aheadMs) await jump(world, world.topology.node.clock, { kind: 'serverClock', jumpMs: aheadMs, forMs: 1_000 });
    const stopped = alive(world.consumers);
    await Promise.all([
      ...stopped.map(({ name, signal }) =>
        world.log.during({ kind: 'stopConsumer', target: name, forMs }, async () => {
          signal('SIGSTOP');
          await pause(forMs);
          signal('SIGCONT');
        }),
      ),
      makers.flushAll(world),
    ]);
  },
  scriptFlush: (world, { node: index, times, everyMs }) =>
    world.log.during({ kind: 'scriptFlush', times }, () =>
      world.topology.nodeAt(index).with((client) => repeatedly(times, everyMs, () => client.call('SCRIPT', 'FLUSH'))),
    ),
  full: (world, { forMs }) =>
    world.log.during({ kind: 'full', forMs }, () =>
      between(world, ['CONFIG', 'SET', 'maxmemory', '1mb'], forMs, ['CONFIG', 'SET', 'maxmemory', '0']),
    ),
  // A replica of nobody keeps its data and refuses writes.
  readOnly: (world, { forMs }) =>
    world.log.during({ kind: 'readOnly', forMs }, () => between(world, ['REPLICAOF', '127.0.0.1', '1'], forMs, ['REPLICAOF', 'NO', 'ONE'])),
  // What a server does to its clients while it hands over to a replica.
  pauseClients: (world, { mode, forMs }) =>
    world.log.during({ kind: 'pauseClients', mode, forMs }, async () => {
      await world.topology.node.call('CLIENT', 'PAUSE', String(forMs), mode);
      await pause(forMs);
      await world.topology.ready();
    }),
  loading: (world, { forMs }) =>
    world.log.during({ kind: 'loading', forMs }, async () => {
      await world.topology.node.kill();
      await world.topology.node.startLoading(forMs);
    }),
  serverClock: (world, { jumpMs, forMs }) => jump(world, world.topology.node.clock, { kind: 'serverClock', jumpMs, forMs }),

  killConsumer: (world, params) => kill(world, 'consumers', { ...params, kind: 'killConsumer' }),
  killPublisher: (world, params) => kill(world, 'publishers', { ...params, kind: 'killPublisher' }),
  stopConsumer: (world, params) => stop(world, 'consumers', { ...params, kind: 'stopConsumer' }),
  stopPublisher: (world, params) => stop(world, 'publishers', { ...params, kind: 'stopPublisher' }),
  async restartConsumer(world, { index }) {
    const worker = chosen(world.consumers, index);
    if (!worker) return;
    await world.log.during({ kind: 'restartConsumer', target: worker.name }, async () => {
      worker.leaving = true;
      await worker.close(world.closeTimeoutMs);
      await world.replace(worker);
    });
  },
  async workerClock(world, { index, jumpMs, forMs }) {
    const worker = chosen([...world.consumers, ...world.publishers], index);
    if (worker) await jump(world, worker.clock, { kind: 'workerClock', target: worker.name, jumpMs, forMs });
  },

  latency: (world, { ms, forMs }) =>
    world.log.during({ kind: 'latency', ms, forMs }, async () => {
      world.topology.proxy.slow(ms);
      await pause(forMs);
      world.topology.proxy.slow(0);
    }),
  stall: (world, { forMs }) =>
    world.log.during({ kind: 'stall', forMs }, async () => {
      world.topology.proxy.stall();
      await pause(forMs);
      world.topology.proxy.heal();
    }),
  cut: (world, { way, bytes }) =>
    world.log.during({ kind: 'cut', way, bytes }, async () => {
      const before = world.topology.proxy.cuts();
      world.topology.proxy.cutAfter(way, bytes);
      // Where hardly anything passes, it is not waited for.
      for (const end = now() + 3_000; world.topology.proxy.cuts() === before && now() < end; ) await pause(5);
      world.topology.proxy.heal();
    }),
  cutAll: (world) => world.log.during({ kind: 'cutAll' }, async () => world.topology.proxy.cutAll()),

  forgetRetries: (world, { times, everyMs }) =>
    world.topology.node.with((client) => repeatedly(times, everyMs, () => forgetRetries(client, world.prefix))),
  storeAgain: (world) => world.topology.node.with((client) => storeAgain(client, world.prefix)),

  failover: (world, { node }) => world.log.during({ kind: 'failover' }, () => world.topology.cluster.failover(node)),
  moveSlot: (world, { bucket, to }) => world.log.during({ kind: 'moveSlot', bucket }, () => world.topology.cluster.moveSlot(bucket, to)),
};

/** Acknowledges what waits for its retry. */
async function forgetRetries(client, prefix) {
  for (const key of await keysOf(client, prefix, 'stream'))
    for (const [, group] of await client.xinfo('GROUPS', key)) {
      const waiting = await client.xpending(key, group, '-', '+', 100, '~retry');
      if (waiting.length > 0) await client.xack(key, group, ...waiting.map(([id]) => id));
    }
}

/** Writes the last entry of each stream a second time. */
async function storeAgain(client, prefix) {
  for (const key of await keysOf(client, prefix, 'stream'))
    for (const [, fields] of await client.xrevrange(key, '+', '-', 'COUNT', 1)) await client.xadd(key, '*', ...fields);
}

/** There and back: a clock jumps twice. */
const jump = (world, clock, fault) =>
  world.log.during(fault, async () => {
    clock.jump(fault.jumpMs);
    await pause(fault.forMs);
    clock.jump(0);
  });

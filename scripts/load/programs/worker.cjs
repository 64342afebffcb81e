/**
 * One of the processes: opens its buses and subscriptions, publishes at its share of the rate when told to, and answers what
 * it is asked. An event is named by its process and a number, so that what was published and what each group handled fit
 * into arrays that are as long at the start as at the end: the test's own books do not grow.
 */
const { existsSync, readdirSync } = require('node:fs');
const { RedisEventBus } = require('@bluefly/ossa');
const { count, newHistogram } = require('../histogram.cjs');

/** { number, seed, rate, ttl, capacity, redis: [for each of its buses] } */
const task = JSON.parse(process.argv[2]);
const tickMs = 20;
/** Calls that wait for an answer at once: a machine that cannot keep up shows it in the rate, not in its memory. */
const outstandingMax = 1_000;
const firstAtOnce = 5;
const closeTimeoutMs = 10_000;

/** ms of a clock that the processes of a machine share. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

(async () => {
  const plan = await import('../plan.mjs');
  const all = plan.subscriptions(task.seed);
  const groupsOf = plan.groupsOfTypes(all);
  const next = plan.publications(task.seed, task.number);
  const filler = 'x'.repeat(1024 * 1024);

  const counts = { issued: 0, published: 0, expected: 0, calls: 0, handled: 0, again: 0, refused: 0, wrong: 0, failed: 0 };
  Object.assign(counts, { errors: 0, deadLettered: 0, expired: 0, lost: 0, disconnected: 0 });
  /** The last things that should not be. */
  const complaints = [];
  let latencies = newHistogram();

  /** Of each event published here: its type and 1, by number; 0 is not published. */
  const books = new Uint16Array(task.capacity);
  /** A bit for each group, process and number. */
  const bitmapBytes = Math.ceil(task.capacity / 8);
  const bitmaps = plan.groups.map(() => Array.from({ length: plan.processes }, () => new Uint8Array(bitmapBytes)));
  // Memory that was never written to is not there yet, and would come in the course of the run.
  for (const array of [books, ...bitmaps.flat()]) array.fill(1).fill(0);

  function complain(what, error) {
    counts[what]++;
    complaints.push(`${what}: ${error?.code ?? ''} ${error?.message ?? error}`.slice(0, 300));
    if (complaints.length > 10) complaints.shift();
  }

  const logger = {
    debug() {},
    info() {},
    warn: (text) => complaints.push(`warning: ${text}`.slice(0, 300)),
    error: (text) => complain('errors', text),
  };

  async function openBus(redis) {
    const bus = new RedisEventBus({
      redis,
      logger,
      performance: { connectionPoolSize: plan.connectionPoolSize },
      defaults: { ttl: task.ttl },
      limits: { keepAcknowledged: plan.keepAcknowledged },
    });
    bus.on('error', (error) => complain('errors', error));
    bus.on('event:failed', ({ error }) => complain('failed', error));
    bus.on('event:dead-lettered', ({ eventType, group, reason }) => complain('deadLettered', `${eventType} ${group} ${reason}`));
    bus.on('event:expired', ({ eventType, group }) => complain('expired', `${eventType} ${group}`));
    bus.on('data:loss', ({ eventType, group }) => complain('lost', `${eventType} ${group}`));
    bus.on('connection:lost', ({ error }) => complain('disconnected', error));
    await bus.connect();
    return bus;
  }

  function handlerOf(groupName) {
    const group = plan.groups.indexOf(groupName);
    return ({ metadata, data }) => {
      count(latencies, now() - data.at);
      counts.calls++;
      if (data.text.length !== data.length || !groupsOf[data.type].includes(group) || plan.types[data.type] !== metadata.type)
        complain('wrong', `${metadata.type} in ${groupName}`);
      const bitmap = bitmaps[group][data.process];
      const bit = 1 << (data.number & 7);
      if (bitmap[data.number >> 3] & bit) return void counts.again++;
      bitmap[data.number >> 3] |= bit;
      counts.handled++;
    };
  }

  async function publish({ type, bytes } = next()) {
    const number = counts.issued++;
    const data = { process: task.number, number, type, at: now(), length: 0, text: '' };
    data.length = Math.max(0, bytes - JSON.stringify(data).length - 6);
    data.text = filler.slice(0, data.length);
    try {
      await buses[number % buses.length].publish(plan.types[type], data);
      books[number] = type + 1;
      counts.published++;
      counts.expected += groupsOf[type].length;
      return true;
    } catch (error) {
      complain('refused', error);
    }
  }

  const firstTypes = plan.firstTypes(task.number);
  /** The first events of the next types; whether there are more. What a slow machine refuses comes again. */
  async function publishFirst() {
    const publishOne = async (type) => (await publish({ type, bytes: 100 })) || firstTypes.push(type);
    await Promise.all(firstTypes.splice(0, firstAtOnce).map(publishOne));
    return firstTypes.length > 0;
  }

  let publishing;
  function startPublishing() {
    const start = now();
    const before = counts.issued;
    publishing = setInterval(() => {
      const due = before + Math.floor(((now() - start) / 1000) * task.rate);
      while (counts.issued < Math.min(due, task.capacity) && counts.issued - counts.published - counts.refused < outstandingMax)
        void publish();
    }, tickMs);
  }

  let closing = false;
  const buses = [];
  const does = {
    async subscribe() {
      for (const redis of task.redis) buses.push(await openBus(redis));
      const first = task.number * plan.busesEach;
      for (const { bus, group, pattern } of all)
        if (bus >= first && bus < first + plan.busesEach) await buses[bus - first].subscribe(pattern, handlerOf(group), { group });
    },
    publishFirst,
    publish: startPublishing,
    stop: () => clearInterval(publishing),
    /** Seconds so far. */
    cpu() {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    },
    undelivered: () => counts.expected - counts.handled,
    sample() {
      const { rss, heapTotal, heapUsed, external, arrayBuffers } = process.memoryUsage();
      const files = existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : null;
      const taken = { ...counts, rss, heapTotal, heapUsed, external, arrayBuffers, files, latencies: [...latencies] };
      latencies = newHistogram();
      return taken;
    },
    books: () => ({
      books: base64(books),
      bitmaps: bitmaps.map((group) => group.map(base64)),
      complaints,
    }),
    deadLetters: () => buses[0].deadLetters.count(),
    async close() {
      await Promise.all(buses.map((bus) => bus.disconnect({ drainTimeoutMs: closeTimeoutMs })));
      closing = true;
      // Nothing else may keep the process running.
      process.disconnect();
    },
  };

  process.once('disconnect', () => closing || process.exit(1));
  process.on('message', async ({ ask, id }) => {
    try {
      const answer = await does[ask]();
      if (process.connected) process.send({ id, answer });
    } catch (error) {
      process.send({ id, error: `${error.code ?? ''} ${error.stack}` });
    }
  });
  process.send({ ready: true });
})();

const base64 = ({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength).toString('base64');

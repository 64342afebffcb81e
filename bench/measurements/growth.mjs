/**
 * What an event costs where there is much of something, beside where there is little of it: CPU time of the JavaScript thread, of the engine
 * and of the server.
 */
import { counter, pump } from '../lib/counting.mjs';
import { data, type } from '../lib/event.mjs';
import { lanes } from '../lib/run.mjs';
import { withBus } from '../lib/sides.mjs';

const ahead = 2_000;
const manyTypes = 1_000;
const manySubscriptions = 500;
const largeBacklog = 1_000_000;
const options = { maxUnacknowledged: 1_000 };
const everything = { name: 'kind.*', options };

const kinds = (number) => Array.from({ length: number }, (_, n) => `kind.${n}`);
const sum = (values) => values.reduce((all, one) => all + one, 0);

/** The figure is the sum of what it cost all of them. */
const costs = ({ cpu }) => ({ value: sum(Object.values(cpu)), cpu });

/** Publishes events of `types` in turn and consumes them at once by `subscriptions`; the first event of each type does not count. */
const throughAll = (types, subscriptions) => (context) => {
  const { address, redis, count } = context;
  return withBus(address, async (bus) => {
    const publish = (i) => bus.publish(types[i % types.length], data(i));
    let current;
    for (const { name, options: own } of subscriptions) await bus.subscribe(name, (event) => current.handler(event), own);
    const run = async (events) => {
      const more = pump(events, ahead, publish, (error) => current.fail(error));
      current = await counter(redis, events, more);
      more(0);
      return current.result(new Promise(() => {}));
    };
    await run(types.length);
    return costs(await run(count / 2));
  });
};

export const growthTypes = {
  name: 'CPU of an event, published and consumed by one subscription',
  unit: 'µs',
  sides: {
    '1,000 event types': throughAll(kinds(manyTypes), [everything]),
    'one event type': throughAll(kinds(1), [everything]),
  },
};

export const growthSubscriptions = {
  name: 'CPU of an event of 500 types, published and consumed',
  unit: 'µs',
  sides: {
    '500 subscriptions, one a type': throughAll(
      kinds(manySubscriptions),
      kinds(manySubscriptions).map((name) => ({ name, options })),
    ),
    'one subscription to all of them': throughAll(kinds(manySubscriptions), [everything]),
  },
};

/** Batches of 100, ten at a time. */
const fill = (count) => (address) =>
  withBus(address, (bus) => {
    const batch = (first) => Array.from({ length: 100 }, (_, i) => ({ eventType: type, data: data(first + i) }));
    return lanes({ count: count / 100, width: 10 }, (at) => bus.publishBatch(batch(at * 100)));
  });

let groups = 0;

/** A new group, from the first event on, that handles `count` of what waits for it, and is gone then. */
const fromStart = (address, redis, count) =>
  withBus(address, async (bus) => {
    const group = `group-${groups++}`;
    const { handler, result } = await counter(redis, count);
    await bus.subscribe(type, handler, { ...options, group, startFrom: 'beginning', ephemeral: true });
    return costs(await result(new Promise(() => {})));
  });

export const growthBacklog = {
  name: 'CPU of an event, consumed from a backlog',
  unit: 'µs',
  sides: {
    '1,000,000 wait': async ({ servers, count }) => {
      const { addresses, clients } = await servers.backlog(fill(largeBacklog));
      return fromStart(addresses[0], clients[0], count / 2);
    },
    'no more than are taken': async ({ address, redis, count }) => {
      await fill(count / 2)(address);
      return fromStart(address, redis, count / 2);
    },
  },
};

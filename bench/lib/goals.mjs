/** What has to be reached. */
import { sideOf, sizes } from './sizes.mjs';
import { bend, difference, each, ratio } from './stats.mjs';

const wide = 'ossa, maxUnacknowledged 1,000';
const limit = 'redis-benchmark XADD, pipeline 100';
const ping = 'PING by ioredis';
const masters = 'three masters';

const parts = { javascript: 'JavaScript', engine: 'engine', server: 'server' };

/**
 * `figure` makes it of the sides of a measurement, or of several where `of` is a list; `least` or `most` is to be reached, `aim` is what would
 * be better still.
 */
const goals = [
  { of: 'publish', name: 'publish, times ioredis', figure: (s) => ratio(s.ossa, s.ioredis), least: 4.5 },
  { of: 'publish', name: 'publish, times BullMQ add', figure: (s) => ratio(s.ossa, s.BullMQ), least: 6 },
  { of: 'publish', name: "publish, times the server's limit", figure: (s) => s[limit] && ratio(s.ossa, s[limit]), least: 0.8 },
  { of: ['publishBatch', 'publish'], name: 'publishBatch of 100, times publish', figure: (b, p) => ratio(b.ossa, p.ossa), least: 1 },
  { of: 'singlePublish', name: 'one publish at a time, p50, times ioredis', figure: (s) => ratio(s.ossa, s.ioredis), most: 1.15, aim: 1 },
  { of: 'singlePublish', name: 'the same, p99', figure: (s) => ratio(s.ossa.p99, s.ioredis.p99), most: 1.15, aim: 1 },
  { of: 'singlePublish', name: 'one publish at a time, p50, µs', figure: (s) => s.ossa, most: 1_000 },
  { of: 'singlePublish', name: "the same above the server's round trip, µs", figure: (s) => difference(s.ossa, s[ping]), aim: 60 },
  { of: 'consume', name: 'consume, times ioredis', figure: (s) => ratio(s[wide], s.ioredis), least: 2.5 },
  { of: 'consume', name: 'consume, times BullMQ', figure: (s) => ratio(s[wide], s.BullMQ), least: 8 },
  { of: 'publishConsume', name: 'publish and consume at once, times ioredis', figure: (s) => ratio(s[wide], s.ioredis), least: 3 },
  {
    ...{ of: 'latency', name: 'publish to handler at 1,000/s, p50, times two round trips' },
    ...{ figure: (s) => each((one, trip) => one / (2 * trip), s.ossa, s[ping]), most: 1.5 },
  },
  { of: 'latency', name: 'the same, p99, ms', figure: (s) => ms(s.ossa.p99), most: 5 },
  { of: 'crossProject', name: 'message between projects at 1,000/s, p99, ms', figure: (s) => ms(s.ossa.p99), most: 50 },
  { of: 'publish', name: 'CPU of the JavaScript thread, publish, µs', figure: (s) => s.ossa.cpu.javascript, most: 3 },
  { of: 'consume', name: 'CPU of the JavaScript thread, consume, µs', figure: (s) => s[wide].cpu.javascript, most: 4 },
  { of: 'cluster', name: 'three masters, everything on, events/s', figure: (s) => s[masters], least: 10_000 },
  {
    of: 'cluster',
    name: 'the same, times that without Cluster',
    figure: (s) => ratio(s[masters], s['one server, no Cluster']),
    least: 0.8,
  },
  ...grown('growthTypes', '1,000 event types'),
  ...grown('growthSubscriptions', '500 subscriptions'),
  ...grown('growthBacklog', 'a backlog of 1,000,000'),
  { of: 'memory', name: 'memory added at rest, MB', figure: (s) => s.ossa, most: 25 },
  { of: 'payload', name: 'CPU of a byte, 10 to 100 kB, times that of 1 to 10 kB', figure: bent, most: 1.25 },
  { of: 'start', name: 'require and connect, ms more than ioredis', figure: (s) => difference(s.ossa, s.ioredis), most: 60 },
  { of: 'orchestration', name: 'tasks a second to 100 agents', figure: (s) => s['three, to the last completion'], least: 2_000 },
  {
    ...{ of: 'orchestrationCost', name: 'CPU a task with 1,000 agents, times that with 10' },
    ...{ figure: (s) => ratio(s['1,000 agents'], s['10 agents']), most: 1.5 },
  },
];

const ms = (us) => each((value) => value / 1e3, us);

/** A row for each of those that an event costs something: the first side of the measurement beside the second. */
function grown(of, what) {
  return Object.entries(parts).map(([part, who]) => ({
    of,
    name: `CPU of an event with ${what}, times that with one or few: ${who}`,
    figure: (sides) => {
      const [many, few] = Object.values(sides);
      return ratio(many.cpu[part], few.cpu[part]);
    },
    most: 1.25,
  }));
}

function bent(sides) {
  return each((...costs) => bend(costs.map((cost, i) => [sizes[i], cost])), ...sizes.map((bytes) => sides[sideOf(bytes)]));
}

/**
 * Each goal whose measurements were made, with its figure, whether it was reached, and whether what it aims at was; without a figure where the
 * machine has not what it takes. `results` by the key of the measurement.
 */
export function judge(results) {
  return goals
    .map((goal) => ({ ...goal, of: [goal.of].flat() }))
    .filter(({ of }) => of.every((key) => results[key] !== undefined))
    .map(({ of, name, figure: make, least, most, aim }) => {
      const figure = make(...of.map((key) => results[key].sides));
      const within = (bound) => bound === undefined || figure === undefined || figure.median <= bound;
      return {
        name,
        figure,
        goal: wording(least, most, aim),
        reached: within(most) && (least === undefined || figure === undefined || figure.median >= least),
        aimed: within(aim),
      };
    });
}

function wording(least, most, aim) {
  const show = (value) => value.toLocaleString('en-US');
  const bound = least === undefined ? most === undefined || `≤ ${show(most)}` : `≥ ${show(least)}`;
  if (aim === undefined) return bound;
  return bound === true ? `aim: ≤ ${show(aim)}` : `${bound}, aim: ≤ ${show(aim)}`;
}

/** What is to be said of a run: a pure function of what was seen. */
import { bound } from './connections.mjs';
import { processes, spreadBytes } from './plan.mjs';

const mebibyte = 2 ** 20;
const share = 0.1;
/** Of each process: a few payloads of 1 MiB as text, as object and on their way may be in memory at one look and not at another. */
const rssAllowance = processes * 4 * mebibyte;
const fileAllowance = 5;
/** What may be on its way, in seconds of deliveries: a stop of a busy machine, not a backlog. */
const onItsWaySeconds = 2;
const leastRate = 0.95;

export const mean = (list) => list.reduce((sum, each) => sum + each, 0) / list.length;

/** Samples of the middle fifth and of the last. */
export function fifths({ samples, options: { seconds } }) {
  const within = (from, to) => samples.filter(({ at }) => at > from * seconds && at <= to * seconds + 1);
  return { middle: within(0.4, 0.6), end: within(0.8, 1) };
}

/** [{ name, figure, holds }]; `holds` is null where nothing can be said. */
export function judge(facts) {
  return [...levels(facts), ...progress(facts), ...completeness(facts)];
}

function levels(facts) {
  const { rate, ttl, levels: judged } = facts.options;
  if (!judged) return [{ name: 'levels off', figure: 'left out: the run is shorter than 3 minutes', holds: null }];
  const { middle, end } = fifths(facts);
  // Three times the spread of what large events in Redis at one time weigh, by chance.
  const redisAllowance = 3 * spreadBytes(rate, ttl);
  const level = (name, field, unit, most) => {
    const before = mean(middle.map((sample) => sample[field]));
    const after = mean(end.map((sample) => sample[field]));
    const show = (value) => (unit === 1 ? value.toFixed(1) : `${(value / unit).toFixed(1)} MiB`);
    const figure = `${show(before)} → ${show(after)}, at most ${show(most(before))}`;
    return { name: `${name} levels off`, figure, holds: Number.isNaN(before) ? null : after <= most(before) };
  };
  return [
    level('RSS of the processes', 'rss', mebibyte, (before) => before * (1 + share) + rssAllowance),
    level("Redis' used_memory", 'usedMemory', mebibyte, (before) => before * (1 + share) + redisAllowance),
    level('number of open file descriptors', 'files', 1, (before) => before + fileAllowance),
    level('number of connections to Redis', 'connectedClients', 1, (before) => before + fileAllowance),
  ];
}

function progress(facts) {
  const { rate, seconds } = facts.options;
  const { end } = fifths(facts);
  const since = (name) => facts.samples.at(-1)[name] - facts.first[name];
  const [published, expected] = [since('published'), since('expected')];
  const onItsWay = (expected / seconds) * onItsWaySeconds;
  const left = mean(end.map(({ pending, lag }) => pending + lag));
  const undelivered = mean(end.map((sample) => sample.undelivered));
  const bounds = bound(facts);
  const most = Math.max(...bounds.map(({ connections, bound: allowed }) => connections - allowed));
  return [
    {
      name: 'published at the rate',
      figure: `${(published / seconds).toFixed(0)}/s of ${rate}/s`,
      holds: published >= leastRate * rate * seconds,
    },
    { name: 'pending and lag at the end', figure: `${left.toFixed(0)}, at most ${onItsWay.toFixed(0)}`, holds: left <= onItsWay },
    {
      name: 'published and not handled at the end',
      figure: `${undelivered.toFixed(0)}, at most ${onItsWay.toFixed(0)}`,
      holds: undelivered <= onItsWay,
    },
    { name: 'connections of each bus within the bound', figure: `the fullest is ${-most} below it`, holds: most <= 0 },
  ];
}

function completeness({ tally, left, deadLetters, closed, samples, complaints }) {
  const last = samples.at(-1);
  const none = (name, count, what = []) => ({
    name: `no ${name}`,
    figure: [String(count), ...(count > 0 ? what.slice(0, 3) : [])].join('; '),
    holds: count === 0,
  });
  return [
    {
      name: 'handled by every group that matches',
      figure: [`${tally.handled} of ${tally.expected}`, ...tally.named].join('; '),
      holds: tally.missing === 0 && tally.expected > 0,
    },
    none(
      'event left in a group after the drain',
      left.length,
      left.map((each) => JSON.stringify(each)),
    ),
    none('publish refused', last.refused, complaints),
    none('handler failed', last.failed, complaints),
    none("'error' event", last.errors, complaints),
    none('dead letter', deadLetters + last.deadLettered, complaints),
    none('event expired', last.expired, complaints),
    none('wrong delivery', last.wrong, complaints),
    none("'data:loss'", last.lost, complaints),
    none('connection lost', last.disconnected, complaints),
    none('process that did not end by itself', closed.filter((well) => !well).length),
  ];
}

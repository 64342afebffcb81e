/** What is printed of a run, in Markdown. */
import { facts as lines, table } from '../../bench/lib/report.mjs';
import { bound } from './connections.mjs';
import { groups, meanBytes, payloads, subscriptions, types } from './plan.mjs';
import { phaseLine } from './samples.mjs';
import { fifths, mean } from './verdicts.mjs';

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);
const whole = (value) => (Number.isNaN(value) ? '?' : value.toFixed(0));
const tenths = (value) => (Number.isNaN(value) ? '?' : value.toFixed(1));

const figures = [
  ['published/s', (s) => s.publishedRate, whole],
  ['handled/s', (s) => s.handledRate, whole],
  ['published and not handled', (s) => s.undelivered, whole],
  ['pending', (s) => s.pending, whole],
  ['lag', (s) => s.lag, whole],
  ['groups of streams whose lag Redis does not tell', (s) => s.lagUnknown, whole],
  ['publish to handler p50, ms', (s) => s.p50, tenths],
  ['publish to handler p99, ms', (s) => s.p99, tenths],
  ['RSS of all processes, MiB', (s) => s.rss, mebibytes],
  ...[0, 1, 2, 3].map((n) => [`RSS of process ${n}, MiB`, (s) => s.rssOf[n], mebibytes]),
  ['heapUsed of all processes, MiB', (s) => s.heapUsed, mebibytes],
  ['heapTotal of all processes, MiB', (s) => s.heapTotal, mebibytes],
  ['RSS that is neither heap nor external, MiB', (s) => s.native, mebibytes],
  ['external of all processes, MiB', (s) => s.external, mebibytes],
  ['open file descriptors of all processes', (s) => s.files, tenths],
  ['Redis used_memory, MiB', (s) => s.usedMemory, mebibytes],
  ['Redis connected_clients', (s) => s.connectedClients, tenths],
  ['entries in streams', (s) => s.entries, whole],
];

/** All of it. */
export function markdown(facts, verdicts) {
  return `${[...setting(facts), '', course(facts), '', conclusions(verdicts), '', ...rest(facts), '', lines(facts.about)].join('\n')}\n`;
}

function setting({ options, masters, tally, phases }) {
  const mix = payloads.map(({ share, least, most }) => `${(share * 100).toFixed(1)} % ${size(least)}–${size(most)}`).join(', ');
  return [
    `* ${subscriptions(options.seed).length} subscriptions of ${groups.length} groups; ${types.length} types, a tenth of them has half of the events`,
    `* ${options.rate} events/s for ${tenths(options.seconds)} s, ${(tally.expected / tally.published).toFixed(2)} deliveries each; ttl ${options.ttl} s; seed ${options.seed}`,
    `* payloads, log-uniform: ${mix}; ${size(Math.round(meanBytes))} on average`,
    `* ${options.topology}, ${masters} master${masters > 1 ? 's' : ''}`,
    ...phases.map((phase) => `* ${phaseLine(phase)}`),
  ];
}

const size = (bytes) =>
  bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MiB` : bytes >= 1024 ? `${+(bytes / 1024).toFixed(1)} KiB` : `${bytes} bytes`;

/** Start, middle, end. */
function course(facts) {
  const { samples, options } = facts;
  const { middle, end } = fifths(facts);
  const start = samples.find(({ at }) => at >= options.warmUp - 0.5);
  const head = ['figure', `start, ${whole(start.at)} s`, 'middle fifth, mean', 'last fifth, mean', 'drained'];
  const over = (list, value) => mean(list.map(value));
  const rows = figures.map(([name, value, show]) => [
    name,
    show(value(start)),
    show(over(middle, value)),
    show(over(end, value)),
    /\/s$|to handler/.test(name) ? '' : show(value(samples.at(-1))),
  ]);
  return table(head, rows);
}

const conclusions = (verdicts) =>
  table(
    ['verdict', 'figure', 'holds'],
    verdicts.map(({ name, figure, holds }) => [name, figure, holds === null ? 'not judged' : holds ? 'yes' : 'NO']),
  );

function rest(facts) {
  const { keyspaces, samples, tally, complaints } = facts;
  const last = samples.at(-1);
  const bounds = bound(facts);
  const range = (name) => {
    const all = bounds.map((each) => each[name]);
    return `${Math.min(...all)} to ${Math.max(...all)}`;
  };
  const kinds = [...new Set(Object.values(keyspaces).flatMap(Object.keys))].sort();
  const cell = (keyspace, kind) => (keyspace?.[kind] ? `${keyspace[kind].keys}, ${mebibytes(keyspace[kind].bytes)}` : '');
  return [
    table(
      ['group', 'deliveries due', 'handled'],
      Object.entries(tally.byGroup).map(([group, { expected, handled }]) => [group, String(expected), String(handled)]),
    ),
    '',
    table(
      ['keys of Redis by kind: number, MiB', 'start', 'middle', 'end'],
      kinds.map((kind) => [kind, ...['start', 'middle', 'end'].map((point) => cell(keyspaces[point], kind))]),
    ),
    '',
    `* connections of a bus at the most: ${range('connections')}, of all buses ${bounds.reduce((sum, { connections }) => sum + connections, 0)}; bound of a bus: ${range('bound')} with ${range('groups')} groups`,
    `* handled more than once: ${last.again} in one process, ${tally.twice} in two`,
    ...complaints.slice(0, 10).map((text) => `* ${text}`),
  ];
}

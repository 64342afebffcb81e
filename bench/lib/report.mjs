/** The figures as Markdown, which is also what is printed, and as JSON. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sideOf, sizes } from './sizes.mjs';
import { line, ratio } from './stats.mjs';

const folder = join(import.meta.dirname, '../results');

/** Three figures that count, thousands apart. */
export function show(value) {
  if (Number.isNaN(value)) return '?';
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}

const range = ({ min, max }) => `${show(min)}–${show(max)}`;

function row(cells, widths) {
  return `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
}

/** A table in Markdown that is also readable as it stands. */
export function table(head, rows) {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((cells) => cells[i].length)));
  return [
    row(head, widths),
    `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`,
    ...rows.map((cells) => row(cells, widths)),
  ].join('\n');
}

/** Parts of the CPU time that an event cost, by their names. */
const cpuNames = {
  javascript: 'JS',
  engine: 'engine',
  others: 'other threads',
  receiver: 'receiving process',
  buses: 'buses',
  agents: 'agents',
  publishers: 'publishers',
  consumers: 'consumers',
  servers: 'servers',
  server: 'server',
};

function cpuCell(cpu) {
  if (cpu === undefined) return '';
  return Object.keys(cpuNames)
    .filter((part) => cpu[part] !== undefined && (part !== 'engine' || cpu.engine.median >= 0.05))
    .map((part) => `${cpuNames[part]} ${Number.isNaN(cpu[part].median) ? '?' : cpu[part].median.toFixed(1)}`)
    .join(', ');
}

/** One table a measurement would be many: a line of it for each side, the measurement named in its first one. */
function figures(results) {
  const withRange = (figure) => (figure === undefined ? '' : `${show(figure.median)} (${range(figure)})`);
  const rows = Object.values(results).flatMap(({ name, unit, ratios, sides }) => {
    const [first] = Object.values(sides);
    return Object.entries(sides).map(([side, result]) => [
      result === first ? `${name}, ${unit}` : '',
      side,
      withRange(result),
      withRange(result.p99),
      result === first || !ratios ? '' : withRange(ratio(first, result)),
      cpuCell(result.cpu),
    ]);
  });
  return table(['what', 'who', 'median (least–greatest)', 'p99', 'the first one ÷ this', 'CPU, µs an event'], rows);
}

const verdict = ({ figure, reached, aimed }) => {
  if (figure === undefined) return 'not measured';
  if (!reached) return '**no**';
  return aimed ? 'yes' : 'short of the aim';
};

/** The goals and whether they were reached. */
const goalsTable = (goals) =>
  table(
    ['goal', 'to reach', 'median (least–greatest)', 'reached'],
    goals.map((goal) => [
      goal.name,
      goal.goal,
      goal.figure === undefined ? '' : `${show(goal.figure.median)} (${range(goal.figure)})`,
      verdict(goal),
    ]),
  );

/** What an event and what a byte costs, where it was measured. */
function payloadLine({ payload }) {
  if (payload === undefined) return [];
  const { offset, slope } = line(sizes.map((bytes) => [bytes, payload.sides[sideOf(bytes)].median]));
  return ['', `The line nearest to the costs by size: ${offset.toFixed(1)} µs an event and ${(slope * 1e3).toFixed(2)} µs a kB.`];
}

/** Machine and versions, one a line. */
export const facts = (machine) =>
  Object.entries(machine)
    .map(([key, value]) => `* ${key}: ${Array.isArray(value) ? value.join(', ') : value}`)
    .join('\n');

/** All of it as Markdown, in parts that a document may put headings between. */
export const parts = ({ machine, method, results, goals }) => ({
  goals: goalsTable(goals),
  figures: [figures(results), ...payloadLine(results)].join('\n'),
  machine: facts(machine),
  method: method.map((text) => `* ${text}`).join('\n'),
});

/** Writes `<name>.md` and `<name>.json`. */
export function write(name, text, json) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.md`), text);
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(json, null, 2)}\n`);
}

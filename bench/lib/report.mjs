/** The figures as Markdown, which is also what is printed, and as JSON. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ratio } from './rounds.mjs';

const folder = join(import.meta.dirname, '../results');

/** Three figures that count, thousands apart. */
function show(value) {
  if (value >= 1_000) return Math.round(value).toLocaleString('en-US');
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
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

function figures(results) {
  const rows = [];
  for (const { name, unit, sides } of Object.values(results)) {
    const [first] = Object.values(sides);
    for (const [side, result] of Object.entries(sides)) {
      const { cpu, p95, p99 } = result;
      rows.push([
        side === Object.keys(sides)[0] ? name : '',
        side,
        `${show(result.median)} ${unit}`,
        range(result),
        p95 === undefined ? '' : `${show(p95.median)} (${range(p95)})`,
        p99 === undefined ? '' : `${show(p99.median)} (${range(p99)})`,
        result === first ? '' : ratio(first, result).median.toFixed(2),
        cpu === undefined
          ? ''
          : Object.values(cpu)
              .map((us) => (Number.isNaN(us) ? '?' : us.toFixed(1)))
              .join(' / '),
      ]);
    }
  }
  return table(
    [
      ...['what', 'who', 'median', 'least–greatest', 'p95', 'p99', 'first row of it ÷ this'],
      'CPU µs/event: JavaScript thread / process / receiving process, if another / server',
    ],
    rows,
  );
}

/** Machine and versions, one a line. */
export const facts = (machine) =>
  Object.entries(machine)
    .map(([key, value]) => `* ${key}: ${Array.isArray(value) ? value.join(', ') : value}`)
    .join('\n');

/** All of it as Markdown. */
export function markdown({ machine, method, results, goals }) {
  const lines = [
    figures(results),
    '',
    table(
      ['goal', 'to reach', 'median', 'least–greatest', 'reached'],
      goals.map(({ name, goal, figure, reached }) => [name, goal, figure.median.toFixed(2), range(figure), reached ? 'yes' : 'NO']),
    ),
    '',
    facts(machine),
    '',
    ...method.map((line) => `* ${line}`),
  ];
  return `${lines.join('\n')}\n`;
}

/** Writes `<name>.md` and `<name>.json`. */
export function write(name, text, json) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.md`), text);
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(json, null, 2)}\n`);
}

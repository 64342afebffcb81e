/** The part of docs/performance.md that is made by a run. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chart } from './chart.mjs';
import { replaceMarked } from './marked.mjs';

const docs = join(import.meta.dirname, '../../docs');

/** Writes the part and its picture. `parts` as report.mjs makes them, `note` is what has to be known of this run. */
export function writeDocument({ parts, results, machine, note }) {
  const { date, cpu, cpus, memoryGiB, system, node, redis, ossa, commit, peers, loadBefore, loadAfter, cpusBusyWithOtherPrograms } =
    machine;
  const kernel = /^\S+ \d+(\.\d+)*/.exec(system)?.[0] ?? system;
  const content = [
    `Version ${ossa} (${commit}), ${date.slice(0, 10)}; ${cpu}, ${cpus} CPUs, ${memoryGiB} GiB, ${kernel}; Node.js ${node.slice(1)}, redis-server ${redis}; ` +
      `${peers.join(', ')}. Load of the machine before and after ${loadBefore[0]} and ${loadAfter[0]}; other programs kept ` +
      `${cpusBusyWithOtherPrograms} CPUs busy on average. ${note}`.trim(),
    '![Throughput and latency beside other clients, and how far the rounds spread](images/performance.svg)',
    '### Goals',
    parts.goals,
    '### All figures',
    parts.figures,
    '### Method',
    parts.method,
  ].join('\n\n');
  const file = join(docs, 'performance.md');
  writeFileSync(file, replaceMarked(readFileSync(file, 'utf8'), content));
  writeFileSync(join(docs, 'images/performance.svg'), chart(results));
}

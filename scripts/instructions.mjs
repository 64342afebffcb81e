/**
 * `npm run bench -- instructions`: counts the instructions that an event takes on the hot paths of the engine, which is the same on an
 * idle and on a busy machine, and holds them against benches/instructions.json. Exit code 1 when a path takes over 10 % more.
 *
 *   --write        makes what was counted the reference
 *   --only <a,b>   paths by name
 *
 * Where valgrind is missing it is installed, if that needs no question; where it cannot be had, nothing is counted, and that is said.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { countInstructions } from './instructions/callgrind.mjs';
import { paths } from './instructions/paths.mjs';
import { ALLOWED_PERCENT, compare, differences, table } from './instructions/verdict.mjs';
import { cargoMessages } from './lib/addon.mjs';
import { installDebian } from './lib/debian.mjs';
import { root } from './lib/paths.mjs';
import { main, output, works } from './lib/run.mjs';

const file = join(root, 'benches/instructions.json');
/** By which instructions are counted at once: one for each core, as each program has one thread. */
const atOnce = Math.max(1, os.availableParallelism());

main(async () => {
  const { values: options } = parseArgs({ options: { write: { type: 'boolean' }, only: { type: 'string' } } });
  const wanted = options.only?.split(',') ?? Object.keys(paths);
  for (const path of wanted) if (!(path in paths)) throw new Error(`--only ${path}: there are ${Object.keys(paths).join(', ')}`);

  const missing = await cannot();
  if (missing && options.write) throw new Error(missing);
  if (missing) return console.log(`skipped: ${missing}`);

  const { program, here } = await build();
  const folder = join(program, '../callgrind');
  mkdirSync(folder, { recursive: true });
  const measured = await countAll(program, wanted, folder);
  const reference = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { machine: {}, instructionsPerEvent: {} };
  const rows = compare(measured, reference.instructionsPerEvent).map((row) => ({ ...row, failed: row.failed && !options.write }));

  for (const path of wanted) console.log(`${path}: ${paths[path]}`);
  console.log(`\n${table(rows)}\n`);
  for (const line of differences(here, reference.machine)) console.log(line);
  if (options.write) {
    write(here, { ...reference.instructionsPerEvent, ...measured });
    return;
  }
  if (!rows.some(({ failed }) => failed)) return;
  console.log(
    `More than ${ALLOWED_PERCENT} % above the reference, or without one. Where they went: callgrind_annotate ${folder}/<path>.out. ` +
      'If the work is worth it: npm run bench -- instructions --write',
  );
  process.exitCode = 1;
});

/** Why nothing can be counted here; nothing where it can. */
async function cannot() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `the reference is of Linux on x64, and another processor takes other instructions (${process.platform}, ${process.arch})`;
  if (await works('valgrind')) return;
  await installDebian(['valgrind']);
  if (!(await works('valgrind'))) return 'valgrind is not to be had here';
}

/** The program, and by what it was made. */
async function build() {
  const args = ['--profile', 'instructions', '--no-default-features', '--features', 'instructions', '--bin', 'instructions'];
  const printed = await output('cargo', ['build', ...args, '--message-format=json-render-diagnostics']);
  const program = cargoMessages(printed).find(({ target, executable }) => executable && target.name === 'instructions')?.executable;
  if (!program) throw new Error('cargo made no program');
  const rustc = await output('rustc', ['-vV']);
  const valgrind = await output('valgrind', ['--version']);
  const here = {
    rustc: /^release: (.+)$/m.exec(rustc)?.[1] ?? 'unknown',
    target: /^host: (.+)$/m.exec(rustc)?.[1] ?? 'unknown',
    rustflags: process.env.RUSTFLAGS || 'none',
    valgrind: valgrind.trim(),
    glibc: process.report.getReport().header.glibcVersionRuntime ?? 'none',
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
  };
  return { program, here };
}

/** Instructions an event of each path. */
async function countAll(program, wanted, folder) {
  const measured = {};
  const waiting = [...wanted];
  const work = async () => {
    for (let path = waiting.shift(); path; path = waiting.shift())
      measured[path] = await countInstructions(program, path, join(folder, `${path}.out`));
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return Object.fromEntries(wanted.map((path) => [path, measured[path]]));
}

function write(machine, instructionsPerEvent) {
  const sorted = Object.fromEntries(Object.keys(paths).map((path) => [path, instructionsPerEvent[path]]));
  writeFileSync(file, `${JSON.stringify({ machine, instructionsPerEvent: sorted }, null, 2)}\n`);
  console.log(`written to ${file}`);
}

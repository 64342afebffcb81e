/** Counting the instructions of a program by valgrind. What it prints is read here, and nowhere else. */
import { captured } from '../lib/run.mjs';

/** Only what is called inside of this function counts (benches/instructions.rs). */
const MEASURED = '*measured*';

/**
 * Runs `program path` under callgrind; resolves with instructions an event. `file`: where callgrind says which lines they were, for
 * callgrind_annotate.
 *
 * The program sees no environment but this one. valgrind shows every program the same CPU, so that libraries that choose their code by
 * what the CPU can do choose the same everywhere.
 */
export async function countInstructions(program, path, file) {
  const args = ['--tool=callgrind', `--toggle-collect=${MEASURED}`, `--callgrind-out-file=${file}`, program, path];
  const { code, text } = await captured('env', ['-i', `PATH=${process.env.PATH}`, 'LD_BIND_NOW=1', 'valgrind', ...args]);
  if (code !== 0) throw new Error(`${program} ${path} ended under valgrind with exit code ${code}:\n${text}`);
  return perEvent(text);
}

/** Instructions an event, of what the program and callgrind printed. */
export function perEvent(text) {
  const events = Number(/^(\d+)$/m.exec(text)?.[1]);
  const collected = Number(/^==\d+== Collected\s*: (\d+)/m.exec(text)?.[1]);
  if (!(events > 0)) throw new Error(`the program did not say how many events it counted:\n${text}`);
  if (!(collected > 0)) throw new Error(`callgrind counted nothing:\n${text}`);
  return Math.round(collected / events);
}

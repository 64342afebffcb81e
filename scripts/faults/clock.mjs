/** Clocks that jump: the time of day of single processes, shifted by a preloaded library that is compiled here. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../lib/paths.mjs';
import { exitCode } from '../lib/run.mjs';

const source = join(root, 'scripts/faults/clock.c');
let library;

/** Compiles the library, once; resolves with why that cannot be done here, or with nothing. */
export async function prepareClocks() {
  if (process.platform !== 'linux') return 'clocks can be made to jump on Linux only';
  const folder = join(root, 'target/faults');
  mkdirSync(folder, { recursive: true });
  const target = join(folder, 'clock.so');
  const code = await exitCode('cc', ['-shared', '-fPIC', '-O1', '-o', target, source]).catch(() => 1);
  if (code !== 0) return 'clocks cannot be made to jump without a C compiler (cc)';
  library = target;
}

/** A clock of its own for a process that is started with `env`; the file is made in `folder`. */
export function makeClock(folder, name) {
  const file = join(folder, `${name}.clock`);
  const jump = (ms) => {
    const shift = Buffer.alloc(8);
    // The machines this runs on are little-endian; the library reads a native integer.
    shift.writeBigInt64LE(BigInt(ms) * 1_000_000n);
    // In place: the process has mapped this file.
    writeFileSync(file, shift, { flag: 'r+' });
  };
  writeFileSync(file, Buffer.alloc(8));
  return { env: { LD_PRELOAD: library, FAULTS_CLOCK: file }, jump };
}

/** The test suites: Rust's by cargo, JavaScript's by jest. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { bin } from './bin.mjs';
import { root } from './paths.mjs';
import { exitCode } from './run.mjs';
import { engineAlone } from './rust-tests.mjs';

/** The engine's tests as cargo runs them; `args` as on its command line. */
export const cargoTest = (args, options) => exitCode('cargo', ['test', ...engineAlone, '--no-fail-fast', ...args], options);

/** cargo's names for the programs in tests/, none if there are none. */
export function integrationTargets() {
  const folder = join(root, 'tests');
  const names = existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : [];
  return names.some((entry) => isTarget(folder, entry)) ? ['--test', '*'] : [];
}

const isTarget = (folder, entry) => (entry.isDirectory() ? existsSync(join(folder, entry.name, 'main.rs')) : entry.name.endsWith('.rs'));

/** jest on the built package; `args` as on jest's command line. */
export const jest = (args, options) => exitCode(process.execPath, [bin('jest'), ...args], options);

/** The tests of the scripts and measurements themselves, by Node's own runner: jest does not load ES modules. */
export const scriptTests = (options) => {
  const files = ['scripts/faults', 'scripts/instructions', 'scripts/load', 'bench/lib'].flatMap((name) => {
    const folder = join(root, name);
    const tests = readdirSync(folder).filter((file) => file.endsWith('.test.mjs'));
    return tests.map((file) => join(folder, file));
  });
  return exitCode(process.execPath, ['--test', ...files], options);
};

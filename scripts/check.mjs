/** `npm run check`: format, lints, types and the packed package; everything that is right or wrong without running. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { bin } from './lib/bin.mjs';
import { buildFacade } from './lib/facade.mjs';
import { root } from './lib/paths.mjs';
import { exitCode, main, works } from './lib/run.mjs';
import { runSteps, skipped } from './lib/steps.mjs';
import { checkVersions, packMain } from './lib/tarballs.mjs';

const cargo = (...args) => exitCode('cargo', args);
const node = (script, ...args) => exitCode(process.execPath, [script, ...args]);

// biome colours what goes into a file, too.
const biomeColors = process.stdout.isTTY ? [] : ['--colors=off'];

let tarball;

const steps = [
  { name: 'versions agree', run: checkVersions },
  { name: 'cargo fmt', run: () => cargo('fmt', '--all', '--check') },
  {
    name: 'clippy, engine alone',
    run: () => cargo('clippy', '--no-default-features', '--features', 'instructions', '--all-targets', '--', '-D', 'warnings'),
  },
  // The library alone: tests are never built with the binding, and would see its functions as unused.
  { name: 'clippy, with the binding', run: () => cargo('clippy', '--lib', '--', '-D', 'warnings') },
  { name: 'biome: format and lints', run: () => node(bin('@biomejs/biome', 'biome'), 'ci', ...biomeColors) },
  { name: 'tsc --strict, façade and index.d.ts', run: buildFacade },
  {
    name: 'tsc --strict, tests',
    run: () =>
      existsSync(join(root, '__test__')) ? node(bin('typescript', 'tsc'), '-p', 'tsconfig.test.json') : skipped('there are no tests'),
  },
  {
    name: 'publint',
    run: async () => {
      tarball = await packMain(join(root, 'build/check'), { release: true });
      return node(bin('publint'), tarball, '--strict');
    },
  },
  {
    name: 'attw',
    run: () =>
      tarball ? node(bin('@arethetypeswrong/cli', 'attw'), tarball, '--format', 'ascii') : skipped('the package could not be packed'),
  },
  { name: 'cargo deny: licences, sources, bans', run: cargoDeny },
];

/** Without the advisories, which would need the network. It is not installed here: that takes minutes. */
async function cargoDeny() {
  if (!(await works('cargo-deny'))) return skipped('cargo-deny is not installed: cargo install cargo-deny');
  return cargo('deny', '--offline', 'check', 'licenses', 'sources', 'bans');
}

main(async () => {
  process.exitCode = (await runSteps(steps)) ? 0 : 1;
});

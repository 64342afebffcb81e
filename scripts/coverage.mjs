/**
 * `npm run coverage`: how much of the code the tests reach, by rustc's and jest's own instrumentation. Fails under 80 %
 * of lines, branches or functions in TypeScript, or of lines in Rust. The addon that jest loads is instrumented too, so
 * that the binding and what JavaScript reaches of the engine count.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { llvmTools } from './lib/llvm-tools.mjs';
import { root } from './lib/paths.mjs';
import { main, output, run } from './lib/run.mjs';
import { buildRustTests, rustSteps } from './lib/rust-tests.mjs';
import { startServers } from './lib/servers.mjs';
import { runSteps } from './lib/steps.mjs';
import { jest } from './lib/suites.mjs';

const linesMin = 80;
const profiles = join(root, 'build/coverage');
const report = join(root, 'coverage/rust');

/** Instrumented builds live apart, and a profile is written for every process. OSSA_ADDON is what the façade loads. */
const addon = join(profiles, 'ossa.node');
const instrumented = {
  OSSA_ADDON: addon,
  RUSTFLAGS: `${process.env.RUSTFLAGS ?? ''} -C instrument-coverage`.trim(),
  CARGO_TARGET_DIR: join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'coverage'),
  LLVM_PROFILE_FILE: join(profiles, '%p-%m.profraw'),
};

main(async () => {
  const tools = await llvmTools();
  rmSync(profiles, { recursive: true, force: true });
  mkdirSync(profiles, { recursive: true });
  await buildFacade();
  await buildAddon({ profile: 'dev', env: instrumented, target: addon });
  const { env, stop } = await startServers({ cluster: true, eight: true });
  const child = { env: { ...env, ...instrumented } };
  const programs = buildRustTests([], { env: instrumented });
  // The step that runs them says so.
  programs.catch(() => {});
  try {
    const ok = await runSteps([
      ...rustSteps(programs, child),
      { name: 'jest, at least 80 % of TypeScript', run: () => jest(['--coverage'], child) },
      { name: `at least ${linesMin} % of Rust's lines`, run: async () => rustCoverage(tools, await programs) },
    ]);
    process.exitCode = ok ? 0 : 1;
  } finally {
    await stop();
  }
});

/** The test programs hold the map from counters to lines, as the addon does. */
async function rustCoverage(tools, programs) {
  const merged = join(profiles, 'all.profdata');
  const raw = readdirSync(profiles).filter((file) => file.endsWith('.profraw'));
  // By way of a file: the paths may be too many for a command line.
  writeFileSync(join(profiles, 'list'), raw.map((file) => join(profiles, file)).join('\n'));
  await run(tools.profdata, ['merge', '-sparse', '--failure-mode=all', '-f', join(profiles, 'list'), '-o', merged]);

  const objects = [addon, ...programs.map(({ file }) => file)].flatMap((file) => ['-object', file]);
  const common = [`-instr-profile=${merged}`, '--ignore-filename-regex', '/(registry|rustc|tests|target)/', ...objects];
  mkdirSync(report, { recursive: true });
  writeFileSync(join(report, 'lcov.info'), await output(tools.cov, ['export', '-format=lcov', ...common]));
  await run(tools.cov, ['report', '--show-region-summary=false', '--show-functions=false', ...common]);
  const summary = JSON.parse(await output(tools.cov, ['export', '-summary-only', ...common]));
  const { percent } = summary.data[0].totals.lines;
  console.log(`Rust: ${percent.toFixed(1)} % of lines`);
  return percent >= linesMin ? 0 : 1;
}

/**
 * `npm test`: builds, starts private redis-servers, runs every suite against them and says what came out.
 *
 * `--jest` runs only the TypeScript tests, `--rust` only the engine's, `--integration` only tests/ and
 * __test__/integration. Other arguments go to jest, or to cargo with `--rust`:
 * `npm run test:eventbus -- RedisEventBus.test.ts`.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildAddon } from './lib/addon.mjs';
import { chromium } from './lib/chromium.mjs';
import { buildFacade } from './lib/facade.mjs';
import { root } from './lib/paths.mjs';
import { prometheus } from './lib/prometheus.mjs';
import { main } from './lib/run.mjs';
import { buildRustTests, rustSteps } from './lib/rust-tests.mjs';
import { startServers } from './lib/servers.mjs';
import { runSteps } from './lib/steps.mjs';
import { cargoTest, integrationTargets, jest, scriptTests } from './lib/suites.mjs';

const modes = ['--jest', '--rust', '--integration'];

main(async () => {
  const args = process.argv.slice(2);
  const mode = modes.find((name) => args.includes(name));
  const rest = args.filter((arg) => arg !== mode);

  if (mode !== '--rust') await buildFacade();
  const tools = installTools(mode, rest);
  const programs = startRustBuild(mode, rest);
  const addon = startAddonBuild(mode, programs);
  // Nothing that measures time runs beside a compiler, but for one that yields. Without Rust's tests the addon is first.
  await (programs ? Promise.allSettled([programs]) : addon);
  await tools;
  const { env, stop } = await startServers({ cluster: true, eight: true });
  if (!env.OSSA_TEST_REDIS_8)
    console.log('No Redis 8.2 to be had here (OSSA_REDIS_SERVER_8, or PyPI on Linux): the tests use one version of Redis.');
  try {
    process.exitCode = (await runSteps(steps(mode, rest, { env, programs, addon }))) ? 0 : 1;
  } finally {
    await stop();
  }
});

/** A promise of the programs that tests call beside servers of Redis: they are fetched while a compiler is busy. */
function installTools(mode, rest) {
  const tools = (async () => {
    if (wantsBrowser(mode, rest)) await chromium();
    if (mode !== '--rust') await prometheus();
  })();
  // Whoever waits for them hears it.
  tools.catch(() => {});
  return tools;
}

/** Whether the tests of the dashboard page run: they say themselves where there is no browser. */
const wantsBrowser = (mode, rest) =>
  (mode === undefined || mode === '--jest') && (rest.length === 0 || rest.some((arg) => arg.includes('dashboard')));

/**
 * A promise of the addon, null where it is not needed. Its build ends in minutes on a single core, so it goes on while
 * Rust's tests are built and run, in the time that they leave. Cargo locks the folder of each profile apart.
 */
function startAddonBuild(mode, programs) {
  if (mode === '--rust') return null;
  const addon = buildAddon({ yielding: programs !== null });
  // The step that needs it says so.
  addon.catch(() => {});
  return addon;
}

/** A promise of Rust's test programs; null where none are needed, or cargo is asked for something particular. */
function startRustBuild(mode, rest) {
  if (mode === '--jest' || (mode === '--rust' && rest.length > 0)) return null;
  const targets = mode === '--integration' ? integrationTargets() : [];
  if (mode === '--integration' && targets.length === 0) return null;
  const programs = buildRustTests(targets);
  // The step that runs them says so.
  programs.catch(() => {});
  return programs;
}

function steps(mode, rest, { env, programs, addon }) {
  const withAddon = (run) => async () => {
    await addon;
    return run();
  };
  const typescript = (args) => ({ name: `jest ${args.join(' ')}`.trim(), run: withAddon(() => jest(args, { env })) });
  const tools = {
    name: 'node --test scripts/faults scripts/instructions scripts/load bench/lib',
    run: withAddon(() => scriptTests({ env })),
  };
  const [rust, documentation] = rustSteps(programs, { env });
  switch (mode) {
    case '--jest':
      return [typescript(rest)];
    case '--rust':
      return programs
        ? [rust, documentation]
        : [{ name: `cargo test --no-default-features ${rest.join(' ')}`, run: () => cargoTest(rest, { env }) }];
    case '--integration':
      return [
        ...(programs ? [rust] : []),
        ...(existsSync(join(root, '__test__/integration')) ? [typescript(['__test__/integration', ...rest])] : []),
      ];
    default:
      return [rust, documentation, { name: 'the addon', run: withAddon(() => 0) }, typescript(rest), tools];
  }
}

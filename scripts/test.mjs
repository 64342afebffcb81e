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
import { buildFacade } from './lib/facade.mjs';
import { root } from './lib/paths.mjs';
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
  // Both at the same time: the addon ends in minutes on one core. Cargo locks a folder of its own for each profile.
  const programs = startRustBuild(mode, rest);
  if (mode !== '--rust') await buildAddon();
  await Promise.allSettled([programs]);
  const { env, stop } = await startServers({ cluster: true, eight: true });
  if (!env.OSSA_TEST_REDIS_8)
    console.log('No Redis 8.2 to be had here (OSSA_REDIS_SERVER_8, or PyPI on Linux): the tests use one version of Redis.');
  try {
    process.exitCode = (await runSteps(steps(mode, rest, env, programs))) ? 0 : 1;
  } finally {
    await stop();
  }
});

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

function steps(mode, rest, env, programs) {
  const typescript = (args) => ({ name: `jest ${args.join(' ')}`.trim(), run: () => jest(args, { env }) });
  const tools = { name: 'node --test scripts/faults scripts/load', run: () => scriptTests({ env }) };
  switch (mode) {
    case '--jest':
      return [typescript(rest)];
    case '--rust':
      return programs
        ? rustSteps(programs, { env })
        : [{ name: `cargo test --no-default-features ${rest.join(' ')}`, run: () => cargoTest(rest, { env }) }];
    case '--integration':
      return [
        ...(programs ? [rustSteps(programs, { env })[0]] : []),
        ...(existsSync(join(root, '__test__/integration')) ? [typescript(['__test__/integration', ...rest])] : []),
      ];
    default:
      return [...rustSteps(programs, { env }), typescript(rest), tools];
  }
}

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
import { startServers } from './lib/servers.mjs';
import { runSteps } from './lib/steps.mjs';
import { cargoTest, integrationTargets, jest, scriptTests } from './lib/suites.mjs';

const modes = ['--jest', '--rust', '--integration'];

main(async () => {
  const args = process.argv.slice(2);
  const mode = modes.find((name) => args.includes(name));
  const rest = args.filter((arg) => arg !== mode);

  if (mode !== '--rust') {
    await buildFacade();
    await buildAddon();
  }
  const { env, stop } = await startServers({ cluster: true, eight: true });
  if (!env.OSSA_TEST_REDIS_8)
    console.log('No Redis 8.2 to be had here (OSSA_REDIS_SERVER_8, or PyPI on Linux): the tests use one version of Redis.');
  try {
    process.exitCode = (await runSteps(steps(mode, rest, env))) ? 0 : 1;
  } finally {
    await stop();
  }
});

function steps(mode, rest, env) {
  const rust = (args) => ({
    name: `cargo test --no-default-features ${args.join(' ')}`.trim(),
    run: () => cargoTest(args, { env }),
  });
  const tools = { name: 'node --test scripts/faults scripts/load', run: () => scriptTests({ env }) };
  const typescript = (args) => ({ name: `jest ${args.join(' ')}`.trim(), run: () => jest(args, { env }) });
  switch (mode) {
    case '--jest':
      return [typescript(rest)];
    case '--rust':
      return [rust(rest)];
    case '--integration': {
      const targets = integrationTargets();
      return [
        ...(targets.length > 0 ? [rust(targets)] : []),
        ...(existsSync(join(root, '__test__/integration')) ? [typescript(['__test__/integration', ...rest])] : []),
      ];
    }
    default:
      return [rust([]), typescript(rest), tools];
  }
}

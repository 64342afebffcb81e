/** `npm run bench`: builds, and runs bench/main.mjs against a private redis-server; arguments are passed on. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { root } from './lib/paths.mjs';
import { exitCode, main } from './lib/run.mjs';
import { startServers } from './lib/servers.mjs';

main(async () => {
  if (!existsSync(join(root, 'bench/main.mjs'))) throw new Error('bench/main.mjs is missing: there is nothing to run');
  await buildFacade();
  await buildAddon();
  const { env, stop } = await startServers();
  try {
    process.exitCode = await exitCode(process.execPath, ['bench/main.mjs', ...process.argv.slice(2)], { env });
  } finally {
    await stop();
  }
});

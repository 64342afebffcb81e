/**
 * `npm run bench`: builds, installs what is measured beside the bus, and runs bench/main.mjs against a private redis-server;
 * `npm run bench -- growth` runs bench/growth.mjs. Other arguments are passed on. `npm run bench -- instructions` needs none of that:
 * scripts/instructions.mjs.
 */
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { installPeers } from './lib/peers.mjs';
import { exitCode, main } from './lib/run.mjs';
import { startServers } from './lib/servers.mjs';

const args = process.argv.slice(2);
const program = args[0] === 'growth' ? `bench/${args.shift()}.mjs` : 'bench/main.mjs';

main(async () => {
  if (args[0] === 'instructions') {
    process.exitCode = await exitCode(process.execPath, ['scripts/instructions.mjs', ...args.slice(1)]);
    return;
  }
  await installPeers();
  await buildFacade();
  await buildAddon();
  const { env, stop } = await startServers();
  try {
    // What one side left behind is collected before the next one begins, and not at its expense.
    process.exitCode = await exitCode(process.execPath, ['--expose-gc', program, ...args], { env });
  } finally {
    await stop();
  }
});

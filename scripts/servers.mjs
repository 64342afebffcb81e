/**
 * `node scripts/servers.mjs [--cluster] [--eight] [command…]`: starts private redis-servers, runs the command with their
 * addresses in its environment, and ends them. Without a command it prints the addresses and runs until Ctrl-C.
 */
import { exitCode, main } from './lib/run.mjs';
import { startServers } from './lib/servers.mjs';

main(async () => {
  const args = process.argv.slice(2);
  const wanted = { cluster: false, eight: false };
  while (args[0]?.startsWith('--')) {
    const name = args.shift().slice(2);
    if (!(name in wanted)) throw new Error(`unknown option --${name}: --cluster or --eight`);
    wanted[name] = true;
  }
  const { env, stop } = await startServers(wanted);
  if (args.length === 0) {
    for (const [name, value] of Object.entries(env)) console.log(`${name}=${value}`);
    setInterval(() => {}, 60_000);
    return;
  }
  try {
    process.exitCode = await exitCode(args[0], args.slice(1), { env });
  } finally {
    await stop();
  }
});

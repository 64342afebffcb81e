/** `npm run demo`: builds, and runs the quick start on the embedded bus, or on Redis with REDIS_URL set. */
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { main, run } from './lib/run.mjs';

main(async () => {
  await buildFacade();
  await buildAddon();
  console.log(`\nexamples/quick-start.mjs on ${where()}\n`);
  await run(process.execPath, ['examples/quick-start.mjs']);
});

function where() {
  const url = process.env.REDIS_URL;
  if (!url) return 'the embedded bus (memory://); set REDIS_URL to see it on Redis';
  // Without the credentials that the address may hold.
  return URL.canParse(url) ? `Redis at ${new URL(url).host}` : 'Redis';
}

/** `npm run build [addon | facade]`: the addon (Rust) and the façade (TypeScript), or one of them. */
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { main } from './lib/run.mjs';

main(async () => {
  const part = process.argv[2];
  if (part && part !== 'addon' && part !== 'facade') throw new Error(`unknown part '${part}': addon or facade`);
  // The façade first: it is built in seconds, so that a type error is seen at once.
  if (part !== 'addon') await buildFacade();
  if (part !== 'facade') await buildAddon();
});

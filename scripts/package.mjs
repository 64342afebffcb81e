/**
 * `npm run package`: builds, and leaves in artifacts/ the tarballs that a user of this platform installs, the main
 * package and the addon's. `npm run package -- --release` names all platform packages as the main one's optional
 * dependencies, which is what is published.
 */
import { rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { root } from './lib/paths.mjs';
import { main } from './lib/run.mjs';
import { checkVersions, packMain, packPlatform } from './lib/tarballs.mjs';

main(async () => {
  checkVersions();
  await buildFacade();
  await buildAddon();
  const artifacts = join(root, 'artifacts');
  rmSync(artifacts, { recursive: true, force: true });
  const release = process.argv.includes('--release');
  for (const tarball of [await packMain(artifacts, { release }), await packPlatform(artifacts)]) console.log(relative(root, tarball));
});

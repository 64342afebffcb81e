// Finishes dist/ after `tsc -p ts/tsconfig.json`: copies the hand-written ES module entries, and holds the public types
// (index.d.ts) against the contract, the façade's classes and the names that are really exported. Fails when they differ.
import { spawnSync } from 'node:child_process';
import { cpSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(join(root, 'package.json'));

cpSync(join(root, 'ts/esm'), join(root, 'dist'), { recursive: true });

const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', join(root, '__test__/types/tsconfig.json')], {
  stdio: 'inherit',
});
if (tsc.status !== 0) fail('The public types (index.d.ts) do not fit the contract or the façade; see above.');

const entries = ['index', 'services/EventBus/index', 'services/ServiceRegistry/index'];
const wanted = Object.keys(require(join(root, 'dist/index.js')))
  .sort()
  .join();
for (const entry of entries) {
  for (const [file, names] of [
    [`${entry}.js`, Object.keys(require(join(root, 'dist', `${entry}.js`)))],
    [`${entry}.mjs`, Object.keys(await import(pathToFileURL(join(root, 'dist', `${entry}.mjs`)).href))],
  ]) {
    const found = names.sort().join();
    if (found !== wanted) fail(`dist/${file} exports ${found}; it should export ${wanted}`);
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Programs of the development dependencies, started with this Node and without npx. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const require = createRequire(import.meta.url);

/** Path of the script behind a package's command. */
export function bin(packageName, command = packageName) {
  const manifest = require.resolve(`${packageName}/package.json`);
  const field = require(manifest).bin;
  return join(dirname(manifest), typeof field === 'string' ? field : field[command]);
}

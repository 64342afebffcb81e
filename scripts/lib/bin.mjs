/** Programs of the development dependencies, started with this Node and without npx. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './paths.mjs';

/** Path of the script behind a package's command. */
export function bin(packageName, command = packageName) {
  const folder = join(root, 'node_modules', packageName);
  if (!existsSync(folder)) throw new Error(`${packageName} is not installed: run npm ci first`);
  const { bin: field } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return join(folder, typeof field === 'string' ? field : field[command]);
}

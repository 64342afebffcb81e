/** What `npm run bench` measures beside the bus: dependencies of bench/ alone, so that nobody else installs them. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './paths.mjs';
import { run } from './run.mjs';

const folder = join(root, 'bench');

/** Packages by path as a lock file has them; in node_modules/.package-lock.json npm keeps what it installed. */
function packages(file) {
  if (!existsSync(file)) return {};
  return JSON.parse(readFileSync(file, 'utf8')).packages;
}

/** Whether all is there as bench/package-lock.json has it. What is for other platforms need not be. */
function upToDate() {
  const installed = packages(join(folder, 'node_modules/.package-lock.json'));
  return Object.entries(packages(join(folder, 'package-lock.json'))).every(([path, { version, optional }]) => {
    if (path === '') return true;
    return installed[path] === undefined ? optional : installed[path].version === version;
  });
}

/** Installs them where they are missing, or are not those of bench/package-lock.json. */
export async function installPeers() {
  if (!upToDate()) await run('npm', ['ci', '--prefix', folder, '--no-audit', '--no-fund']);
}

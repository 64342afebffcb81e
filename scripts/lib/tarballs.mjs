/** The npm packages: the main one, and the one that holds this platform's addon. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './paths.mjs';
import { addonFile, platformName } from './platform.mjs';
import { output } from './run.mjs';

const read = (file) => JSON.parse(readFileSync(join(root, file), 'utf8'));

/** Platforms that have a manifest in npm/. */
export const platforms = () => readdirSync(join(root, 'npm')).filter((name) => existsSync(join(root, 'npm', name, 'package.json')));

/**
 * Packs the main package into `destination` and resolves with the tarball's path.
 *
 * A release names every platform package as an optional dependency, so that npm picks the one that fits. A tarball for
 * this machine does not: its platform package is handed to npm beside it, and `npm ci` of npm 11 refuses a project
 * whose optional dependencies no registry has.
 */
export function packMain(destination, { release = false } = {}) {
  const { scripts: _scripts, devDependencies: _devDependencies, ...manifest } = read('package.json');
  if (release) {
    manifest.optionalDependencies = Object.fromEntries(
      platforms().map((name) => [read(`npm/${name}/package.json`).name, manifest.version]),
    );
  }
  return pack('main', manifest, [...manifest.files, 'README.md', 'LICENSE'], destination);
}

/** Packs the addon built on this machine into `destination` and resolves with the tarball's path. */
export function packPlatform(destination) {
  const platform = platformName();
  if (!platforms().includes(platform)) throw new Error(`${platform} has no manifest in npm/: add npm/${platform}/package.json`);
  return pack(platform, read(`npm/${platform}/package.json`), [addonFile(platform), 'LICENSE'], destination);
}

/** Every version that has to be the same; throws and names those that differ. */
export function checkVersions() {
  const { version } = read('package.json');
  const found = {
    'Cargo.toml': /^version = "(.+)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1],
    'package-lock.json': read('package-lock.json').version,
  };
  for (const name of platforms()) found[`npm/${name}/package.json`] = read(`npm/${name}/package.json`).version;
  const wrong = Object.entries(found).filter(([, other]) => other !== version);
  if (wrong.length > 0)
    throw new Error(`package.json has version ${version}, but ${wrong.map(([file, other]) => `${file} has ${other}`).join(', ')}`);
}

/** Lays the package out in build/package/<name> as users get it, and packs that. */
async function pack(name, manifest, files, destination) {
  const stage = join(root, 'build/package', name);
  rmSync(stage, { recursive: true, force: true });
  mkdirSync(stage, { recursive: true });
  mkdirSync(destination, { recursive: true });
  writeFileSync(join(stage, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  for (const file of files) cpSync(join(root, file), join(stage, file), { recursive: true });
  const printed = await output('npm', ['pack', '--silent', '--pack-destination', destination], { cwd: stage });
  return join(destination, printed.trim().split('\n').at(-1));
}

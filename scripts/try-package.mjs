/**
 * `node scripts/try-package.mjs`: installs the tarballs of artifacts/ in an empty project, as a user does, and runs the
 * quick start there on the embedded bus; then loads every entry point by `require`.
 */
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './lib/paths.mjs';
import { main, run } from './lib/run.mjs';

main(async () => {
  const artifacts = join(root, 'artifacts');
  const tarballs = readdirSync(artifacts).map((file) => join(artifacts, file));
  const cwd = mkdtempSync(join(tmpdir(), 'ossa-try-'));
  const entries = ['', '/services/EventBus', '/services/ServiceRegistry'].map((entry) => `@bluefly/ossa${entry}`);
  try {
    writeFileSync(join(cwd, 'package.json'), '{ "private": true }\n');
    await run('npm', ['install', '--no-audit', '--no-fund', ...tarballs], { cwd });
    copyFileSync(join(root, 'examples/quick-start.mjs'), join(cwd, 'quick-start.mjs'));
    await run(process.execPath, ['quick-start.mjs'], { cwd, env: { REDIS_URL: '' } });
    await run(process.execPath, ['-e', `for (const name of ${JSON.stringify(entries)}) require(name)`], { cwd });
    console.log('The packed package works in an empty project.');
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
});

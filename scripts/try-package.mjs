/**
 * `node scripts/try-package.mjs`: installs the tarballs of artifacts/ in an empty project, as a user does, and runs the
 * quick start there on the embedded bus; then loads every entry point by `require`, and starts the server program as the
 * image does.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { imageStart } from './lib/image.mjs';
import { root } from './lib/paths.mjs';
import { main, run } from './lib/run.mjs';

/** Starts what the image starts, where the image has it below /app; asks how it is; ends it as an engine does. */
async function tryServer(cwd) {
  const { env, folder, command } = imageStart();
  const [program, ...args] = command;
  const server = spawn(program === 'node' ? process.execPath : program, args, {
    cwd: folder.replace(/^\/app/, cwd),
    // Of this machine and the embedded bus: nobody else is to reach it, and it needs nobody.
    env: { ...env, HOST: '127.0.0.1', PORT: '0', REDIS_URL: 'memory://' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve, reject) => server.once('error', reject).once('exit', (code, signal) => resolve(code ?? signal)));
  let url;
  for await (const line of createInterface({ input: server.stdout })) {
    const { message } = JSON.parse(line);
    console.log('%s', message);
    url ??= /^Listening on (.*)$/.exec(message)?.[1];
    if (message !== 'Connected to Redis') continue;
    for (const path of ['/healthz', '/readyz']) {
      const { status } = await fetch(url + path);
      if (status !== 200) throw new Error(`the server program answers ${path} with ${status}`);
    }
    server.kill('SIGTERM');
  }
  const end = await ended;
  if (end !== 0) throw new Error(`the server program ended with ${end}`);
}

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
    await tryServer(cwd);
    console.log('The packed package works in an empty project.');
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
});

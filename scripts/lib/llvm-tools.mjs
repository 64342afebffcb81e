/** llvm-profdata and llvm-cov that read what this rustc writes. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { exitCode, output, works } from './run.mjs';

/** rustup's own, else the system's of rustc's LLVM version; installed first where that needs no question. */
export async function llvmTools() {
  const about = await output('rustc', ['-vV']);
  const host = /^host: (.+)$/m.exec(about)[1];
  const major = /^LLVM version: (\d+)/m.exec(about)[1];
  const sysroot = (await output('rustc', ['--print', 'sysroot'])).trim();

  const ofRustup = toolsNamed((name) => join(sysroot, 'lib/rustlib', host, 'bin', name));
  const ofSystem = toolsNamed((name) => `${name}-${major}`);
  const inRustup = () => existsSync(ofRustup.profdata) && existsSync(ofRustup.cov);
  const inSystem = () => works(ofSystem.profdata);

  if (inRustup()) return ofRustup;
  if (await inSystem()) return ofSystem;
  if (await works('rustup')) await exitCode('rustup', ['component', 'add', 'llvm-tools']);
  if (inRustup()) return ofRustup;
  if (process.getuid?.() === 0 && (await works('apt-get'))) {
    const env = { DEBIAN_FRONTEND: 'noninteractive' };
    await exitCode('apt-get', ['update', '-q'], { env });
    await exitCode('apt-get', ['install', '-y', '-q', '--no-install-recommends', `llvm-${major}`], { env });
  }
  if (await inSystem()) return ofSystem;
  throw new Error(
    `llvm-profdata and llvm-cov of LLVM ${major} are missing: \`rustup component add llvm-tools\`, ` +
      `or the package llvm-${major} of your system.`,
  );
}

const toolsNamed = (path) => ({ profdata: path('llvm-profdata'), cov: path('llvm-cov') });

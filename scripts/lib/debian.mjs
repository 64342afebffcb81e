/** Debian packages that bring programs for the tests. */
import { exitCode, works } from './run.mjs';

/**
 * Installs packages where that needs no question: as root, with apt-get. Resolves with whether it did; else it says what to
 * install, and the tests that need the programs say that they are left out.
 */
export async function installDebian(packages) {
  const names = packages.join(' ');
  if (process.getuid?.() !== 0 || !(await works('apt-get'))) {
    console.log(`Some tests are left out that need Debian's ${names}: sudo apt-get install ${names}`);
    return false;
  }
  console.log(`Installing ${names} with apt-get`);
  // The run level keeps packages from starting services of their own. Another apt-get may be under way: it is waited for.
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const wait = ['-o', 'DPkg::Lock::Timeout=300'];
  await exitCode('apt-get', [...wait, 'update', '-q'], { env });
  const code = await exitCode('apt-get', [...wait, 'install', '-y', '-q', '--no-install-recommends', ...packages], { env });
  if (code !== 0) console.log(`apt-get could not install ${names}; its messages are above. The tests that need it are left out.`);
  return code === 0;
}

/** Programs that the tests call and Debian has. */
import { exitCode, works } from './run.mjs';

/** RUNLEVEL keeps packages from starting servers of their own. */
const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };

/**
 * Installs packages where that needs no question: for root, with apt-get. Resolves with whether apt-get says that they are there; where
 * it cannot be asked, nothing is done but to say what to install.
 */
export async function installDebian(packages) {
  const names = packages.join(' ');
  if (process.getuid?.() !== 0 || !(await works('apt-get'))) {
    console.log(`${names}: not installed. On Debian or Ubuntu: sudo apt-get install ${names}`);
    return false;
  }
  console.log(`${names}: installing with apt-get`);
  await exitCode('apt-get', ['update', '-q'], { env });
  return (await exitCode('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages], { env })) === 0;
}

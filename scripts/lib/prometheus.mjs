/** Prometheus and promtool, for the tests of what is deployed. */
import { installDebian } from './debian.mjs';
import { works } from './run.mjs';

/** Installs them where they are missing and that needs no question; without them those tests are left out, and say so. */
export async function prometheus() {
  if ((await works('promtool')) && (await works('prometheus'))) return;
  await installDebian(['prometheus']);
}

/** The browser in which the dashboard page is tested. */
import { existsSync } from 'node:fs';
import { installDebian } from './debian.mjs';

/** Where Debian puts it. */
const DEBIAN = '/usr/bin/chromium';

/** What a browser of a test is started with: it shows nothing, and asks nobody for anything. */
export const CHROMIUM_ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** OSSA_CHROMIUM, else Debian's, installed first when it is missing and that is possible; null when there is none to be had. */
export async function chromium() {
  if (process.env.OSSA_CHROMIUM) return process.env.OSSA_CHROMIUM;
  if (!existsSync(DEBIAN)) await installDebian(['chromium']);
  return existsSync(DEBIAN) ? DEBIAN : null;
}

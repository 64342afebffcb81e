/** A headless browser for the tests of the dashboard page. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';

const EXECUTABLE = process.env['OSSA_CHROMIUM'] ?? '/usr/bin/chromium';
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Why there are no tests in a browser here; undefined: there are. */
export function noBrowser(): string | undefined {
  if (existsSync(EXECUTABLE)) return undefined;
  return `there is no ${EXECUTABLE}: apt-get install chromium, or name a Chromium in OSSA_CHROMIUM`;
}

export const launch = (): Promise<Browser> => chromium.launch({ executablePath: EXECUTABLE, args: ARGS });

/** A page, and what went wrong on it. */
export interface Watched {
  page: Page;
  /** Errors that the page threw, what it wrote to the console, and what it asked of other hosts. */
  faults: string[];
}

/** A page in a context of its own that says what goes wrong. An answer that a part is switched off is none, though the browser notes it. */
export async function watched(browser: Browser, origin: string, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(`thrown: ${error.message}`));
  page.on('dialog', (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:'))
      faults.push(`asked of another host: ${request.url()}`);
  });
  page.on('console', (message) => {
    const isOff = message.text().includes('status of 404') && message.location().url.startsWith(`${origin}/api/`);
    if (!isOff) faults.push(`console ${message.type()}: ${message.text()} ${message.location().url}`);
  });
  return { page, faults };
}

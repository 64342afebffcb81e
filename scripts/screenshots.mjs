/**
 * `node scripts/screenshots.mjs [--minutes 5]`: runs a bus under load for that long, and takes the pictures of its dashboard page that
 * the documentation shows, docs/images/dashboard-*.png. All that is on them was measured.
 */
import { mkdirSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { chromium as driver } from 'playwright-core';
import { CHROMIUM_ARGS, chromium } from './lib/chromium.mjs';
import { root } from './lib/paths.mjs';
import { main } from './lib/run.mjs';

const { createAgent, createOSSAEventBus, ServiceRegistry } = createRequire(import.meta.url)(root);

const VIEWPORT = { width: 1280, height: 860 };
const BYTES_MAX = 300_000;
const FOLDER = join(root, 'docs/images');

main(async () => {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '5' } } });
  const executablePath = await chromium();
  if (executablePath === null) throw new Error('There is no Chromium to take pictures with.');
  const demo = await startDemo();
  try {
    console.log(`${demo.url}: under load for ${values.minutes} min`);
    await pause(Number(values.minutes) * 60_000);
    const browser = await driver.launch({ executablePath, args: CHROMIUM_ARGS });
    mkdirSync(FOLDER, { recursive: true });
    const letter = (await demo.bus.deadLetters.list({ eventType: 'invoice.wanted' })).items.find(({ error }) => error.includes('timeout'));
    if (letter === undefined) throw new Error('No invoice has failed yet: give it more minutes.');
    const deadLetters = `dead-letters?text=timeout&letter=${encodeURIComponent(letter.id)}`;
    for (const [name, hash, colorScheme] of [
      ['light', 'overview', 'light'],
      ['dark', 'overview', 'dark'],
      ['dead-letters', deadLetters, 'light'],
      ['groups', 'groups', 'light'],
    ])
      await picture(browser, `${demo.url}/#/${hash}`, join(FOLDER, `dashboard-${name}.png`), colorScheme);
    await browser.close();
  } finally {
    await demo.stop();
  }
});

async function picture(browser, url, path, colorScheme) {
  const page = await browser.newPage({ viewport: VIEWPORT, colorScheme });
  await page.goto(url);
  await page.getByText('Live', { exact: true }).waitFor();
  await page.getByText('Loading the event…').waitFor({ state: 'hidden' });
  await refuseEmpty(page, url);
  await page.screenshot({ path });
  await page.close();
  const { size } = statSync(path);
  if (size > BYTES_MAX) throw new Error(`${path} has ${size} bytes, more than ${BYTES_MAX}`);
  console.log(`${relative(root, path)}: ${Math.round(size / 1000)} kB`);
}

/** A picture of a page on which something is switched off, or no chart is drawn, shows nobody what there is. */
async function refuseEmpty(page, url) {
  const off = page.locator('main p', { hasText: /^Off\./ }).filter({ visible: true });
  if ((await off.count()) > 0) throw new Error(`${url}: ${await off.first().textContent()}`);
  if (!url.endsWith('overview')) return;
  const charts = page.locator('main .chart canvas').filter({ visible: true });
  if ((await charts.count()) === 0) throw new Error(`${url}: there is no chart on it`);
}

/** A shop: orders, payments, mails and invoices, some of which fail; agents that pack, services, and two projects that talk. */
async function startDemo() {
  const registry = new ServiceRegistry({ redis: { url: 'memory://registry' } });
  const bus = await createOSSAEventBus(registry, { eventBus: { redis: { url: 'memory://shop' } } });
  await subscribe(bus);
  const agents = await startAgents(bus);
  await registerProjects(bus);
  const services = [await startService(registry, 'payments', 'payment-processing'), await startService(registry, 'warehouse', 'stock')];
  const timers = publishing(bus);
  const { url } = await bus.serve({ port: 0 });
  const stop = async () => {
    for (const timer of timers) clearInterval(timer);
    await Promise.all(agents.map((agent) => agent.stop()));
    await bus.shutdown({ drainTimeoutMs: 2000 });
    await registry.close();
    for (const server of services) server.close();
  };
  return { bus, url, stop };
}

/** A service that is well. */
async function startService(registry, name, capability) {
  const server = createServer((_, response) => response.setHeader('content-type', 'application/json').end('{"status":"ok"}'));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const endpoint = `http://127.0.0.1:${server.address().port}`;
  await registry.register({ name, endpoint, version: '2.1.0', capabilities: [{ name: capability, version: '1.0.0' }] });
  return server;
}

async function subscribe(bus) {
  const takes = (from, to) => () => pause(from + Math.random() * (to - from));
  const retry = { maxAttempts: 2, initialDelay: 200 };
  await bus.subscribe('order.placed', takes(1, 12), { group: 'billing' });
  await bus.subscribe('order.*', takes(0, 2), { group: 'audit' });
  await bus.subscribe('payment.captured', takes(5, 40), { group: 'billing' });
  await bus.subscribe('mail.wanted', takes(20, 90), { group: 'mailer', concurrency: 4 });
  await bus.subscribe('stock.changed', takes(1, 5), { group: 'search-index' });
  const invoice = async ({ data }) => {
    await pause(30 + Math.random() * 120);
    if (data.total > 950) throw new Error('timeout: invoice service did not answer within 5000 ms');
    if (data.total < 12) throw Object.assign(new Error(`no address for customer ${data.customer}`), { permanent: true });
  };
  await bus.subscribe('invoice.wanted', invoice, { group: 'invoicing', retry });
  // A group that was left behind.
  await (await bus.subscribe('stock.changed', takes(1, 2), { group: 'old-reports' })).close();
}

function publishing(bus) {
  const customers = ['ada', 'grace', 'linus', 'margaret', 'niklaus'];
  const any = (list) => list[Math.floor(Math.random() * list.length)];
  let n = 1000;
  const order = () => ({
    orderId: `order-${++n}`,
    customer: any(customers),
    total: Math.round(Math.random() * 100_000) / 100,
    currency: 'EUR',
  });
  // Business comes in waves.
  const wave = () => 0.6 + 0.4 * Math.sin(Date.now() / 25_000);
  const every = (ms, type, data) => setInterval(() => Math.random() < wave() && void bus.publish(type, data()), ms);
  return [
    every(12, 'order.placed', order),
    every(18, 'payment.captured', order),
    every(40, 'mail.wanted', () => ({ to: `${any(customers)}@example.com`, template: 'order-confirmed' })),
    every(60, 'invoice.wanted', order),
    every(25, 'stock.changed', () => ({ sku: `sku-${Math.ceil(Math.random() * 400)}`, left: Math.ceil(Math.random() * 90) })),
    setInterval(
      () => void bus.distributeTask({ id: `pack-${++n}`, type: 'pack', priority: 1, requiredCapabilities: ['pack'], data: order() }),
      700,
    ),
    setInterval(() => void bus.sendCrossProjectMessage('shop', 'accounting', 'order.booked', order()), 400),
    setInterval(() => void bus.sendCrossProjectMessage('accounting', 'shop', 'stock.changed', {}).catch(() => undefined), 9000),
  ];
}

function startAgents(bus) {
  const pack = () => pause(400 + Math.random() * 900);
  return Promise.all(
    ['packer-1', 'packer-2', 'packer-3'].map((agentId) =>
      createAgent(bus, { agentId, agentType: 'packer', capabilities: ['pack'], maxTasks: 2, drainOnSigterm: false, handler: pack }),
    ),
  );
}

async function registerProjects(bus) {
  const project = (projectId, allowedEventTypes) => ({
    ...{ projectId, name: projectId, namespace: projectId, allowedEventTypes, allowedTargets: ['*'] },
    credentials: { apiKey: projectId, secret: `the secret of ${projectId} in this demo` },
  });
  await bus.registerProject(project('shop', ['order.**']));
  await bus.registerProject(project('accounting', ['invoice.**']));
  await bus.setupCrossProjectHandler('accounting', 'order.*', () => undefined);
}

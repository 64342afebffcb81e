/// <reference lib="dom" />
/** The dashboard page in a headless Chromium, on a bus with real events. */
import { readFileSync } from 'node:fs';
import {
  createAgent,
  createOSSAEventBus,
  type DeepPartial,
  type OSSAEventBus,
  type OSSAEventBusConfig,
  ServiceRegistry,
} from '@bluefly/ossa';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { launch, noBrowser, type Watched, watched } from './support/browser';
import { project } from './support/projects';
import { until } from './support/wait';
import { freshPrefix, quick } from './support/world';

const missing = noBrowser();
if (missing !== undefined) console.log(`The tests of the dashboard page are skipped: ${missing}.`);

const HOSTILE = '<img src=x onerror="window.hurt=1"></script><script>window.hurt=1</script>';

(missing === undefined ? describe : describe.skip)('the dashboard page', () => {
  jest.setTimeout(60_000);
  let browser: Browser;
  let bus: OSSAEventBus;
  let registry: ServiceRegistry;
  let url: string;
  const pages: Watched[] = [];

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser?.close());

  async function start(over: DeepPartial<OSSAEventBusConfig> = {}, token?: string): Promise<void> {
    registry = new ServiceRegistry({ redis: { url: 'memory://', keyPrefix: freshPrefix() } });
    const logger = { debug() {}, info() {}, warn() {}, error() {} };
    bus = await createOSSAEventBus(registry, {
      ...over,
      eventBus: { redis: { url: 'memory://' }, logger },
      serviceRegistry: { healthMonitoring: false, contractDiscovery: false },
    });
    ({ url } = await bus.serve({ port: 0, ...(token === undefined ? {} : { token }) }));
  }

  afterEach(async () => {
    const faults = pages.flatMap((each) => each.faults);
    for (const { page } of pages.splice(0)) await page.context().close();
    await bus?.shutdown({ drainTimeoutMs: 0 });
    await registry?.close();
    expect(faults).toEqual([]);
  });

  async function open(hash = '', options: BrowserContextOptions = {}): Promise<Page> {
    const opened = await watched(browser, url, options);
    pages.push(opened);
    await opened.page.goto(`${url}/${hash}`);
    await opened.page.locator('h1').waitFor();
    return opened.page;
  }

  /** Dead letters of a handler that fails with `error`. */
  async function bury(type: string, data: unknown[], error = 'no route', group = 'mailer'): Promise<void> {
    const subscription = await bus.subscribe(type, () => Promise.reject(new Error(error)), { group, retry: quick(0) });
    const before = await bus.deadLetters.count({ eventType: type });
    for (const datum of data) await bus.publish(type, datum);
    await until(async () => (await bus.deadLetters.count({ eventType: type })) === before + data.length);
    await subscription.close();
  }

  const rows = (page: Page, caption: string) =>
    page.locator('table', { has: page.locator('caption', { hasText: new RegExp(`^${caption}$`) }) }).locator('tbody tr');

  describe('the views, with what the bus knows', () => {
    test('overview: the figures, the charts with a table each, and what happened most', async () => {
      await start();
      await bus.subscribe('order.placed', () => undefined, { group: 'billing' });
      await bury('report.wanted', [1, 2], 'the printer is on fire');
      for (let n = 0; n < 20; n++) await bus.publish('order.placed', { n });
      await until(() => bus.getMetrics().eventsConsumed >= 20);
      const page = await open();
      const tile = (name: string) =>
        page.locator('.tiles div', { has: page.locator('dt', { hasText: new RegExp(`^${name}$`) }) }).locator('dd');
      // The bus has events of its own beside those.
      const { totalEvents } = (await bus.getDashboardData()).overview;
      expect(totalEvents).toBeGreaterThanOrEqual(22);
      await tile('Events')
        .filter({ hasText: new RegExp(`^${totalEvents}$`) })
        .waitFor();
      await tile('Dead letters').filter({ hasText: /^2$/ }).waitFor();
      const names = (scope: string) => page.getByRole('region', { name: scope, exact: true }).locator('dt').allTextContents();
      expect(await names('This process')).toEqual(['Throughput', 'Error rate', 'Latency', 'Queue depth', 'Up for']);
      expect(await names('All processes')).toEqual(['Events', 'Dead letters']);
      await rows(page, 'Event types').filter({ hasText: 'order.placed' }).filter({ hasText: '20' }).waitFor();
      await rows(page, 'Errors').filter({ hasText: 'printer is on fire' }).first().waitFor();
      for (const chart of ['Throughput', 'Latency', 'Error rate', 'Queue depth']) {
        const section = page.getByRole('region', { name: chart, exact: true });
        expect(await section.getByRole('img').getAttribute('aria-label')).toMatch(new RegExp(`^${chart}[:,] `));
        await section.locator('canvas').waitFor();
        await section.locator('summary').click();
        const data = await bus.getDashboardData();
        await until(async () => (await section.locator('tbody tr').count()) === data.realtime.timestamp.length);
      }
      await rows(page, 'Parts of the bus').filter({ hasText: 'Event bus' }).waitFor();
    });

    test('event types: counts and times in the window that is chosen', async () => {
      await start();
      await bus.subscribe('order.placed', () => undefined, { group: 'billing' });
      for (let n = 0; n < 7; n++) await bus.publish('order.placed', { n });
      await until(() => bus.getMetrics().eventsConsumed === 7);
      const page = await open('#/event-types');
      const row = rows(page, 'Event types').filter({ hasText: 'order.placed' });
      await row.filter({ hasText: '7' }).waitFor();
      const select = page.getByLabel('Window');
      expect(await select.locator('option').allTextContents()).toEqual(['1 min', '5 min', '15 min', '1 h']);
      await select.selectOption({ label: '15 min' });
      await page.waitForURL(/window=900/);
      await row.waitFor();
      await page.reload();
      await until(async () => (await page.getByLabel('Window').inputValue()) === '900');
    });

    test('groups: pending, lag and consumers, in the order that is chosen', async () => {
      await start();
      await bus.subscribe('order.placed', () => undefined, { group: 'billing' });
      const gone = await bus.subscribe('order.placed', () => undefined, { group: 'archive' });
      await gone.close();
      await bus.publish('order.placed', 1);
      // The bus has groups of its own beside those.
      const page = await open('#/groups?q=order.placed');
      await rows(page, 'Consumer groups').filter({ hasText: 'archive' }).filter({ hasText: 'none' }).waitFor();
      const names = () => rows(page, 'Consumer groups').locator('td:first-child').allTextContents();
      expect(await names()).toEqual(['archive', 'billing']);
      await page.getByRole('button', { name: 'Group', exact: true }).click();
      await page.getByRole('button', { name: 'Group', exact: true }).click();
      await until(async () => (await names())[0] === 'billing');
      expect(page.url()).toContain('sort=-group');
      await page.getByRole('link', { name: 'billing' }).click();
      await page.getByRole('heading', { name: 'Consumers of billing on order.placed' }).waitFor();
      await rows(page, 'Consumers of the group').filter({ hasText: 'alive' }).waitFor();
    });

    test('agents and pools, with the task that one is doing', async () => {
      await start();
      const stop = new AbortController();
      const agent = await createAgent(bus, {
        agentId: 'printer-1',
        agentType: 'printer',
        capabilities: ['print'],
        handler: () => new Promise((resolve) => stop.signal.addEventListener('abort', resolve)),
      });
      await bus.distributeTask({ id: 'job-1', type: 'print', priority: 1, requiredCapabilities: ['print'], data: { text: HOSTILE } });
      const page = await open('#/agents');
      await rows(page, 'Pools').filter({ hasText: 'printer' }).waitFor();
      const row = rows(page, 'Agents').filter({ hasText: 'printer-1' });
      await row.filter({ hasText: '1 of 1' }).waitFor();
      await row.getByRole('link', { name: 'job-1' }).click();
      await page.getByLabel('The task as JSON').filter({ hasText: '"job-1"' }).waitFor();
      expect(await page.evaluate('window.hurt')).toBeUndefined();
      stop.abort();
      await agent.drain();
    });

    test('projects, and what was refused', async () => {
      await start();
      await bus.registerProject(project('a', { allowedEventTypes: ['fine'] }));
      await bus.registerProject(project('b'));
      await bus.sendCrossProjectMessage('a', 'b', 'fine', 1);
      await bus.sendCrossProjectMessage('a', 'b', 'not.allowed', 1).catch(() => undefined);
      await until(async () => (await bus.getAuditLog({ outcome: 'denied' })).items.length === 1);
      const page = await open('#/projects');
      await rows(page, 'Projects').filter({ hasText: 'a' }).first().waitFor();
      const refused = rows(page, 'Refusals').filter({ hasText: 'not.allowed' });
      await refused.filter({ hasText: 'denied' }).waitFor();
      await page.getByLabel('Outcome').selectOption('forged');
      await page.getByText('No message was forged').waitFor();
      expect(await refused.count()).toBe(0);
    });

    test('services with their health', async () => {
      await start();
      await registry.register({
        name: 'orders',
        endpoint: 'http://127.0.0.1:1/',
        version: '1.2.3',
        capabilities: [{ name: 'billing', version: '1.0.0' }],
        health: { status: 'unhealthy', lastCheck: new Date(), error: HOSTILE },
      });
      const page = await open('#/services');
      const row = rows(page, 'Services').filter({ hasText: 'orders' });
      await row.filter({ hasText: 'unhealthy' }).filter({ hasText: HOSTILE }).waitFor();
      await page.getByLabel('Service', { exact: true }).fill('billing');
      await until(async () => (await rows(page, 'Services').count()) === 1);
      expect(await page.evaluate('window.hurt')).toBeUndefined();
    });

    test('what is switched off says so', async () => {
      await start({ crossProject: { enabled: false }, orchestration: { enabled: false } });
      const page = await open('#/agents');
      await page.getByText('needs orchestration.enabled').first().waitFor();
      await page.getByRole('link', { name: 'Projects' }).click();
      await page.getByText('crossProject.enabled').first().waitFor();
      await page.getByText('Live', { exact: true }).waitFor();
    });
  });

  describe('dead letters', () => {
    test('hostile content is shown, and nothing else', async () => {
      await start();
      await bury('report.wanted', [{ html: HOSTILE, [HOSTILE]: 1 }], HOSTILE);
      const page = await open('#/dead-letters');
      const row = rows(page, 'Dead letters');
      await row.filter({ hasText: HOSTILE }).waitFor();
      await row.getByRole('link', { name: 'report.wanted' }).click();
      const json = page.getByLabel("The event's JSON").filter({ hasText: 'onerror' });
      await json.waitFor();
      expect(JSON.parse((await json.textContent()) as string).data).toEqual({ html: HOSTILE, [HOSTILE]: 1 });
      expect(await page.locator('main img, main script').count()).toBe(0);
      expect(await page.evaluate('window.hurt')).toBeUndefined();
    });

    test('an error has the room that it needs, also beside an open letter', async () => {
      await start();
      const error = 'timeout: the invoice service did not answer within 5000 ms';
      await bury('an.event.type.with.quite.a.long.name.that.repeats', [1], error, 'a-group-with-a-long-name');
      const page = await open('#/dead-letters');
      const cell = rows(page, 'Dead letters').locator('.lines').filter({ hasText: error });
      await cell.waitFor();
      const isWhole = () => cell.evaluate((element) => element.scrollHeight <= element.clientHeight + 1);
      expect(await isWhole()).toBe(true);
      await page.getByRole('link', { name: /^an\.event/ }).click();
      await page.getByLabel("The event's JSON").waitFor();
      expect(await isWhole()).toBe(true);
    });

    test('are found by text, and explained', async () => {
      await start();
      await bury('report.wanted', [{ to: 'ops' }, { to: 'the needle' }, { to: 'dev' }]);
      const page = await open('#/dead-letters');
      await until(async () => (await rows(page, 'Dead letters').count()) === 3);
      await page.getByLabel('Search').fill('NEEDLE');
      await until(async () => (await rows(page, 'Dead letters').count()) === 1);
      expect(page.url()).toContain('text=NEEDLE');
      await page.getByRole('link', { name: 'report.wanted' }).click();
      await page.getByRole('heading', { name: 'report.wanted' }).waitFor();
      await page.getByRole('button', { name: 'Explain' }).click();
      await page.getByText(/^The event is stored as/).waitFor();
      await rows(page, 'Where each group stands on the event').filter({ hasText: 'mailer' }).filter({ hasText: 'dead-lettered' }).waitFor();
      await page.getByLabel('Search').fill('nowhere');
      await page.getByText('No dead letter is like this').waitFor();
      await page.getByRole('button', { name: 'Clear filters' }).click();
      await until(async () => (await rows(page, 'Dead letters').count()) === 3);
    });

    test('one is put back, handled, and gone from the list', async () => {
      await start();
      await bury('report.wanted', [{ n: 1 }, { n: 2 }]);
      const handled: unknown[] = [];
      const page = await open('#/dead-letters');
      await page.getByRole('link', { name: 'report.wanted' }).first().click();
      const json = page.getByLabel("The event's JSON").filter({ hasText: '"n"' });
      await json.waitFor();
      const shown = JSON.parse((await json.textContent()) as string).data;
      await page.getByRole('button', { name: 'Redrive…', exact: true }).click();
      const dialog = page.getByRole('dialog', { name: 'Redrive 1 dead letter?' });
      await dialog.waitFor();
      await bus.subscribe('report.wanted', ({ data }) => void handled.push(data), { group: 'mailer' });
      await dialog.getByRole('button', { name: 'Redrive 1' }).click();
      await page.getByRole('status').filter({ hasText: '1 letter put back' }).waitFor();
      await until(async () => (await rows(page, 'Dead letters').count()) === 1);
      await until(() => handled.length === 1);
      expect(handled).toEqual([shown]);
      await page.getByRole('heading', { name: 'report.wanted' }).waitFor({ state: 'hidden' });
      expect(await bus.deadLetters.count()).toBe(1);
    });

    test('selected ones are deleted, but not before it was asked', async () => {
      await start();
      await bury('report.wanted', [1, 2, 3]);
      const page = await open('#/dead-letters');
      await until(async () => (await rows(page, 'Dead letters').count()) === 3);
      expect(await page.getByRole('button', { name: 'Purge selected…' }).isDisabled()).toBe(true);
      for (const box of (await page.getByRole('checkbox', { name: /^Select report/ }).all()).slice(0, 2)) await box.check();
      const purge = page.getByRole('button', { name: 'Purge 2…' });
      await purge.click();
      const dialog = page.getByRole('dialog', { name: 'Purge 2 dead letters?' });
      await dialog.getByText('2 dead letters will be deleted. This cannot be undone.').waitFor();
      await page.keyboard.press('Escape');
      await dialog.waitFor({ state: 'detached' });
      expect(await purge.evaluate((element) => element === document.activeElement)).toBe(true);
      expect(await bus.deadLetters.count()).toBe(3);
      await purge.click();
      await dialog.getByRole('button', { name: 'Purge 2' }).click();
      await until(async () => (await bus.deadLetters.count()) === 1);
      await until(async () => (await rows(page, 'Dead letters').count()) === 1);
    });

    test('all that match are put back, more than the list shows and one request takes', async () => {
      await start();
      await bury(
        'report.wanted',
        Array.from({ length: 650 }, (_, n) => ({ n, kind: n < 620 ? 'wanted' : 'other' })),
      );
      const page = await open('#/dead-letters?text=%22kind%22%3A%22wanted');
      await page.getByText('50 letters shown, there are more').waitFor();
      await page.getByRole('button', { name: 'Load more' }).click();
      await page.getByText('100 letters shown, there are more').waitFor();
      await page.getByRole('button', { name: 'Purge all that match…' }).click();
      const dialog = page.getByRole('dialog', { name: 'Purge 620 dead letters?' });
      await dialog.getByText('These match text “"kind":"wanted”.').waitFor();
      await dialog.getByRole('button', { name: 'Purge 620' }).click();
      await page.getByRole('status').filter({ hasText: '620 letters deleted' }).waitFor();
      expect(await bus.deadLetters.count()).toBe(30);
      await page.getByText('No dead letter is like this').waitFor();
    });

    test('a search is not repeated by itself, but when it is asked for', async () => {
      await start();
      await bury('report.wanted', [{ to: 'the needle' }]);
      const page = await open('#/dead-letters?text=needle');
      await until(async () => (await rows(page, 'Dead letters').count()) === 1);
      let searches = 0;
      page.on('request', (request) => {
        if (request.url().includes('text=needle')) searches++;
      });
      await bury('report.wanted', [{ to: 'another needle' }]);
      // Two looks at the whole are behind two rounds of this view.
      for (let round = 0; round < 2; round++) await page.waitForResponse((response) => response.url().endsWith('/api/health'));
      expect([searches, await rows(page, 'Dead letters').count()]).toEqual([0, 1]);
      await page.getByRole('button', { name: 'Search again' }).click();
      await until(async () => (await rows(page, 'Dead letters').count()) === 2);
    });

    test('what was typed a moment before "all that match" is meant, too', async () => {
      await start();
      await bury('report.wanted', [{ to: 'ops' }, { to: 'dev' }, { to: 'ops' }]);
      const page = await open('#/dead-letters');
      await until(async () => (await rows(page, 'Dead letters').count()) === 3);
      await page.evaluate(() => {
        (document.querySelector('input[name=text]') as HTMLInputElement).value = 'dev';
        [...document.querySelectorAll('button')].find((button) => button.textContent === 'Purge all…')?.click();
      });
      const dialog = page.getByRole('dialog', { name: 'Purge 1 dead letter?' });
      await dialog.getByText('These match text “dev”.').waitFor();
      await dialog.getByRole('button', { name: 'Purge 1' }).click();
      await until(async () => (await bus.deadLetters.count()) === 2);
    });

    test('where a part of it fails, how many were done is told, and the rest stays selected', async () => {
      await start();
      await bury('report.wanted', [1, 2, 3]);
      const page = await open('#/dead-letters');
      await page.getByRole('checkbox', { name: 'Select all rows shown' }).check();
      await page.route('**/api/dead-letters/purge', (route) =>
        route.fulfill({ status: 503, json: { error: { code: 'ERR_CONNECTION', message: 'Redis is away' } } }),
      );
      await page.getByRole('button', { name: 'Purge 3…' }).click();
      await page.getByRole('dialog').getByRole('button', { name: 'Purge 3' }).click();
      await page.getByRole('status').filter({ hasText: '0 of 3 letters deleted, then: Redis is away' }).waitFor();
      await page.getByRole('button', { name: 'Purge 3…' }).waitFor();
      // The browser notes the answer.
      const { faults } = pages.at(-1)!;
      faults.splice(0, faults.length, ...faults.filter((fault) => !fault.includes('503')));
    });

    test('that are gone meanwhile are told', async () => {
      await start();
      await bury('report.wanted', [1, 2]);
      const page = await open('#/dead-letters');
      await page.getByRole('checkbox', { name: 'Select all rows shown' }).check();
      await page.getByRole('button', { name: 'Redrive 2…' }).click();
      const [first] = (await bus.deadLetters.list()).items;
      await bus.deadLetters.purge({ ids: [first!.id] });
      await page.getByRole('dialog').getByRole('button', { name: 'Redrive 2' }).click();
      await page.getByRole('status').filter({ hasText: '1 letter put back for the groups that failed them; 1 was gone already' }).waitFor();
    });
  });

  describe('the page itself', () => {
    test('a link shows the same again: view, filters, order, and the letter', async () => {
      await start();
      await bury('report.wanted', [{ to: 'ops' }, { to: 'dev' }]);
      await bury('mail.wanted', [{ to: 'ops' }]);
      const page = await open('#/dead-letters?text=ops');
      await until(async () => (await rows(page, 'Dead letters').count()) === 2);
      await page.getByLabel('Event type').fill('report.wanted');
      await page.keyboard.press('Enter');
      await until(async () => (await rows(page, 'Dead letters').count()) === 1);
      await page.getByRole('link', { name: 'report.wanted' }).click();
      await page.getByLabel("The event's JSON").waitFor();
      const other = await open(new URL(page.url()).hash);
      await other.getByLabel("The event's JSON").filter({ hasText: '"ops"' }).waitFor();
      await page.reload();
      await page.getByLabel("The event's JSON").waitFor();
      expect([await page.getByLabel('Search').inputValue(), await page.getByLabel('Event type').inputValue()]).toEqual([
        'ops',
        'report.wanted',
      ]);
      expect(await rows(page, 'Dead letters').count()).toBe(1);
      await page.goBack();
      await page.getByLabel("The event's JSON").waitFor({ state: 'hidden' });
    });

    test('is light or dark as the system is, and as was chosen', async () => {
      await start();
      const ground = (page: Page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const [light, dark] = [await open(), await open('', { colorScheme: 'dark' })];
      const [white, black] = [await ground(light), await ground(dark)];
      expect(white).not.toBe(black);
      const button = light.getByRole('button', { name: /^Theme: / });
      expect(await button.textContent()).toBe('Theme: light');
      await button.click();
      expect([await button.textContent(), await ground(light)]).toEqual(['Theme: dark', black]);
      await light.reload();
      expect(await ground(light)).toBe(black);
      await dark.getByRole('button', { name: 'Theme: dark' }).click();
      expect(await ground(dark)).toBe(white);
    });

    test('is used by the keyboard alone', async () => {
      await start();
      await bury('report.wanted', [1]);
      const page = await open('#/dead-letters');
      await page.getByRole('link', { name: 'report.wanted' }).waitFor();
      const focused = () =>
        page.evaluate(
          () =>
            document.activeElement?.textContent ||
            document.activeElement?.getAttribute('name') ||
            document.activeElement?.getAttribute('aria-label') ||
            document.activeElement?.tagName,
        );
      const outlined = () => page.evaluate(() => getComputedStyle(document.activeElement as Element).outlineStyle);
      const seen: unknown[] = [];
      const walk = async (wanted: string) => {
        for (let steps = 0; steps < 60; steps++) {
          await page.keyboard.press('Tab');
          seen.push(await focused());
          expect([seen.at(-1), await outlined()]).not.toEqual([seen.at(-1), 'none']);
          if (seen.at(-1) === wanted) return;
        }
        throw new Error(`never came to ${wanted}: ${seen.join(' | ')}`);
      };
      await walk('report.wanted');
      expect(seen).toEqual(
        expect.arrayContaining([
          'Skip to the figures',
          'Theme: light',
          'Overview',
          'Groups',
          'text',
          'eventType',
          'Purge all…',
          'Select all rows shown',
        ]),
      );
      await page.keyboard.press('Enter');
      await until(
        async () => (await focused()) === 'report.wanted' && (await page.evaluate(() => document.activeElement?.tagName)) === 'H2',
      );
      await walk('Purge…');
      await page.keyboard.press('Enter');
      await page.getByRole('dialog').waitFor();
      expect(await focused()).toBe('Cancel');
      await page.keyboard.press('Enter');
      await until(async () => (await focused()) === 'Purge…');
      await page.keyboard.press('Enter');
      await page.keyboard.press('Tab');
      expect(await focused()).toBe('Purge 1');
      await page.keyboard.press('Enter');
      await until(async () => (await bus.deadLetters.count()) === 0);
      // The letter is gone; where the focus is, one can go on.
      await until(async () => (await page.evaluate(() => document.activeElement?.tagName)) !== 'BODY');
      await page.keyboard.press('Shift+Tab');
      expect(await focused()).not.toBe('BODY');
    });

    test('a field keeps what is being typed, and the focus, while figures come', async () => {
      await start();
      await bury('report.wanted', [{ to: 'ops' }]);
      const page = await open('#/dead-letters');
      const search = page.getByLabel('Group');
      await search.pressSequentially('op');
      await page.waitForResponse((response) => response.url().includes('group=op'));
      await page.waitForResponse((response) => response.url().includes('group=op'));
      await search.pressSequentially('s');
      await page.waitForURL(/group=ops/);
      expect(await search.evaluate((element) => element === document.activeElement)).toBe(true);
      expect(await search.inputValue()).toBe('ops');
    });

    test('says that the connection is lost, since when, and when it is back', async () => {
      await start();
      const page = await open('#/groups');
      await page.getByText('Live', { exact: true }).waitFor();
      const lost = page.getByRole('alert').filter({ hasText: /^No connection to the bus since \d\d:\d\d:\d\d/ });
      const { faults } = pages.at(-1)!;
      await page.context().setOffline(true);
      await lost.waitFor();
      await page.getByText(/^Not live, as of/).waitFor();
      await page.context().setOffline(false);
      await lost.waitFor({ state: 'hidden' });
      await page.getByText('Live', { exact: true }).waitFor();
      // The browser notes each attempt.
      faults.splice(0, faults.length, ...faults.filter((fault) => !fault.includes('ERR_INTERNET_DISCONNECTED')));
    });

    test('asks nothing while nobody sees it', async () => {
      await start();
      const page = await open('#/services');
      await page.getByText('Live', { exact: true }).waitFor();
      const hide = (hidden: boolean) =>
        page.evaluate((value) => {
          Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
          document.dispatchEvent(new Event('visibilitychange'));
        }, hidden);
      await hide(true);
      await page.getByText('Paused').waitFor();
      let asked = 0;
      page.on('request', () => asked++);
      // Longer than two intervals of this view: the pause is what is looked at.
      await page.waitForTimeout(4500);
      expect(asked).toBe(0);
      await hide(false);
      await until(() => asked > 0);
      await page.getByText('Live', { exact: true }).waitFor();
    });

    test('opens with the token as password, and tells when that is another one', async () => {
      const token = 'the-token-of-this-test';
      await start({}, token);
      const page = await open('#/services', { httpCredentials: { username: 'anyone', password: token } });
      await page.getByText('Live', { exact: true }).waitFor();
      const { faults } = pages.at(-1)!;
      await page.route('**/api/**', (route) => route.fulfill({ status: 401, json: { error: { code: 'ERR_UNAUTHORIZED', message: 'x' } } }));
      await page.getByRole('alert').filter({ hasText: 'The token is not taken any more' }).waitFor();
      faults.splice(0, faults.length, ...faults.filter((fault) => !fault.includes('401')));
    });

    test.each([
      ['light', 1280],
      ['dark', 1280],
      ['light', 390],
      ['dark', 390],
    ] as const)('axe finds nothing, and nothing sticks out: %s, %i px', async (colorScheme, width) => {
      await start();
      await bury('report.wanted', [{ to: 'ops', html: HOSTILE }], 'x'.repeat(300));
      await bus.subscribe('order.placed', () => undefined, { group: 'billing' });
      await bus.publish('order.placed', 1);
      await bus.registerProject(project('a', { allowedEventTypes: ['fine'] }));
      await bus.registerProject(project('b'));
      await bus.sendCrossProjectMessage('a', 'b', 'no', 1).catch(() => undefined);
      const agent = await createAgent(bus, { agentId: 'printer-1', agentType: 'printer', capabilities: ['print'], handler: () => 1 });
      const id = (await bus.deadLetters.list()).items[0]!.id;
      const page = await open('', { colorScheme, viewport: { width, height: 900 } });
      const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
      // By the debugger, which the page's policy does not bind.
      await page.evaluate(axe);
      const views = [
        'overview',
        'event-types',
        'groups',
        'dead-letters',
        `dead-letters?letter=${encodeURIComponent(id)}`,
        'agents',
        'projects',
        'services',
      ];
      for (const view of views) {
        const answered = page.waitForResponse((response) => response.url().includes('/api/'));
        await page.evaluate((hash) => void (location.hash = hash), `#/${view}`);
        await answered;
        await page.getByText('Live', { exact: true }).waitFor();
        await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
        const found = await page.evaluate(async () =>
          (await (window as any).axe.run(document, { resultTypes: ['violations'] })).violations.map(
            (each: any) => `${each.id}: ${each.nodes.map((node: any) => node.html).join(' ')}`,
          ),
        );
        expect([view, found]).toEqual([view, []]);
        expect([view, await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)]).toEqual([view, 0]);
      }
      await agent.drain();
    });
  });
});

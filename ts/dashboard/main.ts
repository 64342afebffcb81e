/** The page: header, navigation, and the view that the address names, which it keeps up to date. */
import { ApiError, get } from './client.js';
import { Connection } from './connection.js';
import { el, fill, setAttribute, setText } from './dom.js';
import { count, plural } from './format.js';
import { changed, formatPlace, type Place, parsePlace, VIEWS, type View as ViewName } from './route.js';
import { themeSwitch } from './theme.js';
import { all, type Page, toneOf, type View } from './view.js';
import { agents } from './views/agents.js';
import { deadLetters } from './views/deadLetters.js';
import { eventTypes } from './views/eventTypes.js';
import { groups } from './views/groups.js';
import { overview } from './views/overview.js';
import { projects } from './views/projects.js';
import { services } from './views/services.js';
import type { Alert, Health } from './wire.js';

const MAKERS: Readonly<Record<ViewName, readonly [title: string, make: (page: Page) => View]>> = {
  overview: ['Overview', overview],
  'event-types': ['Event types', eventTypes],
  groups: ['Groups', groups],
  'dead-letters': ['Dead letters', deadLetters],
  agents: ['Agents', agents],
  projects: ['Projects', projects],
  services: ['Services', services],
};

const EVERY_MS = 2000;
/** How the whole is, in the header of every view. */
const HEALTH_EVERY_MS = 5000;

class Dashboard implements Page {
  readonly #connection = new Connection();
  readonly #views = new Map<ViewName, View>();
  readonly #links = new Map<ViewName, HTMLAnchorElement>();
  readonly #main = el('main', { id: 'main', tabindex: '-1' });
  readonly #status = el('span', { class: 'status off' }, 'unknown');
  readonly #letters = el('span', { class: 'badge', hidden: true });
  readonly #alerts = el('span', { class: 'badge bad', hidden: true });
  readonly #said = el('p', { class: 'toast', role: 'status' });
  #place: Place = parsePlace(location.hash);
  #shown: ViewName | undefined;
  #loading: AbortController | undefined;
  #timer: number | undefined;
  #nextHealth = 0;
  /** What was asked for in this round, by address. */
  #round = new Map<string, Promise<unknown>>();
  #hush: number | undefined;

  get place(): Place {
    return this.#place;
  }

  start(): void {
    const title = el('p', { class: 'brand' }, 'OSSA ', el('span', {}, 'event bus'));
    const header = el('header', {}, title, this.#status, el('span', { class: 'space' }), this.#connection.state, themeSwitch());
    const skip = el('a', { class: 'skip', href: '#main' }, 'Skip to the figures');
    skip.addEventListener('click', (event) => {
      // The address is the view's.
      event.preventDefault();
      this.#main.focus();
    });
    const links = VIEWS.map((name) => {
      const link = el(
        'a',
        { href: formatPlace({ view: name, parameters: {} }) },
        MAKERS[name][0],
        name === 'dead-letters' ? this.#letters : name === 'overview' ? this.#alerts : null,
      );
      this.#links.set(name, link);
      return el('li', {}, link);
    });
    const nav = el('nav', { 'aria-label': 'Views' }, el('ul', {}, ...links));
    document.body.replaceChildren(skip, header, nav, el('div', { class: 'body' }, this.#connection.banner, this.#main), this.#said);
    window.addEventListener('hashchange', () => this.#moved());
    document.addEventListener('visibilitychange', () => this.refresh());
    window.setInterval(() => this.#connection.tick(document.hidden), 1000);
    this.#moved();
  }

  choose(parameters: Readonly<Record<string, string>>, minor = false): void {
    const hash = formatPlace(changed(this.#place, parameters));
    if (hash === location.hash) return;
    if (minor) {
      history.replaceState(null, '', hash);
      this.#moved();
    } else location.hash = hash;
  }

  announce(text: string): void {
    setText(this.#said, text);
    window.clearTimeout(this.#hush);
    this.#hush = window.setTimeout(() => setText(this.#said, ''), 10_000);
  }

  once<T>(path: string, signal: AbortSignal): Promise<T> {
    const asked = this.#round.get(path) ?? get<T>(path, {}, signal);
    this.#round.set(path, asked);
    return asked as Promise<T>;
  }

  refresh(): void {
    window.clearTimeout(this.#timer);
    this.#loading?.abort();
    this.#connection.tick(document.hidden);
    if (!document.hidden) void this.#load();
  }

  #moved(): void {
    this.#place = parsePlace(location.hash);
    const { view: name } = this.#place;
    const [title, make] = MAKERS[name];
    let view = this.#views.get(name);
    if (view === undefined) {
      view = make(this);
      this.#views.set(name, view);
      // Nothing is seen before there is something to see, so that nothing moves.
      view.element.classList.add('fresh');
    }
    if (this.#shown !== name) {
      const isFirst = this.#shown === undefined;
      this.#shown = name;
      this.#main.replaceChildren(view.element);
      document.title = `${title} · OSSA event bus`;
      for (const [each, link] of this.#links) setAttribute(link, 'aria-current', each === name ? 'page' : undefined);
      if (!isFirst) window.scrollTo(0, 0);
    }
    this.refresh();
  }

  /** Once, and again after a while. What was asked for before is not waited for. */
  async #load(): Promise<void> {
    const loading = new AbortController();
    this.#loading = loading;
    this.#round = new Map();
    const view = this.#views.get(this.#place.view) as View;
    try {
      await all([view.load(this.#place, loading.signal), this.#header(loading.signal)]);
      if (loading.signal.aborted) return;
      this.#connection.succeeded();
    } catch (error) {
      if (loading.signal.aborted) return;
      this.#connection.failed(error);
    }
    view.element.classList.remove('fresh');
    this.#main.classList.toggle('old', this.#connection.isLost);
    this.#timer = window.setTimeout(() => void this.#load(), view.everyMs ?? EVERY_MS);
  }

  async #header(signal: AbortSignal): Promise<void> {
    if (Date.now() < this.#nextHealth && !this.#connection.isLost) return;
    const [{ status }, { count: letters }, alerts] = await Promise.all([
      this.once<Health>('api/health', signal),
      this.once<{ count: number }>('api/dead-letters/count', signal),
      get<Alert[]>('api/alerts', {}, signal).catch((error: unknown) => {
        if (error instanceof ApiError && error.isOff) return [];
        throw error;
      }),
    ]);
    this.#nextHealth = Date.now() + HEALTH_EVERY_MS;
    setText(this.#status, status);
    this.#status.className = `status ${toneOf(status)}`;
    showBadge(this.#letters, letters, 'dead letter');
    showBadge(this.#alerts, alerts.length, 'active alert');
  }
}

/** A number beside a link, with what it counts for those who hear it. */
function showBadge(badge: HTMLElement, number: number, what: string): void {
  badge.hidden = number === 0;
  const label = number === 0 ? '' : plural(number, what);
  if (badge.title === label) return;
  badge.title = label;
  if (number === 0) fill(badge);
  else fill(badge, count(number), el('span', { class: 'hidden' }, label.slice(label.indexOf(' '))));
}

new Dashboard().start();

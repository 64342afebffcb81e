/** Events that were given up: looking for them, putting them back, deleting them. */
import { ApiError, get } from '../client.js';
import { confirmed } from '../dialog.js';
import { el } from '../dom.js';
import { absolute, ago, count, plural, shortened } from '../format.js';
import { act, type Deed, described, type Filter, gather } from '../letters.js';
import { changed, formatPlace, type Place } from '../route.js';
import { Table } from '../table.js';
import { type Page, searchField, setField, type View } from '../view.js';
import type { BriefLetter, DeadLetter, LetterPage } from '../wire.js';
import { LetterDetail } from './letterDetail.js';

const PAGE = '50';
/** Pages that stay loaded while the list is live. */
const PAGES_MAX = 10;

const VERB: Readonly<Record<Deed, string>> = { redrive: 'Redrive', purge: 'Purge' };
const DONE: Readonly<Record<Deed, string>> = { redrive: 'put back for the groups that failed them', purge: 'deleted' };

export function deadLetters(page: Page): View {
  return new DeadLettersView(page);
}

class DeadLettersView implements View {
  readonly element: HTMLElement;
  readonly everyMs = 5000;
  readonly #page: Page;
  readonly #table: Table<BriefLetter>;
  readonly #detail: LetterDetail;
  readonly #found = el('p', { class: 'note' });
  readonly #more = el('button', { type: 'button', hidden: true, onclick: () => this.#loadMore() }, 'Load more');
  readonly #again = el('button', { type: 'button', class: 'quiet', hidden: true, onclick: () => this.#refresh() }, 'Search again');
  readonly #selected: Record<Deed, HTMLButtonElement>;
  readonly #all: Record<Deed, HTMLButtonElement>;
  readonly #fields: Record<'text' | 'eventType' | 'group', HTMLInputElement>;
  readonly #times: Record<'from' | 'to', HTMLInputElement>;
  readonly #layout = el('div', { class: 'split' });
  #filter: Filter = {};
  #pages = 1;
  #items: BriefLetter[] = [];
  #cursor: string | undefined;
  #isShort = false;
  /** Whether the list is to be asked for although it is a search, which is not repeated by itself. */
  #isStale = true;
  #isBusy = false;
  /** The letter that the panel was opened for by this page, not by a link. */
  #opened = '';

  constructor(page: Page) {
    this.#page = page;
    const field = (label: string, name: string, placeholder: string) =>
      searchField(label, { name, placeholder }, (value) => this.#choose({ [name]: value }));
    const [text, eventType, group] = [
      field('Search', 'text', 'anything in the letter'),
      field('Event type', 'eventType', 'all'),
      field('Group', 'group', 'all'),
    ];
    this.#fields = { text: text.input, eventType: eventType.input, group: group.input };
    const time = (name: 'from' | 'to') =>
      el('input', { type: 'datetime-local', name, onchange: () => this.#choose({ [name]: this.#times[name].value }) });
    this.#times = { from: time('from'), to: time('to') };
    const reset = el(
      'button',
      { type: 'button', class: 'quiet', onclick: () => this.#choose({ text: '', eventType: '', group: '', from: '', to: '' }) },
      'Clear filters',
    );
    const filters = el(
      'div',
      { class: 'filters', role: 'search' },
      text.element,
      eventType.element,
      group.element,
      el('label', { class: 'field' }, el('span', {}, 'Failed from'), this.#times.from),
      el('label', { class: 'field' }, el('span', {}, 'Failed until'), this.#times.to),
      reset,
      this.#again,
    );
    const button = (deed: Deed, what: string, go: () => void) =>
      el('button', { type: 'button', class: deed === 'purge' ? 'danger' : '', disabled: true, onclick: go }, `${VERB[deed]} ${what}`);
    this.#selected = {
      redrive: button('redrive', 'selected…', () => this.#ofSelected('redrive')),
      purge: button('purge', 'selected…', () => this.#ofSelected('purge')),
    };
    this.#all = {
      redrive: button('redrive', 'all…', () => this.#ofAll('redrive')),
      purge: button('purge', 'all…', () => this.#ofAll('purge')),
    };
    const buttons = el(
      'div',
      { class: 'buttons' },
      this.#selected.redrive,
      this.#selected.purge,
      this.#all.redrive,
      this.#all.purge,
      this.#found,
    );
    this.#table = new Table<BriefLetter>({
      caption: 'Dead letters',
      look: 'letters',
      key: ({ id }) => id,
      empty: '',
      name: ({ eventType, event }) => `${eventType} ${event.metadata.id}`,
      onTick: (ticked) => this.#showTicked(ticked.size),
      columns: [
        {
          key: 'type',
          label: 'Event type',
          cell: (letter) => ({
            text: letter.eventType,
            tone: 'mono',
            title: letter.eventType,
            href: formatPlace(changed(page.place, { letter: letter.id })),
          }),
        },
        { key: 'failed', label: 'Failed', cell: ({ failedAt }) => ({ text: ago(failedAt, Date.now()), title: absolute(failedAt) }) },
        { key: 'group', label: 'Group', cell: ({ group }) => ({ text: group, title: group }) },
        { key: 'reason', label: 'Reason', cell: ({ reason }) => ({ text: reason, title: reason }) },
        { key: 'attempts', label: 'Attempts', numeric: true, cell: ({ attempts }) => count(attempts) },
        { key: 'error', label: 'Error', cell: ({ error }) => ({ text: shortened(error, 300), wraps: true, title: error }) },
      ],
    });
    this.#detail = new LetterDetail({
      redrive: (letter) => void this.#do('redrive', [letter.id]),
      purge: (letter) => void this.#do('purge', [letter.id]),
      close: () => this.#close(),
      failed: (error) => this.#failed(error),
    });
    this.#layout.append(el('div', { class: 'list' }, buttons, this.#table.element, this.#more), this.#detail.element);
    this.#layout.addEventListener('click', (event) => {
      const link = event.target instanceof Element ? event.target.closest('a') : null;
      if (link !== null) this.#opened = new URLSearchParams(link.hash.split('?')[1]).get('letter') ?? '';
    });
    const note = el('p', { class: 'note' }, 'Of all processes, the oldest first within each event type.');
    const panel = el('section', { class: 'panel', 'aria-label': 'Dead letters' }, note, filters, this.#layout);
    this.element = el('div', { class: 'view' }, el('h1', {}, 'Dead letters'), panel);
  }

  async load({ parameters }: Place, signal: AbortSignal): Promise<void> {
    const { letter: chosen = '', ...given } = parameters;
    const filter = filterOf(given);
    if (JSON.stringify(filter) !== JSON.stringify(this.#filter)) {
      this.#pages = 1;
      this.#filter = filter;
      this.#isStale = true;
      this.#table.untick();
    }
    this.#again.hidden = filter.text === undefined;
    for (const [name, input] of Object.entries({ ...this.#fields, ...this.#times })) setField(input, given[name] ?? '');
    if (this.#isStale || filter.text === undefined) await this.#load(filter, signal);
    const listed = this.#items.find(({ id }) => id === chosen);
    this.#show(chosen, listed ?? (await this.#linked(chosen, signal)));
  }

  /** A letter that is not in the list: a link leads to it, or the list went on. */
  async #linked(id: string, signal: AbortSignal): Promise<BriefLetter | undefined> {
    if (id === '' || this.#detail.letter?.id === id) return id === '' || this.#cursor === undefined ? undefined : this.#detail.letter;
    if (this.#cursor === undefined) return undefined;
    try {
      const { event, ...letter } = await get<DeadLetter>(`api/dead-letters/${encodeURIComponent(id)}`, {}, signal);
      const data = JSON.stringify(event.data) ?? '';
      return { ...letter, event, preview: '', dataBytes: new TextEncoder().encode(data).length };
    } catch (error) {
      // It is gone, or never was: the list is shown all the same.
      if (error instanceof ApiError && (error.status === 404 || error.status === 400)) return undefined;
      throw error;
    }
  }

  async #load(filter: Filter, signal: AbortSignal): Promise<void> {
    const items = new Map<string, BriefLetter>();
    let cursor: string | undefined;
    let isShort = false;
    for (let loaded = 0; loaded < this.#pages; loaded++) {
      const found: LetterPage = await get('api/dead-letters', { ...filter, limit: PAGE, cursor }, signal);
      for (const letter of found.items) items.set(letter.id, letter);
      cursor = found.cursor;
      isShort = found.items.length < Number(PAGE);
      if (cursor === undefined) break;
    }
    this.#items = [...items.values()];
    this.#cursor = cursor;
    this.#isShort = isShort;
    this.#isStale = false;
  }

  #show(chosen: string, letter: BriefLetter | undefined): void {
    const hasMore = this.#cursor !== undefined;
    const isFiltered = Object.keys(this.#filter).length > 0;
    this.#table.empty(
      hasMore
        ? 'Nothing found among the letters that were looked through; there are more.'
        : isFiltered
          ? 'No dead letter is like this. Clear the filters to see all.'
          : 'No dead letters: every event was handled, or waits for its next attempt.',
    );
    this.#table.update(this.#items, { current: chosen });
    this.#more.hidden = !hasMore || this.#pages >= PAGES_MAX;
    this.#more.textContent = this.#isShort ? 'Look further' : 'Load more';
    const shown = plural(this.#items.length, 'letter');
    this.#found.textContent = hasMore ? `${shown} shown, there are more` : shown;
    for (const deed of ['redrive', 'purge'] as const) {
      this.#all[deed].textContent = `${VERB[deed]} all${isFiltered ? ' that match' : ''}…`;
      this.#all[deed].disabled = this.#isBusy || (this.#items.length === 0 && !hasMore);
    }
    this.#layout.classList.toggle('open', letter !== undefined);
    this.#detail.show(letter);
    if (letter !== undefined && this.#opened === chosen) {
      this.#opened = '';
      this.#detail.focus();
    }
  }

  #showTicked(number: number): void {
    for (const deed of ['redrive', 'purge'] as const) {
      this.#selected[deed].textContent = `${VERB[deed]} ${number === 0 ? 'selected' : count(number)}…`;
      this.#selected[deed].disabled = this.#isBusy || number === 0;
    }
  }

  #choose(filter: Readonly<Record<string, string>>): void {
    this.#page.choose({ ...filter, letter: '' }, true);
  }

  #close(): void {
    const id = this.#detail.letter?.id;
    this.#page.choose({ letter: '' });
    const link = [...this.#table.element.querySelectorAll('a')].find(
      (each) => new URLSearchParams(each.hash.split('?')[1]).get('letter') === id,
    );
    (link ?? this.#table.element).focus();
  }

  #loadMore(): void {
    this.#pages++;
    this.#refresh();
  }

  /** Asks again now, for a search, too. */
  #refresh(): void {
    this.#isStale = true;
    this.#page.refresh();
  }

  /** What stands in the fields and is not applied yet. */
  #pending(): Record<string, string> {
    return Object.fromEntries(Object.entries({ ...this.#fields, ...this.#times }).map(([name, input]) => [name, input.value.trim()]));
  }

  #ofSelected(deed: Deed): void {
    void this.#do(deed, [...this.#table.ticked]);
  }

  /** All that match are gathered first: what is asked for is what is done. */
  #ofAll(deed: Deed): void {
    void this.#busily(async () => {
      // What was typed a moment ago is meant, too.
      const fields = this.#pending();
      const filter = filterOf(fields);
      if (JSON.stringify(filter) !== JSON.stringify(this.#filter)) this.#choose(fields);
      const { ids, isCut } = await gather(filter, (found) => this.#page.announce(`Looking for letters: ${count(found)} found`));
      this.#page.announce('');
      if (ids.length === 0) this.#page.announce('There are no letters like this any more.');
      else {
        const which = described(filter);
        const said = which === '' ? ' These are all, without a filter.' : ` These match ${which}.`;
        await this.#ask(deed, ids, isCut ? `${said} They are the first ${count(ids.length)}; there are more.` : said);
      }
    });
  }

  #do(deed: Deed, ids: readonly string[]): Promise<void> {
    return this.#busily(() => this.#ask(deed, ids, ''));
  }

  async #ask(deed: Deed, ids: readonly string[], more: string): Promise<void> {
    const letters = plural(ids.length, 'dead letter');
    const text =
      deed === 'redrive'
        ? `${letters} will be put back for the ${ids.length === 1 ? 'group' : 'groups'} that failed ${ids.length === 1 ? 'it' : 'them'}, with attempts counted from 1.${more}`
        : `${letters} will be deleted. This cannot be undone.${more}`;
    const go = await confirmed({
      title: `${VERB[deed]} ${letters}?`,
      text,
      action: `${VERB[deed]} ${count(ids.length)}`,
      isDangerous: deed === 'purge',
    });
    if (!go) return;
    const { done, rest, error } = await act(deed, ids);
    const reached = ids.slice(0, ids.length - rest.length);
    if (error === undefined) {
      const missing = ids.length - done;
      const gone = missing > 0 ? `; ${count(missing)} ${missing === 1 ? 'was' : 'were'} gone already` : '';
      this.#page.announce(`${plural(done, 'letter')} ${DONE[deed]}${gone}.`);
    } else {
      const why = error instanceof Error ? error.message : String(error);
      this.#page.announce(`${count(done)} of ${plural(ids.length, 'letter')} ${DONE[deed]}, then: ${why}`);
    }
    this.#table.untick(reached);
    if (this.#detail.letter !== undefined && reached.includes(this.#detail.letter.id)) {
      this.#page.choose({ letter: '' }, true);
      this.#table.element.focus();
    }
    this.#refresh();
  }

  async #busily(work: () => Promise<void>): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      await work();
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#isBusy = false;
      this.#showTicked(this.#table.ticked.size);
    }
  }

  #failed(error: unknown): void {
    this.#page.announce(`That failed: ${error instanceof Error ? error.message : String(error)}`);
    this.#refresh();
  }
}

/** What the API takes: local times of the fields with their place in the world. */
function filterOf({ text, eventType, group, from, to }: Readonly<Record<string, string>>): Filter {
  const time = (value: string | undefined) => {
    const at = new Date(value ?? '');
    return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
  };
  const all = { text, eventType, group, from: time(from), to: time(to) };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined && value !== ''));
}

/** One dead letter in full, and what is known of its event. */
import { ApiError, get } from '../client.js';
import { el, fill, setText } from '../dom.js';
import { absolute, ago, bytes, plural } from '../format.js';
import { pieces } from '../highlight.js';
import { Table } from '../table.js';
import { statusCell } from '../view.js';
import type { BriefLetter, DeadLetter, Explanation } from '../wire.js';

type Standing = Explanation['groups'][number];

/** What the panel may ask for. */
export interface DetailActions {
  redrive(letter: BriefLetter): void;
  purge(letter: BriefLetter): void;
  close(): void;
  failed(error: unknown): void;
}

/** The panel beside the list. */
export class LetterDetail {
  readonly element: HTMLElement;
  readonly #heading = el('h2', { tabindex: '-1' });
  readonly #facts = el('dl', { class: 'facts' });
  readonly #json = el('pre', { tabindex: '0', role: 'group', 'aria-label': "The event's JSON", class: 'json' });
  readonly #explained = el('div', { class: 'explained' });
  readonly #size = el('span', { class: 'note' });
  readonly #groups: Table<Standing>;
  readonly #failedAt = el('dd');
  readonly #publishedAt = el('dd');
  #letter: BriefLetter | undefined;
  /** Ends asking for the letter before. */
  #loading: AbortController | undefined;

  constructor(actions: DetailActions) {
    const withLetter = (act: (letter: BriefLetter) => void) => () => {
      if (this.#letter !== undefined) act(this.#letter);
    };
    this.#groups = new Table<Standing>({
      caption: 'Where each group stands on the event',
      key: ({ name }) => name,
      empty: 'No group is known to have read this event.',
      columns: [
        { key: 'name', label: 'Group', cell: ({ name }) => name },
        { key: 'state', label: 'State', cell: ({ state }) => statusCell(state) },
        { key: 'attempts', label: 'Attempts', numeric: true, cell: ({ attempts }) => String(attempts) },
        {
          key: 'next',
          label: 'Next attempt',
          cell: ({ nextRetryAt }) =>
            nextRetryAt === undefined ? '' : { text: ago(nextRetryAt, Date.now()), title: absolute(nextRetryAt) },
        },
        { key: 'error', label: 'Last error', cell: ({ lastError = '' }) => ({ text: lastError, tone: 'wide' }) },
      ],
    });
    const explain = async (letter: BriefLetter) => {
      try {
        await this.#explain(letter);
      } catch (error) {
        actions.failed(error);
      }
    };
    this.element = el(
      'section',
      { class: 'panel detail', hidden: true, 'aria-label': 'Dead letter' },
      el(
        'div',
        { class: 'section-head' },
        this.#heading,
        el('button', { type: 'button', class: 'quiet', onclick: actions.close }, 'Close'),
      ),
      el(
        'div',
        { class: 'buttons' },
        el('button', { type: 'button', class: 'primary', onclick: withLetter(actions.redrive) }, 'Redrive…'),
        el('button', { type: 'button', class: 'danger', onclick: withLetter(actions.purge) }, 'Purge…'),
        el('button', { type: 'button', onclick: withLetter((letter) => void explain(letter)) }, 'Explain'),
      ),
      this.#explained,
      this.#facts,
      el('div', { class: 'section-head' }, el('h3', {}, 'Event'), this.#size),
      this.#json,
    );
  }

  /** The letter that is shown. */
  get letter(): BriefLetter | undefined {
    return this.#letter;
  }

  /** Shows it, or nothing. A letter never changes: what was selected in it stays so, its age alone goes on. */
  show(letter: BriefLetter | undefined): void {
    this.element.hidden = letter === undefined;
    const isSame = letter?.id === this.#letter?.id;
    this.#letter = letter;
    if (!isSame) this.#loading?.abort();
    if (letter === undefined) return;
    const { metadata } = letter.event;
    setText(this.#failedAt, `${ago(letter.failedAt, Date.now())} · ${absolute(letter.failedAt)}`);
    setText(this.#publishedAt, `${ago(metadata.timestamp, Date.now())} · ${absolute(metadata.timestamp)}`);
    if (isSame) return;
    this.#heading.textContent = letter.eventType;
    const rows: Array<readonly [string, string | HTMLElement]> = [
      ['Error', el('span', { class: 'error' }, letter.error || '–')],
      ['Reason', letter.reason],
      ['Group', letter.group],
      ['Attempts', String(letter.attempts)],
      ['Failed', this.#failedAt],
      ['Published', this.#publishedAt],
      ['Source', metadata.source || '–'],
      ['Event', el('code', {}, metadata.id)],
      ['Letter', el('code', {}, letter.id)],
    ];
    fill(
      this.#facts,
      ...rows.map(([name, value]) =>
        el('div', {}, el('dt', {}, name), value instanceof HTMLElement && value.localName === 'dd' ? value : el('dd', {}, value)),
      ),
    );
    this.#size.textContent = bytes(letter.dataBytes);
    fill(this.#explained);
    fill(this.#json, 'Loading the event…');
    void this.#loadEvent(letter);
  }

  /** The list has no data of events: they can be long. */
  async #loadEvent({ id, eventType, group }: BriefLetter): Promise<void> {
    const loading = new AbortController();
    this.#loading = loading;
    try {
      const { event } = await get<DeadLetter>(`api/dead-letters/${encodeURIComponent(id)}`, { eventType, group }, loading.signal);
      if (loading.signal.aborted) return;
      const parts = pieces(JSON.stringify(event, null, 2));
      fill(this.#json, ...parts.map(({ kind, text }) => (kind === 'other' ? text : el('span', { class: `json-${kind}` }, text))));
    } catch (error) {
      if (loading.signal.aborted) return;
      const why = error instanceof ApiError ? error.message : String(error);
      fill(this.#json, `The event could not be loaded: ${why}`);
    }
  }

  /** For those who read with the keyboard: they came from the list. */
  focus(): void {
    this.#heading.focus();
  }

  async #explain({ id, eventType, event }: BriefLetter): Promise<void> {
    fill(this.#explained, el('p', { class: 'note' }, 'Looking for the event…'));
    let found: Explanation | undefined;
    try {
      found = await get<Explanation>(`api/events/${encodeURIComponent(eventType)}/${encodeURIComponent(event.metadata.id)}`);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        fill(this.#explained);
        throw error;
      }
    }
    if (this.#letter?.id !== id) return;
    if (found === undefined) {
      fill(this.#explained, el('p', { class: 'empty' }, 'The event was not found around its time: its stream has it no more.'));
      return;
    }
    this.#groups.update(found.groups);
    const where = found.streamId === undefined ? '' : ` as ${found.streamId}`;
    const said = `The event is ${found.state}${where}. ${plural(found.groups.length, 'group')} know of it.`;
    fill(this.#explained, el('p', { class: 'note', role: 'status' }, said), this.#groups.element);
  }
}

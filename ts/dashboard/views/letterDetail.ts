/** One dead letter in full, and what is known of its event. */
import { ApiError, get } from '../client.js';
import { el, fill } from '../dom.js';
import { absolute, ago, bytes, plural } from '../format.js';
import { pieces } from '../highlight.js';
import { Table } from '../table.js';
import { statusCell } from '../view.js';
import type { DeadLetter, Explanation } from '../wire.js';

type Standing = Explanation['groups'][number];

/** What the panel may ask for. */
export interface DetailActions {
  redrive(letter: DeadLetter): void;
  purge(letter: DeadLetter): void;
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
  #letter: DeadLetter | undefined;

  constructor(actions: DetailActions) {
    const withLetter = (act: (letter: DeadLetter) => void) => () => {
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
    const explain = async (letter: DeadLetter) => {
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
  get letter(): DeadLetter | undefined {
    return this.#letter;
  }

  /** Shows it, or nothing. */
  show(letter: DeadLetter | undefined): void {
    this.element.hidden = letter === undefined;
    const isSame = letter?.id === this.#letter?.id;
    this.#letter = letter;
    if (letter === undefined) return;
    const { metadata } = letter.event;
    this.#heading.textContent = letter.eventType;
    const rows: Array<readonly [string, string | HTMLElement]> = [
      ['Error', el('span', { class: 'error' }, letter.error || '–')],
      ['Reason', letter.reason],
      ['Group', letter.group],
      ['Attempts', String(letter.attempts)],
      ['Failed', `${ago(letter.failedAt, Date.now())} · ${absolute(letter.failedAt)}`],
      ['Published', `${ago(metadata.timestamp, Date.now())} · ${absolute(metadata.timestamp)}`],
      ['Source', metadata.source || '–'],
      ['Event', el('code', {}, metadata.id)],
      ['Letter', el('code', {}, letter.id)],
    ];
    fill(this.#facts, ...rows.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))));
    // A letter never changes: what was selected in it stays so.
    if (isSame) return;
    const text = JSON.stringify(letter.event, null, 2);
    this.#size.textContent = bytes(new TextEncoder().encode(JSON.stringify(letter.event.data)).length);
    fill(
      this.#json,
      ...pieces(text).map(({ kind, text: piece }) => (kind === 'other' ? piece : el('span', { class: `json-${kind}` }, piece))),
    );
    fill(this.#explained);
  }

  /** For those who read with the keyboard: they came from the list. */
  focus(): void {
    this.#heading.focus();
  }

  async #explain({ id, eventType, event }: DeadLetter): Promise<void> {
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

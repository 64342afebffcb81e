/** What a view is, and pieces that views share. */
import { ApiError } from './client.js';
import { type Child, el, fill, setText } from './dom.js';
import type { Place } from './route.js';

/** What a view may ask of the page. */
export interface Page {
  readonly place: Place;
  /** Chooses something in this view, as a step that the browser can take back unless it is `minor`. */
  choose(parameters: Readonly<Record<string, string>>, minor?: boolean): void;
  /** Says something to everybody, those who hear the page included. */
  announce(text: string): void;
  /** The answer to a GET, asked for once in a round of loading: header and view share it. */
  once<T>(path: string, signal: AbortSignal): Promise<T>;
  /** Loads again now. */
  refresh(): void;
}

/** One of the views. It is made once, when it is first looked at. */
export interface View {
  readonly element: HTMLElement;
  /** Time between two loads, ms; 2000 unless said otherwise. */
  readonly everyMs?: number;
  /** Asks for what the place says and shows it. */
  load(place: Place, signal: AbortSignal): Promise<void>;
}

/** Figures side by side, each below its name. */
export class Tiles {
  readonly element = el('dl', { class: 'tiles' });
  readonly #values = new Map<string, HTMLElement>();

  constructor(names: readonly string[]) {
    for (const name of names) {
      const value = el('dd', {}, '–');
      this.#values.set(name, value);
      this.element.append(el('div', {}, el('dt', {}, name), value));
    }
  }

  /** `tone` is a class: 'good' 'warn' 'bad'; `beside` a smaller figure. */
  set(name: string, text: string, { tone = '', title = '', beside = '' }: { tone?: string; title?: string; beside?: string } = {}): void {
    const value = this.#values.get(name);
    if (value === undefined) return;
    if (beside === '') setText(value, text);
    else fill(value, text, ' ', el('small', {}, beside));
    value.className = tone;
    value.title = title;
  }
}

/** A part of the page with a heading, which is replaced by a sentence where the bus has that part switched off. */
export class Section {
  readonly element: HTMLElement;
  readonly #content: HTMLElement;
  readonly #off = el('p', { class: 'empty', hidden: true });

  constructor(title: string, note: string, ...content: Child[]) {
    this.#content = el('div', { class: 'content' }, ...content);
    const heading = el('div', { class: 'section-head' }, el('h2', {}, title), note === '' ? null : el('p', { class: 'note' }, note));
    this.element = el('section', { class: 'panel', 'aria-label': title }, heading, this.#content, this.#off);
  }

  /** Shows what `look` resolves with, or that the part is off. Other errors are the caller's. */
  async show<T>(look: Promise<T>, render: (value: T) => void): Promise<void> {
    const off = await look.then(
      (value) => void render(value),
      (error: unknown) => {
        if (error instanceof ApiError && error.isOff) return error.message;
        throw error;
      },
    );
    this.#content.hidden = off !== undefined;
    this.#off.hidden = off === undefined;
    fill(this.#off, el('strong', {}, 'Off. '), off ?? '');
  }
}

/** Waits for all, and then throws the first error, if there is one: what can be shown is shown. */
export async function all(loads: ReadonlyArray<Promise<unknown>>): Promise<void> {
  const failed = (await Promise.allSettled(loads)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** The class of a word for how something is. */
export function toneOf(status: string): string {
  if (['healthy', 'closed', 'idle', 'busy', 'delivered', 'sent', 'completed', 'acknowledged'].includes(status)) return 'good';
  if (['degraded', 'half-open', 'draining', 'warning', 'maintenance', 'rate-limited', 'retry-due', 'held'].includes(status)) return 'warn';
  if (['unhealthy', 'open', 'failed', 'critical', 'dead-lettered', 'forged', 'replayed', 'denied', 'invalid'].includes(status))
    return 'bad';
  return 'off';
}

/** The class and text of a cell that is such a word. */
export const statusCell = (status: string, title?: string) => ({
  text: status,
  tone: `status ${toneOf(status)}`,
  ...(title ? { title } : {}),
});

/** A text field that is applied a moment after typing, and at once by Enter. */
export function searchField(
  label: string,
  attributes: { name: string; placeholder?: string },
  apply: (value: string) => void,
): { element: HTMLElement; input: HTMLInputElement } {
  const input = el('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', ...attributes });
  let timer: number | undefined;
  const now = () => {
    window.clearTimeout(timer);
    apply(input.value.trim());
  };
  input.addEventListener('input', () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(now, 300);
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') now();
  });
  return { element: el('label', { class: 'field' }, el('span', {}, label), input), input };
}

/** Sets the value of a field, but never under the hands of who is typing. */
export function setField(input: HTMLInputElement | HTMLSelectElement, value: string): void {
  if (document.activeElement !== input && input.value !== value) input.value = value;
}

/** The options of a choice, made anew only when they change. */
export function setOptions(
  select: HTMLSelectElement,
  options: ReadonlyArray<readonly [value: string, label: string]>,
  value: string,
): void {
  const wanted = JSON.stringify(options);
  if (select.dataset['options'] !== wanted) {
    select.dataset['options'] = wanted;
    fill(select, ...options.map(([each, label]) => el('option', { value: each }, label)));
    select.value = value;
  }
  setField(select, value);
}

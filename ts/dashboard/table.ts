/** Tables whose rows stay the same elements while their figures change, so that focus and selection stay, too. */
import { el, fill, setAttribute, setText } from './dom.js';
import { parseSort } from './route.js';

/** What a cell shows. */
export interface Cell {
  readonly text: string;
  readonly title?: string;
  /** A class for the look: 'good' 'warn' 'bad' 'off' 'mono' … */
  readonly tone?: string;
  /** It may take two lines; what is longer is cut. */
  readonly wraps?: boolean;
  /** Where the text leads. */
  readonly href?: string;
}

/** A column. */
export interface Column<Row> {
  readonly key: string;
  readonly label: string;
  /** What the label means, where that is not plain. */
  readonly title?: string;
  readonly numeric?: boolean;
  readonly cell: (row: Row) => Cell | string;
  /** By what rows are sorted; without it the column is not. */
  readonly by?: (row: Row) => number | string;
}

/** How a table is made. */
export interface TableOptions<Row> {
  readonly caption: string;
  readonly columns: ReadonlyArray<Column<Row>>;
  readonly key: (row: Row) => string;
  /** 'lag' or '-lag' (downwards), unless something else is chosen; without it rows stay as they come. */
  readonly sort?: string;
  readonly onSort?: (sort: string) => void;
  /** A class for the look of the whole table. */
  readonly look?: string;
  /** Shown in place of rows. */
  readonly empty: string;
  /** Rows have a box to be ticked; called with all ticked keys whenever they change. */
  readonly onTick?: (ticked: ReadonlySet<string>) => void;
  /** Names a row for its box. */
  readonly name?: (row: Row) => string;
}

/** A table that is told its rows again and again. */
export class Table<Row> {
  readonly element: HTMLElement;
  readonly ticked = new Set<string>();
  readonly #options: TableOptions<Row>;
  readonly #body = el('tbody');
  readonly #heads = new Map<string, HTMLTableCellElement>();
  readonly #rows = new Map<string, HTMLTableRowElement>();
  readonly #empty: HTMLElement;
  readonly #all: HTMLInputElement | undefined;
  #shown: Row[] = [];
  #current = '';

  constructor(options: TableOptions<Row>) {
    this.#options = options;
    this.#empty = el('p', { class: 'empty' }, options.empty);
    const head = el('tr');
    if (options.onTick) {
      this.#all = el('input', { type: 'checkbox', 'aria-label': 'Select all rows shown', onchange: () => this.#tickAll() });
      head.append(el('th', { class: 'tick' }, this.#all));
    }
    for (const column of options.columns) head.append(this.#head(column));
    const table = el(
      'table',
      { class: options.look },
      el('caption', { class: 'hidden' }, options.caption),
      el('thead', {}, head),
      this.#body,
    );
    this.element = el('div', { class: 'table', role: 'group', 'aria-label': options.caption, tabindex: '0' }, table, this.#empty);
  }

  /** Shows these rows. `current`: the key of the one that is chosen. */
  update(rows: readonly Row[], { sort, current = '' }: { sort?: string | undefined; current?: string } = {}): void {
    this.#shown = this.#sorted(rows, sort);
    this.#current = current;
    this.#empty.hidden = rows.length > 0;
    const wanted = new Set(this.#shown.map((row) => this.#options.key(row)));
    for (const [key, element] of this.#rows) {
      if (wanted.has(key)) continue;
      element.remove();
      this.#rows.delete(key);
      this.ticked.delete(key);
    }
    let place = this.#body.firstElementChild;
    for (const row of this.#shown) {
      const element = this.#row(row);
      if (element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(element, place);
    }
    if (this.#all) this.#tickChanged();
  }

  /** Replaces what is said where there are no rows. */
  empty(text: string): void {
    setText(this.#empty, text);
  }

  /** These are ticked no more; without a word of which, none is. */
  untick(keys: Iterable<string> = [...this.ticked]): void {
    for (const key of keys) this.#tick(key, false);
    this.#tickChanged();
  }

  #sorted(rows: readonly Row[], chosen: string | undefined): Row[] {
    const { columns, sort } = this.#options;
    if (sort === undefined) return [...rows];
    const { column: key, down } = parseSort(chosen, sort);
    const by = columns.find((column) => column.key === key)?.by ?? (() => 0);
    for (const [name, head] of this.#heads) setAttribute(head, 'aria-sort', name === key ? (down ? 'descending' : 'ascending') : undefined);
    const order = (a: Row, b: Row) => compare(by(a), by(b)) * (down ? -1 : 1) || compare(this.#options.key(a), this.#options.key(b));
    return [...rows].sort(order);
  }

  #head(column: Column<Row>): HTMLTableCellElement {
    const { key, label, title, numeric, by } = column;
    const cell = el('th', { scope: 'col', class: [numeric ? 'number' : '', `of-${key}`].join(' ').trim(), title });
    const { onSort } = this.#options;
    if (by === undefined || onSort === undefined) fill(cell, label);
    else {
      const sort = () => {
        const now = cell.getAttribute('aria-sort');
        // Figures are looked at from the largest on.
        const down = now === null ? numeric === true : now === 'ascending';
        onSort(down ? `-${key}` : key);
      };
      fill(cell, el('button', { type: 'button', onclick: sort }, label));
    }
    this.#heads.set(key, cell);
    return cell;
  }

  #row(row: Row): HTMLTableRowElement {
    const key = this.#options.key(row);
    let element = this.#rows.get(key);
    if (element === undefined) {
      element = el('tr');
      if (this.#options.onTick) element.append(el('td', { class: 'tick' }, this.#box(row, key)));
      for (const { numeric } of this.#options.columns) element.append(el('td', { class: numeric ? 'number' : undefined }));
      this.#rows.set(key, element);
    }
    setAttribute(element, 'aria-current', key === this.#current ? 'true' : undefined);
    const cells = [...element.cells].slice(this.#options.onTick ? 1 : 0);
    for (const [at, column] of this.#options.columns.entries()) show(cells[at] as HTMLElement, column, column.cell(row));
    return element;
  }

  #box(row: Row, key: string): HTMLInputElement {
    const name = this.#options.name?.(row) ?? key;
    const box = el('input', { type: 'checkbox', 'aria-label': `Select ${name}` });
    box.addEventListener('change', () => {
      this.#tick(key, box.checked);
      this.#tickChanged();
    });
    return box;
  }

  #tick(key: string, on: boolean): void {
    if (on) this.ticked.add(key);
    else this.ticked.delete(key);
    const box = this.#rows.get(key)?.querySelector('input');
    if (box) box.checked = on;
  }

  #tickAll(): void {
    const on = this.#all?.checked === true;
    for (const row of this.#shown) this.#tick(this.#options.key(row), on);
    this.#tickChanged();
  }

  #tickChanged(): void {
    if (this.#all) {
      this.#all.checked = this.ticked.size > 0 && this.ticked.size === this.#shown.length;
      this.#all.indeterminate = this.ticked.size > 0 && !this.#all.checked;
      this.#all.disabled = this.#shown.length === 0;
    }
    this.#options.onTick?.(this.ticked);
  }
}

function show<Row>(element: HTMLElement, { key, numeric }: Column<Row>, content: Cell | string): void {
  const { text, title, tone, href, wraps }: Cell = typeof content === 'string' ? { text: content } : content;
  setAttribute(element, 'class', [numeric ? 'number' : '', `of-${key}`, tone ?? ''].join(' ').trim());
  setAttribute(element, 'title', title);
  if (wraps) {
    setText(element.querySelector('.lines') ?? element.appendChild(el('span', { class: 'lines' })), text);
    return;
  }
  if (href === undefined) {
    setText(element, text);
    return;
  }
  const link = element.querySelector('a') ?? element.appendChild(el('a'));
  setText(link, text);
  setAttribute(link, 'href', href);
}

function compare(a: number | string, b: number | string): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en', { numeric: true });
}

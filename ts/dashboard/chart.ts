/** A line over the last five minutes, with its latest figure above and all figures as a table below. */
import { el, fill, setText } from './dom.js';
import { clock } from './format.js';
import { onTheme } from './theme.js';
import uPlot from './vendor/uPlot.js';

/** How a chart is made. */
export interface ChartOptions {
  readonly title: string;
  /** What one figure is, for the table and for those who hear the page. */
  readonly unit: string;
  readonly format: (value: number | null | undefined) => string;
  /** Name of the colour among the custom properties of the style sheet. */
  readonly colour: string;
}

type Series = ReadonlyArray<number | null>;

const HEIGHT = 132;
const FONT = '11px system-ui, sans-serif';

/** One chart. All charts of a page show the figures of one moment together. */
export class Chart {
  readonly element: HTMLElement;
  readonly #options: ChartOptions;
  readonly #latest = el('strong', { class: 'latest' }, '–');
  readonly #peak = el('span', { class: 'peak' });
  readonly #stage = el('div', { class: 'stage', role: 'img' });
  readonly #rows = el('tbody');
  readonly #details: HTMLDetailsElement;
  #plot: uPlot | undefined;
  #times: number[] = [];
  #values: Series = [];

  constructor(options: ChartOptions) {
    this.#options = options;
    const { title, unit } = options;
    const head = el('tr', {}, el('th', { scope: 'col' }, 'Time'), el('th', { scope: 'col', class: 'number' }, unit));
    this.#details = el(
      'details',
      { ontoggle: () => this.#table() },
      el('summary', {}, 'Figures'),
      el(
        'div',
        { class: 'table', role: 'group', 'aria-label': `${title}, figures`, tabindex: '0' },
        el('table', {}, el('caption', { class: 'hidden' }, `${title}, last 5 minutes`), el('thead', {}, head), this.#rows),
      ),
    );
    const heading = el('div', { class: 'chart-head' }, el('h3', {}, title), this.#latest, this.#peak);
    this.element = el('section', { class: 'panel chart', 'aria-label': title }, heading, this.#stage, this.#details);
    new ResizeObserver(() => this.#fit()).observe(this.#stage);
    onTheme(() => this.#draw());
  }

  /** Shows these figures; null is one that is missing. */
  update(timestamps: readonly string[], values: Series): void {
    this.#times = timestamps.map((time) => new Date(time).getTime() / 1000);
    this.#values = values;
    const { format, title } = this.#options;
    const known = values.filter((value): value is number => value !== null);
    const latest = values.at(-1);
    const peak = known.length === 0 ? null : known.reduce((a, b) => Math.max(a, b));
    setText(this.#latest, format(latest));
    setText(this.#peak, peak === null ? '' : `highest ${format(peak)}`);
    const summary =
      peak === null ? `${title}: nothing measured yet` : `${title}, last 5 minutes: now ${format(latest)}, highest ${format(peak)}`;
    this.#stage.setAttribute('aria-label', summary);
    if (this.#plot === undefined) this.#draw();
    else this.#plot.setData([this.#times, [...values]]);
    this.#table();
  }

  #table(): void {
    if (!this.#details.open) return;
    const rows = this.#times.map((time, at) =>
      el('tr', {}, el('th', { scope: 'row' }, clock(time * 1000)), el('td', { class: 'number' }, this.#options.format(this.#values[at]))),
    );
    fill(this.#rows, ...rows.reverse());
  }

  #fit(): void {
    const width = this.#stage.clientWidth;
    if (this.#plot !== undefined && width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  /** Anew, also when the colours became others: the canvas does not know of styles. */
  #draw(): void {
    if (this.#times.length === 0) return;
    this.#plot?.destroy();
    const [line, grid, text] = [`--${this.#options.colour}`, '--grid', '--muted'].map((name) => this.#colour(name)) as [
      string,
      string,
      string,
    ];
    const axis = { stroke: text, font: FONT, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const short = (value: number) => this.#options.format(value).replace(/ \/s$/, '');
    this.#plot = new uPlot(
      {
        width: this.#stage.clientWidth || 320,
        height: HEIGHT,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: 'charts' }, points: { size: 7 }, drag: { x: false, y: false }, y: false },
        scales: { y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
        axes: [
          { ...axis, space: 70, size: 24, values: (_, splits) => splits.map((time) => clock(time * 1000).slice(0, 5)) },
          { ...axis, space: 34, size: 58, values: (_, splits) => splits.map(short) },
        ],
        series: [{}, { stroke: line, width: 2, fill: `color-mix(in srgb, ${line} 14%, transparent)`, points: { show: false } }],
        hooks: { setCursor: [(plot) => this.#point(plot.cursor.idx)] },
      },
      [this.#times, [...this.#values]],
      this.#stage,
    );
  }

  /** The figure below the pointer, in place of the latest one. */
  #point(at: number | null | undefined): void {
    const { format } = this.#options;
    const time = at === null || at === undefined ? undefined : this.#times[at];
    setText(this.#latest, format(time === undefined ? this.#values.at(-1) : this.#values[at as number]));
    this.#latest.classList.toggle('pointed', time !== undefined);
    this.#latest.title = time === undefined ? '' : clock(time * 1000);
  }

  #colour(name: string): string {
    this.#stage.style.color = `var(${name})`;
    return getComputedStyle(this.#stage).color;
  }
}

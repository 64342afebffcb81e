/** The alerts that are raised: each keeps its element, so that what was selected in it, and the place of the reader, stay. */
import { el, fill, setAttribute, setText } from '../dom.js';
import { absolute, ago, figure } from '../format.js';
import { toneOf } from '../view.js';
import type { Alert } from '../wire.js';

const RANKS: ReadonlyArray<Alert['severity']> = ['critical', 'warning', 'info'];

interface Item {
  readonly element: HTMLElement;
  update(alert: Alert, now: number): void;
}

/** A list that is told its alerts again and again. */
export class AlertList {
  readonly element = el('ul', { class: 'alerts' });
  readonly #items = new Map<string, Item>();
  readonly #none = el('li', { class: 'empty' }, 'None. Alerts are raised by the thresholds of monitoring.alerting.');

  /** Shows these, the worst first. */
  update(alerts: readonly Alert[]): void {
    const now = Date.now();
    const sorted = [...alerts].sort((a, b) => RANKS.indexOf(a.severity) - RANKS.indexOf(b.severity));
    const elements = sorted.map((alert) => {
      const item = this.#items.get(alert.id) ?? makeItem();
      this.#items.set(alert.id, item);
      item.update(alert, now);
      return item.element;
    });
    const there = new Set(sorted.map(({ id }) => id));
    for (const id of this.#items.keys()) if (!there.has(id)) this.#items.delete(id);
    const wanted = elements.length === 0 ? [this.#none] : elements;
    const isSame = wanted.length === this.element.childElementCount && wanted.every((each, at) => this.element.children[at] === each);
    if (!isSame) fill(this.element, ...wanted);
  }
}

function makeItem(): Item {
  const status = el('span');
  const title = el('strong');
  const text = el('span');
  const figures = el('span');
  const since = el('time');
  const element = el('li', {}, status, title, text, el('span', { class: 'note' }, figures, ', since ', since));
  const update = ({ severity, title: name, description, timestamp, metric, currentValue, threshold }: Alert, now: number) => {
    setAttribute(element, 'class', `alert ${severity === 'critical' ? 'bad' : severity === 'warning' ? 'warn' : 'off'}`);
    setAttribute(status, 'class', `status ${toneOf(severity)}`);
    setText(status, severity);
    setText(title, name);
    setText(text, description);
    setText(figures, `${metric} ${figure(currentValue)}, threshold ${figure(threshold)}`);
    setAttribute(since, 'datetime', timestamp);
    setAttribute(since, 'title', absolute(timestamp));
    setText(since, ago(timestamp, now));
  };
  return { element, update };
}

/** Whether the page is live: a sentence while it is not, and since when. */
import { ApiError } from './client.js';
import { el, setText } from './dom.js';
import { absolute, ago, clock } from './format.js';

/** The sentence in the header, and the banner below it. */
export class Connection {
  /** Is read out only when the banner comes and goes. */
  readonly banner = el('div', { class: 'banner', role: 'alert', hidden: true });
  readonly state = el('span', { class: 'live' });
  #last: number | undefined;
  #lost: number | undefined;
  #said = '';

  /** All that was asked for came. */
  succeeded(): void {
    this.#last = Date.now();
    this.#lost = undefined;
    this.#say('');
    this.tick();
  }

  /** Something did not come; what is shown is as old as it is. */
  failed(error: unknown): void {
    this.#lost ??= Date.now();
    const since = clock(this.#last ?? this.#lost);
    if (!(error instanceof ApiError)) this.#say(`This page has a defect: ${error instanceof Error ? error.message : String(error)}`);
    else if (error.isUnreachable)
      this.#say(`No connection to the bus since ${since}. Figures are from then. Trying again every few seconds.`);
    else if (error.status === 401) this.#say('The token is not taken any more. Load the page again and give the present one.');
    else this.#say(`${error.message} (${error.code}). Figures may be from ${since}.`);
    this.tick();
  }

  /** The time goes on. */
  tick(isPaused = false): void {
    const isLost = this.#lost !== undefined;
    this.state.className = `live ${isLost ? 'bad' : isPaused ? 'off' : 'good'}`;
    this.state.title = this.#last === undefined ? '' : `Last answer ${absolute(this.#last)}`;
    const age = this.#last === undefined ? '' : ago(this.#last, Date.now());
    setText(
      this.state,
      isLost ? `Not live${age === '' ? '' : `, as of ${age}`}` : isPaused ? 'Paused' : this.#last === undefined ? 'Connecting' : 'Live',
    );
  }

  /** Whether what is shown may be old. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  #say(text: string): void {
    if (text === this.#said) return;
    this.#said = text;
    this.banner.hidden = text === '';
    setText(this.banner, text);
  }
}

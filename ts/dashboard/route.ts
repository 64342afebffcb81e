/** What the address says after '#': the view and all that was chosen in it, so that a link shows the same. */

/** Views, in the order of the navigation. */
export const VIEWS = ['overview', 'event-types', 'groups', 'dead-letters', 'agents', 'projects', 'services'] as const;
export type View = (typeof VIEWS)[number];

/** A place in the page. */
export interface Place {
  readonly view: View;
  readonly parameters: Readonly<Record<string, string>>;
}

/** `#/dead-letters?group=mailer` as a place; anything else is the overview. */
export function parsePlace(hash: string): Place {
  const [, name = '', query = ''] = /^#\/?([^?]*)(?:\?(.*))?$/s.exec(hash) ?? [];
  const view = VIEWS.find((known) => known === name);
  if (view === undefined) return { view: 'overview', parameters: {} };
  return { view, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** The way back. Empty parameters are left out. */
export function formatPlace({ view, parameters }: Place): string {
  const kept = Object.entries(parameters).filter(([, value]) => value !== '');
  return kept.length === 0 ? `#/${view}` : `#/${view}?${new URLSearchParams(kept)}`;
}

/** The place with some parameters changed; '' takes one out. */
export function changed(place: Place, change: Readonly<Record<string, string>>): Place {
  return { ...place, parameters: { ...place.parameters, ...change } };
}

/** The column and direction that `sort` names: 'lag' is upwards, '-lag' downwards. */
export function parseSort(text: string | undefined, otherwise: string): { column: string; down: boolean } {
  const value = text || otherwise;
  return value.startsWith('-') ? { column: value.slice(1), down: true } : { column: value, down: false };
}

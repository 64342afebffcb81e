/** JSON cut into pieces that are shown in colours of their own. */

/** A piece of the text. */
export interface Piece {
  readonly kind: 'key' | 'string' | 'number' | 'word' | 'other';
  readonly text: string;
}

/** Longer texts are shown in one colour. */
const LENGTH_MAX = 100_000;
const PIECES = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

/** All of `text`, in pieces. */
export function pieces(text: string): Piece[] {
  if (text.length > LENGTH_MAX) return [{ kind: 'other', text }];
  const out: Piece[] = [];
  let end = 0;
  const add = (kind: Piece['kind'], piece: string) => {
    if (piece !== '') out.push({ kind, text: piece });
  };
  for (const match of text.matchAll(PIECES)) {
    const [whole, string, colon = '', number] = match;
    add('other', text.slice(end, match.index));
    if (string === undefined) add(number === undefined ? 'word' : 'number', whole);
    else {
      add(colon === '' ? 'string' : 'key', string);
      add('other', colon);
    }
    end = match.index + whole.length;
  }
  add('other', text.slice(end));
  return out;
}

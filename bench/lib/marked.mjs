/** A part of a text that is made, between two lines that stay. */

export const begin = '<!-- made by npm run bench -- --write: begin -->';
export const end = '<!-- made by npm run bench -- --write: end -->';

/** `text` with other content between its two markers, which stay; throws where they are not there once each, in their order. */
export function replaceMarked(text, content) {
  const [before, rest, ...more] = text.split(begin);
  const [old, after, ...others] = rest?.split(end) ?? [];
  if (old === undefined || after === undefined || more.length > 0 || others.length > 0)
    throw new Error(`the text has not the lines '${begin}' and '${end}' once each, in this order`);
  return `${before}${begin}\n\n${content.trim()}\n\n${end}${after}`;
}

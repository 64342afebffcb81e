import assert from 'node:assert/strict';
import { test } from 'node:test';
import { begin, end, replaceMarked } from './marked.mjs';

test('what stands between the markers is replaced, and nothing else', () => {
  const text = `# Above\n\n${begin}\nold $& text\n${end}\n\nbelow\n`;
  const once = replaceMarked(text, 'new $1 text\n');
  assert.equal(once, `# Above\n\n${begin}\n\nnew $1 text\n\n${end}\n\nbelow\n`);
  assert.equal(replaceMarked(once, 'new $1 text'), once);
});

test('a text without both markers, with one of them twice or in the wrong order, is refused', () => {
  for (const text of ['', begin, `${end}\n${begin}`, `${begin}${begin}${end}`, `${begin}${end}${end}`])
    assert.throws(() => replaceMarked(text, 'new'), /once each/, text);
});

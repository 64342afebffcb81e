/** Whether each group handled each event that it had to: from the books of all processes. A pure function. */
import { groups, groupsOfTypes, subscriptions, types } from './plan.mjs';

const namedMost = 5;

/**
 * `kept` of each process: which events it published, by number, and which of whose events each group handled there.
 * `missing` is the number of those that were published and not handled, `twice` of those handled in two processes.
 */
export function tally(kept, seed) {
  const groupsOf = groupsOfTypes(subscriptions(seed));
  const result = { published: 0, expected: 0, handled: 0, missing: 0, twice: 0, named: [], byGroup: {} };
  for (const group of groups) result.byGroup[group] = { expected: 0, handled: 0 };
  kept.forEach(({ books }, publisher) => {
    const bytes = Buffer.from(books, 'base64');
    const published = new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const bitmaps = groups.map((_, group) => kept.map(({ bitmaps: own }) => Buffer.from(own[group][publisher], 'base64')));
    published.forEach((entry, number) => {
      if (entry === 0) return;
      const type = entry - 1;
      result.published++;
      for (const group of groupsOf[type]) {
        const times = bitmaps[group].filter((bitmap) => (bitmap[number >> 3] >> (number & 7)) & 1).length;
        const ofGroup = result.byGroup[groups[group]];
        result.expected++;
        ofGroup.expected++;
        if (times > 0) {
          result.handled++;
          ofGroup.handled++;
        }
        if (times > 1) result.twice++;
        if (times > 0) continue;
        result.missing++;
        if (result.named.length < namedMost)
          result.named.push(`event ${number} of process ${publisher}, ${types[type]}, in ${groups[group]}`);
      }
    });
  });
  return result;
}

/** Answers that many ask for again and again: for a moment all are given one. Ten open pages cost the bus as much as one. */
import type { Answer } from './answers';
import type { Shown } from './source';

/** Age up to which an answer is given again, ms from when the bus was asked. */
const SHARED_MS = 2500;
/** Filters come from outside: so many answers are kept at most. */
const KEPT_MAX = 100;

interface Kept {
  readonly at: number;
  readonly answer: Promise<Answer>;
}

/** By bus: several handlers may show one. */
const kept = new WeakMap<Shown, Map<string, Kept>>();

/** The answer that is kept for `key`, being made or made a moment ago; or a new one. Failures are not kept. */
export function shared(bus: Shown, key: string, make: () => Promise<Answer>): Promise<Answer> {
  const now = performance.now();
  const answers = kept.get(bus) ?? new Map<string, Kept>();
  kept.set(bus, answers);
  for (const [each, { at }] of answers) if (now - at >= SHARED_MS) answers.delete(each);
  const found = answers.get(key);
  if (found !== undefined) return found.answer;
  const answer = make();
  if (answers.size < KEPT_MAX) answers.set(key, { at: now, answer });
  answer.catch(() => {
    if (answers.get(key)?.answer === answer) answers.delete(key);
  });
  return answer;
}

/** Something was changed from here, or the bus ends: nothing that was said before is said again. */
export function forget(bus: Shown): void {
  kept.delete(bus);
}

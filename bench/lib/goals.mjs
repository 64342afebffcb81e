/** What has to be reached. */
import { ratio } from './rounds.mjs';

const goals = [
  { name: 'publish, times ioredis', of: ['publish', 'ossa', 'ioredis'], least: 3 },
  { name: 'consume, times ioredis', of: ['consume', 'ossa, maxUnacknowledged 1,000', 'ioredis, COUNT 100, one XACK a batch'], least: 1.5 },
  { name: 'one publish at a time, p50, times ioredis', of: ['singlePublish', 'ossa', 'ioredis'], most: 1.15 },
];

/** Each goal with its figure and whether it was reached; `results` by the key of the measurement. */
export function judge(results) {
  return goals
    .filter(({ of: [key] }) => results[key] !== undefined)
    .map(({ name, of: [key, a, b], least, most }) => {
      const figure = ratio(results[key].sides[a], results[key].sides[b]);
      return {
        name,
        figure,
        goal: least === undefined ? `≤ ${most}` : `≥ ${least}`,
        reached: least === undefined ? figure.median <= most : figure.median >= least,
      };
    });
}

/** What has to be reached. */
import { ratio } from './rounds.mjs';

const goals = [
  { name: 'publish, times ioredis', of: ['publish', 'ossa', 'ioredis'], least: 3 },
  { name: 'consume, times ioredis', of: ['consume', 'ossa, maxUnacknowledged 1,000', 'ioredis, COUNT 100, one XACK a batch'], least: 1.5 },
  { name: 'one publish at a time, p50, times ioredis', of: ['singlePublish', 'ossa', 'ioredis'], most: 1.15 },
  { name: 'tasks a second to 100 agents', figureOf: ['orchestration', 'three, to the last completion'], least: 2_000 },
  { name: 'CPU a task with 1,000 agents, times that with 10', of: ['orchestrationCost', '1,000 agents', '10 agents'], most: 1.5 },
  { name: 'message between projects at 1,000/s, p99, ms', p99Of: ['crossProject', 'ossa'], most: 50 },
];

/** Of a goal by itself: ms. */
function p99(results, [key, side]) {
  const { median, min, max } = results[key].sides[side].p99;
  return { median: median / 1e3, min: min / 1e3, max: max / 1e3 };
}

/** Each goal with its figure and whether it was reached; `results` by the key of the measurement. */
export function judge(results) {
  return goals
    .filter(({ of, p99Of, figureOf }) => results[(of ?? p99Of ?? figureOf)[0]] !== undefined)
    .map(({ name, of, p99Of, figureOf, least, most }) => {
      const alone = () => (p99Of === undefined ? results[figureOf[0]].sides[figureOf[1]] : p99(results, p99Of));
      const figure = of === undefined ? alone() : ratio(results[of[0]].sides[of[1]], results[of[0]].sides[of[2]]);
      return {
        name,
        figure,
        goal: least === undefined ? `≤ ${most}` : `≥ ${least}`,
        reached: least === undefined ? figure.median <= most : figure.median >= least,
      };
    });
}

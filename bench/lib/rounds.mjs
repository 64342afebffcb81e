/** Rounds: every measurement in each, its sides in turn, so that a machine that slows down slows all of them down. */
import { spread } from './stats.mjs';

/**
 * Runs `measurements` `rounds` times after one round that does not count. Resolves with a list of
 * `{ name, unit, sides: { <side>: { median, min, max, p95?, p99?, cpu?, rounds } } }`.
 */
export async function runRounds(measurements, { rounds, context, onSide = () => {} }) {
  const results = measurements.map(({ name, unit, sides }) => ({
    name,
    unit,
    sides: Object.fromEntries(Object.keys(sides).map((side) => [side, []])),
  }));
  for (let round = 0; round <= rounds; round++) {
    for (const [at, { name, sides }] of measurements.entries()) {
      const order = Object.keys(sides);
      // Who goes first changes: the second may find a warmer machine.
      if (round % 2 === 1) order.reverse();
      for (const side of order) {
        await context.redis.flushall();
        globalThis.gc?.();
        const figures = await sides[side](context);
        if (round > 0) results[at].sides[side].push(figures);
        onSide({ round, name, side, figures });
      }
    }
  }
  await context.redis.flushall();
  return results.map((result) => ({
    ...result,
    sides: Object.fromEntries(Object.entries(result.sides).map(([side, list]) => [side, summary(list)])),
  }));
}

function summary(list) {
  const out = { ...spread(list.map((figures) => figures.value)), rounds: list.map((figures) => figures.value) };
  for (const key of ['p95', 'p99']) if (list[0][key] !== undefined) out[key] = spread(list.map((figures) => figures[key]));
  if (list[0].cpu !== undefined) {
    out.cpu = Object.fromEntries(Object.keys(list[0].cpu).map((part) => [part, spread(list.map((figures) => figures.cpu[part])).median]));
  }
  return out;
}

/** Median, least and greatest of `a / b`, each of one round. */
export const ratio = (a, b) => spread(a.rounds.map((value, round) => value / b.rounds[round]));

/** Rounds: every measurement in each, its sides in turn, so that a machine that slows down slows all of them down. */
import { spread } from './stats.mjs';

/** What takes longer waits for something that does not come: an event that was lost, for one. */
const sideMs = 180_000;

async function inTime(figures) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${sideMs / 1e3} s`)), sideMs);
  });
  try {
    return await Promise.race([figures, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Runs `measurements` `rounds` times after one round that does not count, to which `warmUp` is given. Resolves with a list of
 * `{ name, unit, ratios, sides: { <side>: { median, min, max, rounds, p95?, p99?, cpu? } } }`; p95, p99 and each part of cpu are such figures, too.
 */
export async function runRounds(measurements, { rounds, context, warmUp = context, onSide = () => {} }) {
  const results = measurements.map(({ name, unit, ratios = true, sides }) => ({
    ...{ name, unit, ratios },
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
        const figures = await inTime(sides[side](round === 0 ? warmUp : context)).catch((error) => {
          throw new Error(`${name}, ${side}: ${error.message}`, { cause: error });
        });
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
  const of = (pick) => spread(list.map(pick));
  const out = of(({ value }) => value);
  for (const key of ['p95', 'p99']) if (list[0][key] !== undefined) out[key] = of((figures) => figures[key]);
  if (list[0].cpu !== undefined)
    out.cpu = Object.fromEntries(Object.keys(list[0].cpu).map((part) => [part, of((figures) => figures.cpu[part])]));
  return out;
}

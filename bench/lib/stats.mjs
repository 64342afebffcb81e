/** Figures of several rounds, and times of many calls. */

/** The value below which `share` (0–1) of `values` lie. */
export function quantile(values, share) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

/** The middle one; between the two middle ones where their number is even. */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Median, least and greatest, and all of them in the order of the rounds. */
export const spread = (values) => ({ median: median(values), min: Math.min(...values), max: Math.max(...values), rounds: values });

/** Of figures of the same rounds: what `combine` makes of those of each round. */
export const each = (combine, ...figures) =>
  spread(figures[0].rounds.map((_, round) => combine(...figures.map(({ rounds }) => rounds[round]))));

/** `a / b`, of one round each. */
export const ratio = (a, b) => each((one, other) => one / other, a, b);

/** `a - b`, of one round each. */
export const difference = (a, b) => each((one, other) => one - other, a, b);

/**
 * How much the slope grows over points [x, y] with rising x: that of the last step divided by that of the step before. 1 on a line, whatever
 * its offset; 10 on a parabola with tenfold steps.
 */
export function bend(points) {
  const slope = ([x, y], [nextX, nextY]) => (nextY - y) / (nextX - x);
  const [before, between, last] = points.slice(-3);
  return slope(between, last) / slope(before, between);
}

/**
 * The line `offset + slope * x` that is nearest to the points, where what a point is off counts in proportion to its y: so that large ones do
 * not decide alone.
 */
export function line(points) {
  let [weights, xs, ys, xx, xy] = [0, 0, 0, 0, 0];
  for (const [x, y] of points) {
    const weight = 1 / y ** 2;
    weights += weight;
    xs += weight * x;
    ys += weight * y;
    xx += weight * x * x;
    xy += weight * x * y;
  }
  const slope = (weights * xy - xs * ys) / (weights * xx - xs * xs);
  return { offset: (ys - slope * xs) / weights, slope };
}

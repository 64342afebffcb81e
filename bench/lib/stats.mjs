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

/** Median, least and greatest. */
export const spread = (values) => ({ median: median(values), min: Math.min(...values), max: Math.max(...values) });

/** Counts of times by their size: eight steps to each doubling, from 1 µs on, so that a figure is right within 9 %. */
const stepsPerDoubling = 8;
const size = 256;

const newHistogram = () => new Uint32Array(size);

/** Counts a time in ms. */
function count(histogram, ms) {
  const step = Math.ceil(Math.log2(Math.max(ms * 1000, 1)) * stepsPerDoubling);
  histogram[Math.min(step, size - 1)]++;
}

/** The ms below which `share` of the times lie; NaN when there are none. */
function quantile(counts, share) {
  let left = counts.reduce((sum, each) => sum + each, 0) * share;
  if (left === 0) return Number.NaN;
  const step = counts.findIndex((each) => (left -= each) <= 0);
  return 2 ** (step / stepsPerDoubling) / 1000;
}

/** What several processes counted. */
const sum = (histograms) => Array.from({ length: size }, (_, step) => histograms.reduce((all, counts) => all + counts[step], 0));

module.exports = { newHistogram, count, quantile, sum };

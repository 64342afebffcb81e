/** What is to be said of counted instructions beside the reference. */

/** A path may take so much more than the reference says, per cent. */
export const ALLOWED_PERCENT = 10;

/** Both sides of each path: `{ path, measured, reference, percent, failed }`; a path without a reference fails. */
export function compare(measured, reference) {
  return Object.entries(measured).map(([path, count]) => {
    const known = reference[path];
    if (!(known > 0)) return { path, measured: count, reference: null, percent: null, failed: true };
    const percent = (count / known - 1) * 100;
    return { path, measured: count, reference: known, percent, failed: count * 100 > known * (100 + ALLOWED_PERCENT) };
  });
}

/** In which the machines differ that counted: a line each. */
export const differences = (here, reference) =>
  Object.keys({ ...reference, ...here })
    .filter((key) => here[key] !== reference[key])
    .map((key) => `${key}: ${here[key] ?? 'unknown'} here, ${reference[key] ?? 'unknown'} for the reference`);

/** A line for each path, under a head. */
export function table(rows) {
  const cells = rows.map(({ path, measured, reference, percent, failed }) => [
    path,
    thousands(measured),
    reference === null ? 'none' : thousands(reference),
    percent === null ? '' : `${percent < 0 ? '' : '+'}${percent.toFixed(1)} %`,
    failed ? 'FAILED' : 'ok',
  ]);
  const all = [['path', 'instructions an event', 'reference', 'difference', ''], ...cells];
  const widths = all[0].map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const line = (row) => row.map((cell, i) => (i === 0 || i === 4 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ');
  return all.map((row) => line(row).trimEnd()).join('\n');
}

const thousands = (count) => count.toLocaleString('en-US');

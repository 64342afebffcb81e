/** What is printed of runs. */

const counted = (counts) =>
  Object.entries(counts)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');

const columns = [
  ['seed', ({ seed }) => seed],
  ['published', ({ counts }) => counts.published],
  ['resolved', ({ counts }) => counts.resolved],
  ['rejected', ({ counts }) => counted(counts.refusals) || 0],
  ['unanswered', ({ counts }) => counts.unanswered],
  ['handled', ({ counts }) => counts.handled],
  ['duplicates', ({ duplicates }) => counted(duplicates) || 0],
  ['dead letters', ({ counts }) => counts.deadLetters],
  ['faults', ({ counts }) => counts.faults],
  ['lost by Redis', ({ counts }) => counts.lostByRedis],
  ['unannounced', ({ counts }) => counts.unannounced],
  ['data:loss', ({ counts }) => counts.losses],
  ['lost', ({ counts }) => counts.lost],
  ['twice', ({ counts }) => counts.twice + counts.twoIds],
  ['order', ({ counts }) => counts.order],
  ['stuck', ({ counts }) => counts.stuck],
  ['violations', ({ violations }) => violations.length],
];

/** One line for a run. */
export const line = (result) => columns.map(([name, value]) => `${name} ${value(result)}`).join(' · ');

/** A Markdown table of all runs. */
export function table(results) {
  const rows = results.map((result) => columns.map(([, value]) => String(value(result))));
  const head = columns.map(([name]) => name);
  const row = (cells) => `| ${cells.join(' | ')} |`;
  return [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');
}

/** The violations of a run with the histories of their events: `most` of each rule. */
export function details({ seed, violations, folder }, most = 3) {
  const lines = [];
  for (const rule of new Set(violations.map((violation) => violation.rule))) {
    const all = violations.filter((violation) => violation.rule === rule);
    lines.push(`\nseed ${seed}: ${rule} × ${all.length}`);
    for (const { text, history = [] } of all.slice(0, most)) lines.push(`  ${text}`, ...history.map((step) => `      ${step}`));
    if (all.length > most) lines.push(`  … and ${all.length - most} more`);
  }
  lines.push(`  all records: ${folder}`);
  return lines.join('\n');
}

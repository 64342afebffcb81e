/**
 * The comparison as a picture: a panel for each measurement, a bar for each of those compared, and a line over its end from the least to the
 * greatest figure of the rounds. Plain SVG, so that it can be read as it stands, in light and in dark surroundings.
 */
import { scaleLinear } from 'd3-scale';
import { show } from './report.mjs';

/** What is drawn: its key, and the figure of a side if not its first. */
const panels = [
  { key: 'publish', title: 'Publish, 1,000 in flight', unit: 'events/s' },
  { key: 'publishBatch', title: 'Publish in batches of 100', unit: 'events/s' },
  { key: 'consume', title: 'Consume a backlog', unit: 'events/s' },
  { key: 'publishConsume', title: 'Publish and consume at once, one process', unit: 'events/s' },
  { key: 'singlePublish', title: 'One publish at a time, median', unit: 'µs' },
  { key: 'singlePublish', title: 'One publish at a time, 99th percentile', unit: 'µs', of: (side) => side.p99 },
  { key: 'latency', title: 'From publish to handler at 1,000/s, median', unit: 'µs' },
  { key: 'latency', title: 'From publish to handler at 1,000/s, 99th percentile', unit: 'µs', of: (side) => side.p99 },
];

const width = 820;
const left = 270;
const right = 90;
const bar = 16;
const gap = 6;
const head = 34;
const foot = 30;

const style = `
  text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 13px; }
  .unit, .tick { fill: #59636e; font-size: 11px; }
  .tick, .title, .value { dominant-baseline: auto; }
  .grid { stroke: #d1d9e0; }
  .bar { fill: #8c959f; }
  .own { fill: #0969da; }
  .limit { fill: none; stroke: #8c959f; stroke-dasharray: 3 2; }
  .spread { stroke: #1f2328; stroke-width: 1.5; }
  .back { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .unit, .tick { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .bar { fill: #6e7681; }
    .own { fill: #4493f8; }
    .limit { stroke: #6e7681; }
    .spread { stroke: #e6edf3; }
    .back { fill: #0d1117; }
  }
`;

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

const text = (x, y, kind, content, anchor = 'start') =>
  `<text class="${kind}" x="${x}" y="${y}" text-anchor="${anchor}">${escaped(content)}</text>`;

/** Of this bus, of what only shows a limit, or of another one. */
function kindOf(side) {
  if (side.startsWith('ossa')) return 'own';
  return /^(redis-benchmark|PING)/.test(side) ? 'limit' : 'bar';
}

function panel({ title, unit, better, sides }, top) {
  const x = scaleLinear()
    .domain([0, Math.max(...sides.map(({ figure }) => figure.max))])
    .nice(5)
    .range([left, width - right]);
  const at = (value) => x(value).toFixed(1);
  const bottom = top + head + sides.length * (bar + gap);
  const out = [text(16, top + 18, 'title', title), text(width - 16, top + 18, 'unit', `${unit}, ${better}`, 'end')];
  for (const tick of x.ticks(5)) {
    out.push(`<line class="grid" x1="${at(tick)}" x2="${at(tick)}" y1="${top + head - 4}" y2="${bottom}"/>`);
    out.push(text(at(tick), bottom + 14, 'tick', tick.toLocaleString('en-US'), 'middle'));
  }
  for (const [i, { side, figure }] of sides.entries()) {
    const y = top + head + i * (bar + gap);
    const middle = y + bar / 2;
    out.push(text(left - 8, middle + 4, 'name', side, 'end'));
    out.push(`<rect class="${kindOf(side)}" x="${left}" y="${y}" width="${(x(figure.median) - left).toFixed(1)}" height="${bar}" rx="2"/>`);
    out.push(`<line class="spread" x1="${at(figure.min)}" x2="${at(figure.max)}" y1="${middle}" y2="${middle}"/>`);
    for (const end of [figure.min, figure.max])
      out.push(`<line class="spread" x1="${at(end)}" x2="${at(end)}" y1="${middle - 4}" y2="${middle + 4}"/>`);
    out.push(text(Number(at(Math.max(figure.median, figure.max))) + 8, middle + 4, 'value', show(figure.median)));
  }
  return { svg: out.join('\n'), height: bottom + foot - top };
}

/** SVG of those panels that were measured. */
export function chart(results) {
  let y = 8;
  const drawn = panels
    .filter(({ key }) => results[key] !== undefined)
    .map(({ key, title, unit, of = (side) => side }) => {
      const sides = Object.entries(results[key].sides).map(([side, result]) => ({ side, figure: of(result) }));
      const better = unit === 'µs' ? 'less is better' : 'more is better';
      const { svg, height } = panel({ title, unit, better, sides: sides.filter(({ figure }) => figure !== undefined) }, y);
      y += height;
      return svg;
    });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y}" viewBox="0 0 ${width} ${y}" role="img">`,
    '<title>Throughput and latency beside other clients</title>',
    `<style>${style}</style>`,
    `<rect class="back" width="${width}" height="${y}"/>`,
    ...drawn,
    '</svg>\n',
  ].join('\n');
}

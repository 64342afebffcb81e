/** Figures and times as people read them. Missing ones are a dash. */

const DASH = '–';
const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

const isFigure = (value: number | null | undefined): value is number => typeof value === 'number' && Number.isFinite(value);

/** 12,345 */
export function count(value: number | null | undefined): string {
  return isFigure(value) ? grouped.format(value) : DASH;
}

/** With three digits that matter: 0.25, 3.2, 48, 1,234. */
export function figure(value: number | null | undefined): string {
  if (!isFigure(value)) return DASH;
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.01) return '<0.01';
  return size >= 100 ? grouped.format(value) : String(Number(value.toFixed(size >= 10 ? 1 : 2)));
}

/** 3.2 /s */
export function rate(value: number | null | undefined): string {
  return isFigure(value) ? `${figure(value)} /s` : DASH;
}

/** 0.5 % */
export function percent(value: number | null | undefined): string {
  return isFigure(value) ? `${figure(value)} %` : DASH;
}

/** Milliseconds, or seconds from one on. */
export function millis(value: number | null | undefined): string {
  if (!isFigure(value)) return DASH;
  return value < 1000 ? `${figure(value)} ms` : value < 60_000 ? `${figure(value / 1000)} s` : span(value);
}

/** 12 bytes, 3.4 kB */
export function bytes(value: number | null | undefined): string {
  if (!isFigure(value)) return DASH;
  return value < 1000 ? `${value} B` : value < 1e6 ? `${figure(value / 1000)} kB` : `${figure(value / 1e6)} MB`;
}

const UNITS: ReadonlyArray<readonly [ms: number, name: string]> = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
];

/** The largest unit and the one below it: 3 d 4 h. */
export function span(ms: number | null | undefined): string {
  if (!isFigure(ms)) return DASH;
  const rest = Math.max(0, ms);
  const at = UNITS.findIndex(([size]) => rest >= size);
  const unit = UNITS[at];
  if (unit === undefined) return '0 s';
  const whole = Math.floor(rest / unit[0]);
  const next = UNITS[at + 1];
  const below = next === undefined ? 0 : Math.floor((rest - whole * unit[0]) / next[0]);
  return next === undefined || below === 0 ? `${whole} ${unit[1]}` : `${whole} ${unit[1]} ${below} ${next[1]}`;
}

/** 12 s ago; in 3 min. */
export function ago(time: string | number | Date | null | undefined, now: number): string {
  const at = time === null || time === undefined ? Number.NaN : new Date(time).getTime();
  if (Number.isNaN(at)) return DASH;
  const distance = now - at;
  if (Math.abs(distance) < 1000) return 'now';
  const [size, name] = UNITS.find(([ms]) => Math.abs(distance) >= ms) as readonly [number, string];
  const text = `${Math.floor(Math.abs(distance) / size)} ${name}`;
  return distance > 0 ? `${text} ago` : `in ${text}`;
}

/** Local time with its distance from UTC: 2026-11-28 21:03:10 +01:00. */
export function absolute(time: string | number | Date | null | undefined): string {
  const at = time === null || time === undefined ? new Date(Number.NaN) : new Date(time);
  if (Number.isNaN(at.getTime())) return '';
  const two = (value: number) => String(value).padStart(2, '0');
  const offset = -at.getTimezoneOffset();
  const zone = `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  const date = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${date} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())} ${zone}`;
}

/** 21:03:10 */
export function clock(time: string | number | Date): string {
  return absolute(time).slice(11, 19);
}

/** One letter, 1,200 letters. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** At most `max` characters, with … where something is left out. */
export function shortened(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, max - 1)}…`;
}

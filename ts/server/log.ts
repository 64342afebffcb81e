/** The log of the server program: one line of JSON for each record on stdout, which is what log collectors read. */
import type { Logger } from '../types';

const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

/** The least severe lines that are written; 'silent': none. */
export type Level = (typeof LEVELS)[number];

/** What the program says of itself unless it is told otherwise. The bus has a default of its own, 'warn'. */
export const DEFAULT_LEVEL: Level = 'info';

/** Whether `value` is the name of a level. */
export const isLevel = (value: unknown): value is Level => LEVELS.includes(value as Level);

/** The names of all levels, for messages. */
export const levelNames = (): string => LEVELS.join(', ');

/** Nobody reads stdout any more: a line that was written there would fail, and that be told in another one. */
let isUnread = false;

/** Calls `then` once when nobody reads stdout any more. Without a listener a failed write would be an error that nothing handled. */
export function whenUnread(then: () => void): void {
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', () => {
    if (isUnread) return;
    isUnread = true;
    then();
  });
}

function toStdout(line: string): void {
  if (!isUnread) process.stdout.write(line);
}

/** A logger that writes records of `least` and above to `write`, each with a line break at its end. */
export function jsonLogger(least: Level, write: (line: string) => void = toStdout): Logger {
  const at = (level: Exclude<Level, 'silent'>) => (message: string) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
    write(`${JSON.stringify({ time: new Date().toISOString(), level, message })}\n`);
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

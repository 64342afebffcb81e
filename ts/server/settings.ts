/** What the server program is told: environment variables beside those of the bus, and the file that OSSA_CONFIG names. */
import { readFileSync } from 'node:fs';
import { property } from '../errors';
import type { DeepPartial, OSSAEventBusConfig } from '../types';
import { DEFAULT_LEVEL, isLevel, type Level, levelNames } from './log';

/** Longest drain that may be asked for: a day. */
const DRAIN_TIMEOUT_MS_MAX = 86_400_000;

/** Longest token, characters. */
const TOKEN_MAX = 1024;

/** How the program runs. */
export interface Settings {
  /** 0: any free port. */
  port: number;
  host: string;
  /** undefined: HTTP asks for none. */
  token: string | undefined;
  drainTimeoutMs: number;
  /** Of the program's own lines. */
  level: Level;
  /** Where `config` was read from; undefined: there is no file. */
  file: string | undefined;
  config: DeepPartial<OSSAEventBusConfig>;
}

/** Something the program was told is wrong. The message names the variable. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/**
 * Blanks around a value do not count, nor does an empty one.
 * @throws SettingsError
 */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  const text = (name: string) => env[name]?.trim() || undefined;
  const file = text('OSSA_CONFIG');
  const config = file === undefined ? {} : readConfig(file);
  return {
    port: whole('PORT', text('PORT'), 3000, 65_535),
    host: text('HOST') ?? '127.0.0.1',
    token: readToken(env['OSSA_HTTP_TOKEN']),
    drainTimeoutMs: whole('DRAIN_TIMEOUT_MS', text('DRAIN_TIMEOUT_MS'), 10_000, DRAIN_TIMEOUT_MS_MAX),
    level: readLevel(property(property(config, 'eventBus'), 'logLevel'), text('OSSA_LOG')),
    file,
    config,
  };
}

function whole(name: string, value: string | undefined, otherwise: number, max: number): number {
  if (value === undefined) return otherwise;
  const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
  if (number <= max) return number;
  throw new SettingsError(`${name} must be a whole number from 0 to ${max}, not ${JSON.stringify(value)}`);
}

/** A secret: it is taken as it is, and never shown. What no header can carry nobody could send. */
function readToken(value: string | undefined): string | undefined {
  if (value === undefined || value === '') return undefined;
  if (/^[\x21-\x7e]+$/.test(value) && value.length <= TOKEN_MAX) return value;
  throw new SettingsError(`OSSA_HTTP_TOKEN must be 1 to ${TOKEN_MAX} printable ASCII characters without blanks and line breaks`);
}

/** The file's word over the environment's, as for the bus. A wrong word in the file is for the bus to refuse. */
function readLevel(inFile: unknown, inEnvironment: string | undefined): Level {
  if (isLevel(inFile)) return inFile;
  if (inEnvironment === undefined) return DEFAULT_LEVEL;
  const level = inEnvironment.toLowerCase();
  if (isLevel(level)) return level;
  throw new SettingsError(`OSSA_LOG must be one of ${levelNames()}, not ${JSON.stringify(inEnvironment)}`);
}

function readConfig(file: string): DeepPartial<OSSAEventBusConfig> {
  const found = parse(file, read(file));
  if (typeof found !== 'object' || found === null || Array.isArray(found)) {
    throw new SettingsError(`OSSA_CONFIG: ${file} must hold a JSON object, with the keys of OSSAEventBusConfig`);
  }
  return found;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new SettingsError(`OSSA_CONFIG: ${file} cannot be read (${String(property(error, 'code') ?? 'unknown error')})`);
  }
}

function parse(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The message of the parser quotes what is around the place, which may be a password.
    throw new SettingsError(`OSSA_CONFIG: ${file} is not JSON`);
  }
}

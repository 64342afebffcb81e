/** The files of the dashboard page, as they were built beside this one. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { internal } from '../errors';
import type { Answer } from './answers';

interface Asset {
  readonly body: Buffer;
  readonly type: string;
  readonly tag: string;
}

const TYPES: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
};

let assets: Map<string, Asset> | undefined;

/** The file of that name below dist/dashboard, or nothing; not again where the client has it. */
export function asset(name: string, ifNoneMatch: string | undefined): Answer | undefined {
  assets ??= load(join(__dirname, '../dashboard'));
  const found = assets.get(name);
  if (found === undefined) return undefined;
  const headers = { 'Cache-Control': 'no-cache', 'Content-Type': found.type, ETag: found.tag };
  const isKnown = ifNoneMatch?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === found.tag || tag.trim() === '*');
  return isKnown ? { status: 304, headers } : { status: 200, headers, body: found.body };
}

/** All of it, once: some 200 kB. Only what is found here is ever answered, so no name leads elsewhere. */
function load(folder: string): Map<string, Asset> {
  const loaded = new Map<string, Asset>();
  try {
    for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      const type = TYPES[extname(file)];
      if (type === undefined) continue;
      const body = readFileSync(join(folder, file));
      const tag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
      loaded.set(file.replaceAll('\\', '/'), { body, type, tag });
    }
  } catch (error) {
    throw internal('The files of the dashboard page are not beside the package', error);
  }
  return loaded;
}

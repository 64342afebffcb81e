/** What a request asks for, wherever the handler is mounted. */
import type { IncomingMessage } from 'node:http';
import { Refusal } from './answers';

/** A path below the place where the handler is mounted. */
export interface Target {
  /** Begins with '/', not decoded. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Where the page is instead: its relative addresses need the slash at the end. */
  readonly redirect?: string;
}

/** Frameworks that cut off the mount path keep what was asked for. */
type Mounted = IncomingMessage & { originalUrl?: unknown };

/**
 * The target of a request. A base path is looked for in the whole address first, then in what the framework left of it; where the
 * framework has cut something off already, the base path may be missing.
 * @throws Refusal 400 for what is no path, 404 outside of the base path
 */
export function targetOf(request: Mounted, basePath: string): Target {
  const url = split(request.url ?? '/');
  const original = typeof request.originalUrl === 'string' ? split(request.originalUrl) : url;
  const cut = original.path === url.path ? undefined : url.path;
  const path = basePath === '' ? url.path : (below(original.path, basePath) ?? below(url.path, basePath) ?? cut);
  if (path === undefined) throw notHere();
  const target = { path: path === '' ? '/' : path, query: new URLSearchParams(url.search) };
  // Relative and without the first segments, so that it cannot lead to another host.
  const last = original.path.slice(original.path.lastIndexOf('/') + 1);
  return target.path === '/' && last !== '' ? { ...target, redirect: `./${last}/` } : target;
}

/** The address has nothing at it. */
export function notHere(): Refusal {
  return new Refusal(404, 'ERR_NOT_FOUND', 'There is nothing at this address');
}

/** What of `path` is below `basePath`; undefined: it is elsewhere. */
function below(path: string, basePath: string): string | undefined {
  if (path === basePath) return '';
  return path.startsWith(`${basePath}/`) ? path.slice(basePath.length) : undefined;
}

function split(url: string): { path: string; search: string } {
  // To a proxy a whole address may be sent.
  const local = url.replace(/^https?:\/\/[^/?#]*/i, '') || '/';
  if (!local.startsWith('/')) throw new Refusal(400, 'ERR_BAD_REQUEST', 'The address of the request must be a path');
  const mark = local.indexOf('?');
  return mark < 0 ? { path: local, search: '' } : { path: local.slice(0, mark), search: local.slice(mark + 1) };
}

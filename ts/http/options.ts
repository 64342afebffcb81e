/** Options of httpHandler() and serve(). */
import { keysOf } from '../arguments';
import { invalidArgument } from '../errors';

/** Checked options of httpHandler(). */
export interface HandlerOptions {
  readonly token?: string;
  /** '' or '/a/b' */
  readonly basePath: string;
}

/** Checked options of serve(). */
export interface ServeOptions {
  readonly port: number;
  readonly host: string;
  readonly token?: string;
}

/** Where serve() listens unless told otherwise: the port that the server program and the deployment files use. */
export const DEFAULT_PORT = 3000;
const DEFAULT_HOST = '127.0.0.1';
const PORT_MAX = 65_535;
const TOKEN_MAX = 1024;

/** @throws OSSAError ERR_INVALID_ARGUMENT with the option's name */
export function handlerOptions(options: unknown): HandlerOptions {
  const { token, basePath } = known(options, ['token', 'basePath']);
  return { ...checkedToken(token), basePath: checkedBasePath(basePath) };
}

/** @throws OSSAError ERR_INVALID_ARGUMENT with the option's name */
export function serveOptions(options: unknown): ServeOptions {
  const { port = DEFAULT_PORT, host = DEFAULT_HOST, token } = known(options, ['port', 'host', 'token']);
  if (!Number.isInteger(port) || (port as number) < 0 || (port as number) > PORT_MAX) {
    throw invalidArgument('options.port', `must be a whole number from 0 (a free port) to ${PORT_MAX}`);
  }
  if (typeof host !== 'string' || !/^[0-9A-Za-z._:%-]{1,255}$/.test(host)) {
    throw invalidArgument('options.host', "must be a host name or an address of this machine, such as '127.0.0.1' or '0.0.0.0'");
  }
  return { port: port as number, host, ...checkedToken(token) };
}

/** What is to be said of a server that others than this machine reach without a token; undefined: nothing. */
export function exposure({ host, token }: ServeOptions): string | undefined {
  if (token !== undefined || host === 'localhost' || host === '::1' || /^127\./.test(host)) return undefined;
  return `serve() on ${host} without a token: everybody who reaches it can read events, and redrive and purge dead letters`;
}

function known(options: unknown, names: readonly string[]): Record<string, unknown> {
  if (options === undefined || options === null) return {};
  const read = keysOf('options', options);
  if (read === undefined) throw invalidArgument('options', 'must be an object');
  for (const name of Object.keys(read)) {
    if (!names.includes(name)) throw invalidArgument(`options.${name}`, `is not known here; known are ${names.join(', ')}`);
  }
  return read;
}

/** An empty token is refused: a variable that is not set must not open the door. */
function checkedToken(token: unknown): { token?: string } {
  if (token === undefined) return {};
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token) || token.length > TOKEN_MAX) {
    throw invalidArgument('options.token', `must be 1 to ${TOKEN_MAX} visible ASCII characters without blanks, or left out`);
  }
  return { token };
}

function checkedBasePath(path: unknown): string {
  if (path === undefined || path === '' || path === '/') return '';
  if (typeof path !== 'string' || !/^(\/[A-Za-z0-9._~-]+)+\/?$/.test(path) || /\/\.\.?(\/|$)/.test(path)) {
    throw invalidArgument('options.basePath', "must be a path such as '/bus', of A-Z a-z 0-9 . _ ~ - between slashes");
  }
  return path.endsWith('/') ? path.slice(0, -1) : path;
}

/** serve(): the handler on a server of its own. */
import { createServer, type Server } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import { describeThrown, OSSAError, property } from '../errors';
import type { Handler } from './handler';
import type { ServeOptions } from './options';

/** Answer of serve(). */
export interface Serving {
  readonly port: number;
  readonly url: string;
  /** Ends it, with all connections; idempotent. */
  close(): Promise<void>;
}

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const CONNECTIONS_MAX = 512;
/** Answers under way at close() may take so long. */
const CLOSE_TIMEOUT_MS = 2_000;

/**
 * Resolves once it listens.
 * @throws OSSAError ERR_INVALID_ARGUMENT where that address cannot be listened at, naming the option
 */
export async function serve(handler: Handler, { port, host }: ServeOptions): Promise<Serving> {
  const server = createServer({ headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS }, handler);
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(notServed(error, host, port)));
    server.listen({ port, host, exclusive: true }, resolve);
  });
  server.on('error', () => undefined);
  const address = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  return {
    port: address.port,
    url: `http://${isIPv6(host) ? `[${host}]` : host}:${address.port}`,
    close: () => (closing ??= end(server)),
  };
}

/** Idle connections end at once, those with an answer under way when it is sent, none later than the timeout. */
function end(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const late = setTimeout(() => server.closeAllConnections(), CLOSE_TIMEOUT_MS);
    server.close(() => {
      clearTimeout(late);
      resolve();
    });
    server.closeIdleConnections();
  });
}

const ADVICE: Readonly<Record<string, readonly [option: string, problem: string]>> = {
  EADDRINUSE: ['options.port', 'is in use by another server; choose another one, or 0 for a free one'],
  EACCES: ['options.port', 'may not be listened at by this user; choose one above 1023'],
  EADDRNOTAVAIL: ['options.host', 'is no address of this machine'],
  ENOTFOUND: ['options.host', 'cannot be found'],
};

function notServed(error: unknown, host: string, port: number): OSSAError {
  const code = String(property(error, 'code'));
  const [argument, problem] = ADVICE[code] ?? ['options', `cannot be listened at: ${describeThrown(error)}`];
  const what = argument === 'options.host' ? `'${host}'` : argument === 'options.port' ? String(port) : `${host}:${port}`;
  return new OSSAError(`${argument}: ${what} ${problem}`, {
    code: 'ERR_INVALID_ARGUMENT',
    details: { argument, system: code },
    cause: error,
  });
}

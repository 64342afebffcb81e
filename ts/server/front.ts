/**
 * The HTTP server of the program. It answers from the start to the end of the process, also while the bus does not: a bus has
 * no HTTP handler before it is connected, and none after it was closed.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What answers once the bus is there. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Why the program is not ready. */
export type Waiting = 'starting' | 'draining';

/** Longest times that a client may take to ask. */
const TIMEOUTS = { headersTimeout: 10_000, requestTimeout: 30_000 };

/** Far more than probes, a Prometheus and some operators need. */
const CONNECTIONS_MAX = 512;

/** Answers under way at the end may take so long. */
const CLOSE_TIMEOUT_MS = 2_000;

/** The server, and who answers. */
export class Front {
  readonly #server: Server;
  #handler: Handler | undefined;
  #waiting: Waiting | undefined = 'starting';
  #isClosing = false;

  constructor() {
    this.#server = createServer(TIMEOUTS, (request, response) => this.#answer(request, response));
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Resolves with the address under which it can be reached. Rejects with the system's error. */
  listen(port: number, host: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject);
        const { address, family, port } = this.#server.address() as AddressInfo;
        resolve(`http://${family === 'IPv6' ? `[${address}]` : address}:${port}`);
      });
    });
  }

  /** The bus is connected: from now on its handler answers. */
  ready(handler: Handler): void {
    this.#handler = handler;
    if (this.#waiting === 'starting') this.#waiting = undefined;
  }

  /** From now on the program is not ready; what was asked otherwise is answered as before. */
  drain(): void {
    this.#waiting = 'draining';
  }

  /** Ends it: connections without a question at once, others when it is answered, none later than the timeout. */
  close(): Promise<void> {
    this.#isClosing = true;
    return new Promise((resolve) => {
      const late = setTimeout(() => this.#server.closeAllConnections(), CLOSE_TIMEOUT_MS);
      this.#server.close(() => {
        clearTimeout(late);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    // Clients keep connections for more questions.
    response.once('close', () => this.#isClosing && this.#server.closeIdleConnections());
    const waiting = this.#waiting;
    const [path] = (request.url ?? '/').split('?', 1);
    // A process that waits for Redis, or ends, is alive: nobody need restart it.
    if (waiting !== undefined && path === '/healthz') say(response, 200, waiting);
    else if (waiting !== undefined && path === '/readyz') say(response, 503, waiting);
    else this.#delegate(request, response);
  }

  #delegate(request: IncomingMessage, response: ServerResponse): void {
    if (this.#handler === undefined) {
      say(response, 503, this.#waiting ?? 'starting');
      return;
    }
    try {
      this.#handler(request, response);
    } catch {
      // The bus was closed between the question and the answer.
      if (response.headersSent) response.destroy();
      else say(response, 503, this.#waiting ?? 'draining');
    }
  }
}

function say(response: ServerResponse, status: number, what: Waiting): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify({ status: what })}\n`);
}

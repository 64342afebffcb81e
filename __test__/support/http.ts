/** Asking an HTTP server of a test. */
import { type IncomingMessage, request } from 'node:http';

/** An answer, read to its end. */
export interface Reply {
  status: number;
  headers: IncomingMessage['headers'];
  text: string;
  /** The text as JSON. */
  json: any;
}

export interface Ask {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  /** Called with the request, which is then not ended: the test sends what it wants. */
  send?: (request: ReturnType<typeof requestOf>) => void;
}

const requestOf = request;

/** Asks `url` as written, without what `fetch` would set or mend. */
export function ask(url: string, path: string, { method = 'GET', headers = {}, body, send }: Ask = {}): Promise<Reply> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const asked = request({ host: hostname.replace(/^\[|\]$/g, ''), port, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const reply = { status: response.statusCode as number, headers: response.headers, text };
        resolve({
          ...reply,
          get json() {
            return JSON.parse(text);
          },
        });
      });
    });
    asked.on('error', reject);
    if (send !== undefined) send(asked);
    else asked.end(body);
  });
}

/** A POST of JSON. */
export const post = (url: string, path: string, value: unknown, headers: Record<string, string> = {}): Promise<Reply> =>
  ask(url, path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) });

/** Who may ask, and from where. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIPv6 } from 'node:net';
import { Refusal } from './answers';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

const BASIC = 'Basic realm="event bus", charset="UTF-8"';
const BEARER = 'Bearer realm="event bus"';
const WARN_EVERY_MS = 60_000;

/** Somebody opens the page: a browser then asks for the token. It must not for what a page or a program asks for. */
function isNavigation({ headers }: IncomingMessage): boolean {
  const mode = headers['sec-fetch-mode'];
  return mode === undefined ? /\btext\/html\b/i.test(headers.accept ?? '') : mode === 'navigate';
}

/** Lets requests through, or throws a {@link Refusal}. */
export class Guard {
  readonly #token: Buffer | undefined;
  readonly #warn: (text: string) => void;
  #wrong = 0;
  #nextWarning = 0;

  constructor(token: string | undefined, warn: (text: string) => void) {
    this.#token = token === undefined ? undefined : digest(token);
    this.#warn = warn;
  }

  /** For all that says something of the bus. */
  enter(request: IncomingMessage): void {
    if (this.#token === undefined) checkHost(request);
    else if (!this.#hasToken(request)) {
      if (request.headers.authorization !== undefined) this.#countWrong();
      const challenge = { 'WWW-Authenticate': isNavigation(request) ? BASIC : BEARER };
      throw new Refusal(
        401,
        'ERR_UNAUTHORIZED',
        'Send the token: Authorization: Bearer <token>, or as the password of HTTP Basic',
        challenge,
      );
    }
  }

  /** Whether {@link enter} would let it through. */
  knows(request: IncomingMessage): boolean {
    try {
      this.enter(request);
      return true;
    } catch {
      return false;
    }
  }

  /** For all but the page, after {@link enter}: without a token pages of other sites may not even ask, as what they ask for costs. */
  look(request: IncomingMessage): void {
    const site = request.headers['sec-fetch-site'];
    if (this.#token !== undefined || (site !== 'cross-site' && site !== 'same-site')) return;
    throw new Refusal(403, 'ERR_FORBIDDEN', 'Pages of other sites may not ask here');
  }

  /** For all that changes something, after {@link enter}. */
  change(request: IncomingMessage): void {
    checkOrigin(request);
    const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
    if (type !== 'application/json') throw new Refusal(415, 'ERR_CONTENT_TYPE', 'Content-Type must be application/json');
  }

  /** Somebody guesses, or has an old one: said once in a while, with how often. */
  #countWrong(): void {
    this.#wrong++;
    const now = performance.now();
    if (now < this.#nextWarning) return;
    this.#nextWarning = now + WARN_EVERY_MS;
    this.#warn(`HTTP: ${this.#wrong === 1 ? 'a request' : `${this.#wrong} requests`} with a wrong token`);
    this.#wrong = 0;
  }

  #hasToken(request: IncomingMessage): boolean {
    const given = tokenOf(request.headers.authorization);
    // Of the digests, which are of one length: how long it takes says nothing of the token.
    return given !== undefined && this.#token !== undefined && timingSafeEqual(digest(given), this.#token);
  }
}

function tokenOf(authorization: string | undefined): string | undefined {
  const [, scheme, value] = /^(bearer|basic) +(\S+) *$/i.exec(authorization ?? '') ?? [];
  if (scheme === undefined || value === undefined) return undefined;
  if (scheme.toLowerCase() === 'bearer') return value;
  const pair = Buffer.from(value, 'base64').toString();
  const colon = pair.indexOf(':');
  return colon < 0 ? undefined : pair.slice(colon + 1);
}

/**
 * A site in a browser of this machine can give its own name the address 127.0.0.1, and then is of one origin with what answers there. Its
 * requests carry its name. Where the connection came to another address, which names are right is not known here: there a token protects.
 */
function checkHost(request: IncomingMessage): void {
  const address = plain(request.socket.localAddress ?? '');
  if (!isLoopback(address)) return;
  const host = hostName(request.headers.host);
  if (host === address || host === 'localhost' || host.endsWith('.localhost') || isLoopback(host)) return;
  throw new Refusal(
    403,
    'ERR_FORBIDDEN',
    'The Host header names something else than this machine: ask for localhost, have the proxy send Host: localhost, or set a token',
  );
}

/**
 * Browsers say where a page is from that asks: by Sec-Fetch-Site, which scripts cannot set, or by Origin. Other programs say neither.
 */
function checkOrigin(request: IncomingMessage): void {
  const site = request.headers['sec-fetch-site'];
  if (site !== undefined) {
    if (site === 'same-origin' || site === 'none') return;
  } else {
    const { origin, host } = request.headers;
    if (origin === undefined || (host !== undefined && origin.replace(/^https?:\/\//i, '').toLowerCase() === host.toLowerCase())) return;
  }
  throw new Refusal(403, 'ERR_FORBIDDEN', 'Pages of other sites may not change anything here');
}

/** Without port and brackets. */
function hostName(host: string | undefined): string {
  const name = (host ?? '').toLowerCase();
  const inBrackets = /^\[([^\]]*)\](?::\d*)?$/.exec(name)?.[1];
  return inBrackets ?? name.replace(/:\d*$/, '');
}

/** An IPv4 address as such, where a socket of both kinds has it as one of IPv6. */
function plain(address: string): string {
  return address.toLowerCase().replace(/^::ffff:(?=\d+\.)/, '');
}

function isLoopback(address: string): boolean {
  return (isIPv6(address) && plain(address) === '::1') || /^127(\.\d{1,3}){3}$/.test(plain(address));
}

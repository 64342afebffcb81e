/** TLS settings as Node.js has them, as `redis.tls` has them. What that cannot express is refused: without it, the connection is another. */
import { types } from 'node:util';
import type { EventBusConfig } from '../types';
import { refused } from './settings';

type Tls = Exclude<NonNullable<EventBusConfig['redis']['tls']>, boolean>;

/** Settings that hold anyway: the engine speaks TLS 1.2 and 1.3. */
const ALWAYS: Readonly<Record<string, string>> = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' };

/**
 * The options of `tls.connect()` in `options`, where `true` stands for none. Keys in `others` are not about TLS.
 * @throws OSSAError ERR_INVALID_ARGUMENT with the key
 */
export function tlsOf(options: unknown, at: string, others: ReadonlySet<string> = new Set()): Tls | true {
  if (options === true) return true;
  if (typeof options !== 'object' || options === null) throw refused(`${at} is neither true nor an object`);
  const tls: Tls = {};
  // In one order, so that two can be compared by their text.
  for (const key of Object.keys(options).sort()) {
    const value = (options as Record<string, unknown>)[key];
    if (value === undefined || value === null || others.has(key) || ALWAYS[key] === value) continue;
    switch (key) {
      case 'ca':
        tls.ca = (Array.isArray(value) ? value : [value]).map((ca) => pem(ca, `${at}.ca`)).join('\n');
        break;
      case 'cert':
      case 'key':
        tls[key] = pem(Array.isArray(value) && value.length === 1 ? value[0] : value, `${at}.${key}`);
        break;
      case 'servername':
        if (typeof value !== 'string') throw refused(`${at}.servername is not a text`);
        if (value !== '') tls.serverName = value;
        break;
      case 'rejectUnauthorized':
        // As Node.js has it: everything but false is true.
        if (value === false) tls.rejectUnauthorized = false;
        break;
      default:
        throw refused(`${at}.${key} cannot be taken over: of TLS the registry knows ca, cert, key, servername and rejectUnauthorized`);
    }
  }
  return Object.keys(tls).length === 0 ? true : tls;
}

function pem(value: unknown, at: string): string {
  if (typeof value === 'string') return value;
  if (types.isUint8Array(value)) return Buffer.from(value).toString();
  throw refused(`${at} cannot be taken over: it must be one PEM text or Buffer (ca: or an array of them)`);
}

/** Settings of node-redis, versions 4 to 6: of one server, and, from version 5 on, of a cluster. */
import { property } from '../errors';
import { agreed, databaseOf, type Login, loginOf, type ParsedUrl, parseUrl, refused, type Settings, serverOf, socketUrl } from './settings';
import { tlsOf } from './tls';

/** What a socket's options hold beside those of TLS. */
const SOCKET_KEYS: ReadonlySet<string> = new Set([
  ...['tls', 'host', 'port', 'path', 'family', 'hints', 'autoSelectFamily', 'autoSelectFamilyAttemptTimeout', 'signal'],
  ...['connectTimeout', 'socketTimeout', 'timeout', 'reconnectStrategy', 'keepAlive', 'keepAliveInitialDelay', 'noDelay'],
  ...['onread', 'readable', 'writable', 'highWaterMark', 'allowHalfOpen'],
]);

/** From `client.options`; undefined: all as it is by default. */
export function nodeRedisSettings(options: unknown, at = 'options'): Settings {
  const socket = property(options, 'socket');
  refuseSocket(socket, `${at}.socket`);
  const login = { ...credentialsOf(options, at), db: databaseOf(options, 'database', at) };
  const tls = property(socket, 'tls') === true;
  const path = property(socket, 'path');
  if (typeof path === 'string' && path !== '') {
    if (tls) throw refused('it speaks TLS over a Unix socket, which the registry does not');
    return { url: socketUrl(path), ...login };
  }
  return { ...serverOf(socket, `${at}.socket`), ...login, ...(tls ? { tls: tlsOf(socket, `${at}.socket`, SOCKET_KEYS) } : {}) };
}

/** From the options of a cluster: what holds for all of its nodes stands in `defaults`, which a root node may extend. */
export function nodeRedisClusterSettings(options: unknown): Settings {
  if (property(options, 'nodeAddressMap') !== undefined) throw refused('options.nodeAddressMap cannot be taken over');
  const defaults = property(options, 'defaults');
  const roots = property(options, 'rootNodes') as unknown[];
  if (roots.length === 0) throw refused('options.rootNodes is empty');
  const nodes = roots.map((root, index) => {
    const at = `options.rootNodes[${index}]`;
    const { url, ...settings } = nodeRedisSettings(withUrl(root, defaults, at), at);
    if (url !== undefined) throw refused(`${at} is a Unix socket`);
    return settings;
  });
  // Nodes that the roots name are reached by the defaults alone.
  const others = defaults === undefined ? [] : [nodeRedisSettings(defaults, 'options.defaults')];
  const one = agreed(
    [...nodes, ...others].map(({ host: _, port: __, db: ___, ...rest }) => rest),
    'users, passwords or TLS settings',
  );
  return { cluster: { nodes: nodes.map(({ host, port }) => ({ host: host as string, port: port as number })) }, ...one, db: 0 };
}

/** As node-redis puts them together: the URL wins over the node's own options, and those over the defaults. */
function withUrl(root: unknown, defaults: unknown, at: string): Record<string, unknown> {
  const given = property(root, 'url');
  const { host, port, tls, ...login }: Partial<ParsedUrl> = given === undefined ? {} : parseUrl(String(given), at);
  const socket = {
    ...(property(defaults, 'socket') as object | undefined),
    ...(property(root, 'socket') as object | undefined),
    ...(host === undefined ? {} : { host }),
    ...(port === undefined ? {} : { port }),
    ...(tls === undefined ? {} : { tls }),
  };
  return { ...(defaults as object | undefined), ...(root as object | undefined), ...login, socket };
}

/**
 * From version 5 on the client itself makes a credentialsProvider of a user and a password, and keeps both. One of the caller's stands
 * alone, or is of another type: what it would say is known when it is asked, and may change.
 */
function credentialsOf(options: unknown, at: string): Login {
  const login = loginOf(options, at);
  const provider = property(options, 'credentialsProvider');
  const made = property(provider, 'type') === 'async-credentials-provider' && (login.username !== '' || login.password !== '');
  if (provider !== undefined && provider !== null && !made) {
    throw refused(`${at}.credentialsProvider cannot be taken over: the registry needs a user and a password that stay`);
  }
  return login;
}

/** Of what decides where a connection goes, these have no counterpart. */
function refuseSocket(socket: unknown, at: string): void {
  for (const key of ['lookup', 'localAddress', 'localPort']) {
    if (property(socket, key) !== undefined) throw refused(`${at}.${key} cannot be taken over`);
  }
}

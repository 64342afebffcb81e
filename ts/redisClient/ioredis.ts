/** Settings of ioredis, versions 5 and 6: of one server, by Sentinels, and of a cluster. */
import { property } from '../errors';
import { agreed, databaseOf, loginOf, parseUrl, refused, type Server, type Settings, serverOf, socketUrl } from './settings';
import { tlsOf } from './tls';

const AT = 'options';
const SENTINEL_PORT_DEFAULT = 26_379;

/** From `client.options` of a Redis. */
export function ioredisSettings(options: unknown): Settings {
  refuse(options, AT, ['Connector', 'natMap']);
  const login = { ...loginOf(options, AT), db: databaseOf(options, 'db', AT) };
  const sentinels = property(options, 'sentinels');
  if (sentinels !== undefined && sentinels !== null) return { ...sentinelSettings(options, sentinels), ...login };
  const tls = property(options, 'tls');
  const path = property(options, 'path');
  if (typeof path === 'string' && path !== '') {
    if (tls) throw refused('it speaks TLS over a Unix socket, which the registry does not');
    return { url: socketUrl(path), ...login };
  }
  return { ...serverOf(options, AT), ...login, ...(tls ? { tls: tlsOf(tls, `${AT}.tls`) } : {}) };
}

/** From a Cluster. */
export function ioredisClusterSettings(client: unknown): Settings {
  const options = property(client, 'options');
  refuse(options, AT, ['natMap', 'useSRVRecords']);
  const shared = property(options, 'redisOptions') ?? {};
  const startup = property(client, 'startupNodes');
  if (!Array.isArray(startup) || startup.length === 0) throw refused('the cluster names no nodes');
  const nodes = startup.map((node: unknown, index) => ({ ...shared, ...nodeOptions(node, `startupNodes[${index}]`, shared) }));
  const login = agreed(
    nodes.map((node, index) => loginOf(node, `startupNodes[${index}]`)),
    'users or passwords',
  );
  const tls = agreed(
    nodes.map((node, index) => (property(node, 'tls') ? tlsOf(property(node, 'tls'), `startupNodes[${index}].tls`) : false)),
    'TLS settings',
  );
  return {
    cluster: { nodes: nodes.map((node, index) => serverOf(node, `startupNodes[${index}]`, '127.0.0.1')) },
    ...login,
    db: 0,
    ...(tls === false ? {} : { tls }),
  };
}

/** A node may be given as an object, as a URL, or as a port. */
function nodeOptions(node: unknown, at: string, shared: object): Record<string, unknown> {
  if (typeof node === 'number' || (typeof node === 'string' && /^\d+$/.test(node))) return { port: Number(node) };
  if (typeof node === 'string') {
    const { tls, ...rest } = parseUrl(node, at);
    if (tls && !property(shared, 'tls'))
      throw refused(`${at} is rediss://, which ioredis does not heed there: it asks for redisOptions.tls`);
    return rest;
  }
  if (typeof property(node, 'path') === 'string') throw refused(`${at} is a Unix socket`);
  return Object.fromEntries(Object.entries(node ?? {}).filter(([, value]) => value !== undefined));
}

function sentinelSettings(options: unknown, sentinels: unknown): Settings {
  const masterName = property(options, 'name');
  if (typeof masterName !== 'string') throw refused(`${AT}.name, that of the master, is missing`);
  if ((property(options, 'role') ?? 'master') !== 'master') throw refused(`${AT}.role asks for a replica, and the registry writes`);
  if (!Array.isArray(sentinels)) throw refused(`${AT}.sentinels is no array`);
  const nodes: Server[] = sentinels.map((node, index) => serverOf(node, `${AT}.sentinels[${index}]`, 'localhost', SENTINEL_PORT_DEFAULT));
  const own = loginOf(
    { username: property(options, 'sentinelUsername'), password: property(options, 'sentinelPassword') },
    `${AT}.sentinel`,
  );
  // ioredis encrypts to the master only if told so, and to the Sentinels by settings of their own.
  const ofMaster = property(options, 'enableTLSForSentinelMode') === true ? property(options, 'tls') : undefined;
  const ofSentinels = property(options, 'sentinelTLS');
  const tls = ofMaster ? tlsOf(ofMaster, `${AT}.tls`) : undefined;
  const other = ofSentinels ? tlsOf(ofSentinels, `${AT}.sentinelTLS`) : undefined;
  if (JSON.stringify(tls) !== JSON.stringify(other)) {
    throw refused(`${AT}.tls (with enableTLSForSentinelMode) and ${AT}.sentinelTLS differ, and the registry has one for both`);
  }
  return { sentinel: { masterName, nodes, ...own }, ...(tls === undefined ? {} : { tls }) };
}

function refuse(options: unknown, at: string, keys: readonly string[]): void {
  for (const key of keys) if (property(options, key)) throw refused(`${at}.${key} cannot be taken over`);
}

/**
 * Connection settings of an ioredis or node-redis client that a program already has: the configuration keys that say the same. The
 * client is only looked at: it is not connected, used or kept, and may be in any state.
 *
 * Taken are address, user, password, database and TLS. Not taken is what concerns the client's own commands: its `keyPrefix` (services
 * are kept under that of the registry's configuration, so that all processes find them), its timeouts, retries and preference for
 * replicas, and `family` and `dnsLookup`, as names are looked up by the engine.
 */
import { OSSAError, property } from '../errors';
import { isRecord } from '../json';
import { ioredisClusterSettings, ioredisSettings } from './ioredis';
import { nodeRedisClusterSettings, nodeRedisSettings } from './nodeRedis';
import { refused, type Settings } from './settings';

/** An address in the configuration is another server: the client's user, password, database and TLS do not belong to it. */
const ADDRESS_KEYS = ['url', 'host', 'port', 'cluster', 'sentinel'];

/**
 * The configuration with the settings of `client` for `redis`, where it says nothing itself about the address.
 * @throws OSSAError ERR_INVALID_ARGUMENT for what is not such a client, and for settings that the configuration cannot express
 */
export function settingsOf(client: unknown, config: unknown): unknown {
  const found = read(client);
  const redis = property(config, 'redis');
  // What is wrong there is for the engine to refuse, with its path.
  if ((config !== undefined && !isRecord(config)) || (redis !== undefined && !isRecord(redis))) return config;
  const given = Object.keys(redis ?? {}).filter((key) => property(redis, key) !== undefined);
  if (given.some((key) => ADDRESS_KEYS.includes(key))) return config;
  const own = Object.fromEntries(given.map((key) => [key, property(redis, key)]));
  const rest = Object.keys(config ?? {}).map((key) => [key, property(config, key)] as const);
  return { ...Object.fromEntries(rest), redis: { ...found, ...own } };
}

function read(client: unknown): Settings {
  try {
    return fromClient(client);
  } catch (error) {
    // Of what a getter threw nothing is told: it may hold what was to be read.
    throw error instanceof OSSAError ? error : refused('its settings cannot be read');
  }
}

function fromClient(client: unknown): Settings {
  const can = (name: string) => typeof property(client, name) === 'function';
  const options = property(client, 'options');
  if (!can('sendCommand')) throw refused('that is neither an ioredis nor a node-redis client');
  if (typeof property(client, 'status') === 'string' && isRecord(options)) {
    return property(client, 'isCluster') === true ? ioredisClusterSettings(client) : ioredisSettings(options);
  }
  if (typeof property(client, 'isOpen') !== 'boolean') throw refused('that is neither an ioredis nor a node-redis client');
  // From version 5 on, a cluster lets its settings be seen.
  const ofCluster = property(client, '_options');
  if (Array.isArray(property(ofCluster, 'rootNodes'))) return nodeRedisClusterSettings(ofCluster);
  if (can('nodeClient')) throw refused('a cluster of node-redis 4 does not let its settings be seen');
  if (can('getMasterNode') || can('getSentinelNode')) throw refused('a Sentinel client of node-redis does not let its settings be seen');
  if (typeof property(client, 'totalClients') === 'number') throw refused('a pool of node-redis does not let its settings be seen');
  // Of version 4 a client that was made without options has none.
  return nodeRedisSettings(options);
}

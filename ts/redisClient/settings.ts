/** What the settings of all clients are made of. */
import { invalidArgument, property } from '../errors';
import type { EventBusConfig } from '../types';

/** Keys of `redis` in the configuration of a registry. */
export type Settings = Partial<EventBusConfig['redis']>;

/** As whom to connect. An empty text says "none", so that REDIS_PASSWORD of the environment does not step in. */
export interface Login {
  username: string;
  password: string;
}

const INSTEAD =
  'pass an ioredis client (new Redis(…), new Cluster(…)) or a node-redis client (createClient(…)), or leave it out and give the address ' +
  'in the first argument: { redis: { url } }, { redis: { host, port, username, password, db, tls } }, { redis: { cluster: { nodes } } } or ' +
  '{ redis: { sentinel: { masterName, nodes } } }';

/** ERR_INVALID_ARGUMENT for the client, saying what to pass. `why` names keys, never their values: they may hold a password. */
export function refused(why: string): Error {
  return invalidArgument('redisClient', `${why}; ${INSTEAD}`);
}

/** `username` and `password` among options. */
export function loginOf(options: unknown, at: string): Login {
  const read = (key: 'username' | 'password') => {
    const value = property(options, key) ?? '';
    if (typeof value === 'function') throw refused(`${at}.${key} is a function, which cannot be taken over`);
    if (typeof value !== 'string') throw refused(`${at}.${key} is not a text`);
    return value;
  };
  return { username: read('username'), password: read('password') };
}

/** Number of a database among options; 0 unless given. */
export function databaseOf(options: unknown, key: string, at: string): number {
  const db = property(options, key) ?? 0;
  if (typeof db !== 'number' || !Number.isInteger(db)) throw refused(`${at}.${key} is not the number of a database`);
  return db;
}

/** A server by name or IP address. */
export interface Server {
  host: string;
  port: number;
}

/** `host` and `port` among options, or what clients assume without them. */
export function serverOf(options: unknown, at: string, hostDefault = 'localhost', portDefault = 6379): Server {
  const host = property(options, 'host') ?? hostDefault;
  if (typeof host !== 'string') throw refused(`${at}.host is not a text`);
  const port = Number(property(options, 'port') ?? portDefault);
  if (!Number.isInteger(port)) throw refused(`${at}.port is not a number`);
  // node-redis 4 leaves the brackets of a URL around an IPv6 address.
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port };
}

/** The address of a Unix socket. */
export function socketUrl(path: string): string {
  return `redis+unix://${path.replace(/[%?@]/g, encodeURIComponent)}`;
}

/** What a redis:// or rediss:// URL says, apart from the database. */
export interface ParsedUrl extends Partial<Login> {
  host: string;
  port?: number;
  tls: boolean;
}

/** Reads a URL, whose scheme may be missing. */
export function parseUrl(text: string, at: string): ParsedUrl {
  try {
    const url = new URL(text.includes('://') ? text : `redis://${text.replace(/^\/\//, '')}`);
    const tls = url.protocol === 'rediss:';
    if ((tls || url.protocol === 'redis:') && url.hostname !== '') {
      return {
        host: url.hostname,
        tls,
        ...(url.port === '' ? {} : { port: Number(url.port) }),
        ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
        ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
      };
    }
  } catch {
    // What is wrong with it may be a piece of a password.
  }
  throw refused(`${at} is no redis:// or rediss:// URL with a host`);
}

/** The settings that all nodes of a cluster agree on. */
export function agreed<T>(settings: T[], what: string): T {
  const [first, ...others] = settings as [T, ...T[]];
  if (others.some((other) => JSON.stringify(other) !== JSON.stringify(first))) {
    throw refused(`the nodes of the cluster have different ${what}, and the registry has one for all`);
  }
  return first;
}

/** Connection settings of an ioredis or node-redis client that a program already has. */
import { invalidArgument, property } from './errors';

/**
 * The configuration with the settings of `client` for `redis`, where it says nothing itself about the address.
 * @throws OSSAError ERR_INVALID_ARGUMENT for what is not such a client
 */
export function settingsOf(client: unknown, config: unknown): unknown {
  const found = fromClient(client);
  if (config === undefined) return { redis: found };
  const redis = property(config, 'redis');
  const named = ['url', 'host', 'port'].some((key) => property(redis, key) !== undefined);
  // An address in the configuration is another server: the client's password and database do not belong to it.
  return { ...(config as object), redis: named ? redis : { ...found, ...(redis as object | undefined) } };
}

function fromClient(client: unknown): Record<string, unknown> {
  const options = property(client, 'options');
  if (typeof client !== 'object' || typeof options !== 'object' || options === null) throw refused();
  const socket = property(options, 'socket');
  const url = property(options, 'url');
  if (typeof url === 'string' && socket === undefined) return { url };
  const nodeRedis = typeof socket === 'object' && socket !== null;
  const address: unknown = nodeRedis ? socket : options;
  const login = {
    username: text(property(options, 'username')),
    password: text(property(options, 'password')),
    db: Number(property(options, nodeRedis ? 'database' : 'db') ?? 0),
  };
  const path = text(property(address, 'path'));
  if (path !== undefined) return socketOf(path, login);
  const host = property(address, 'host');
  const port = Number(property(address, 'port') ?? (nodeRedis ? 6379 : NaN));
  if (!nodeRedis && typeof host !== 'string') throw refused();
  if (!Number.isInteger(port)) throw refused();
  return assemble({
    host: typeof host === 'string' ? host : 'localhost',
    port,
    ...login,
    tls: Boolean(property(address, 'tls')),
  });
}

interface Login {
  username: string | undefined;
  password: string | undefined;
  db: number;
}

interface Settings extends Login {
  host: string;
  port: number;
  tls: boolean;
}

function socketOf(path: string, { username, password, db }: Login): Record<string, unknown> {
  return { url: `redis+unix://${credentials(username, password)}${encodeURI(path).replace(/[?#@]/g, encodeURIComponent)}?db=${db}` };
}

/** What stands before the host of a URL. */
function credentials(username: string | undefined, password: string | undefined): string {
  if (username === undefined && password === undefined) return '';
  const user = username === undefined ? '' : encodeURIComponent(username);
  return `${user}${password === undefined ? '' : `:${encodeURIComponent(password)}`}@`;
}

/** `host` and its like; a user name and TLS have no keys of their own there, so those are said by a url. */
function assemble({ host, port, username, password, db, tls }: Settings): Record<string, unknown> {
  if (!tls && username === undefined) return { host, port, db, ...(password === undefined ? {} : { password }) };
  return {
    url: `${tls ? 'rediss' : 'redis'}://${credentials(username, password)}${host.includes(':') ? `[${host}]` : host}:${port}/${db}`,
  };
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function refused(why = 'that is neither'): Error {
  return invalidArgument(
    'redisClient',
    `${why}; pass an ioredis client (new Redis(…)) or a node-redis client (createClient(…)) of a single server, ` +
      'or leave it out and give the address in the first argument: { redis: { host, port } }',
  );
}

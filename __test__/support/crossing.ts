/** Buses that send between projects, what a raw Redis client finds of them, and whether anything secret got out. */
import { inspect } from 'node:util';
import { type CrossProjectHandlerOptions, createOSSAEventBus, type OSSAEventBus, type ProjectConfig } from '@bluefly/ossa';
import type Redis from 'ioredis';
import type { Program } from './children';
import { connectTo } from './server';
import { until } from './wait';
import { freshPrefix } from './world';

/** In every apiKey and secret of these tests, and in nothing else. */
export const CLASSIFIED = 'classified';

/** The credentials of a project of these tests. */
export const credentials = (projectId: string, name = '') => ({
  apiKey: `${CLASSIFIED}-api-key-of-${projectId}${name}`,
  secret: `${CLASSIFIED}-secret-of-${projectId}${name}`,
});

/** A project that may send everything to everybody, with credentials unless `over` says otherwise. */
export const project = (projectId: string, over: Partial<ProjectConfig> = {}): ProjectConfig => ({
  projectId,
  name: `the project ${projectId}`,
  namespace: `namespace.${projectId}`,
  allowedEventTypes: ['**'],
  allowedTargets: ['*'],
  credentials: credentials(projectId),
  ...over,
});

/** A project without credentials. */
export function openProject(projectId: string): ProjectConfig {
  const { credentials: _, ...open } = project(projectId);
  return open;
}

/** An entry of a stream as Redis has it. */
export type RawEntry = [id: string, fields: string[]];

interface Over {
  prefix?: string;
  trustedKeys?: Record<string, string>;
  maxPayloadBytes?: number;
}

/** Several buses over one Redis, as processes would have them; everything that they say is kept. */
export class Crossing {
  readonly prefix = freshPrefix();
  /** Beside the package. */
  readonly redis: Redis;
  /** What came out of the buses: log lines, lifecycle events, errors. */
  readonly told: string[] = [];
  readonly #open: OSSAEventBus[] = [];

  /** Over a server that is the test's own: all that is in it came from there. */
  constructor(readonly url: string) {
    this.redis = connectTo(url);
  }

  /** A bus of its own. */
  async bus({ prefix = this.prefix, trustedKeys, maxPayloadBytes }: Over = {}): Promise<OSSAEventBus> {
    const write = (message: string) => void this.told.push(message);
    const bus = await createOSSAEventBus(null, {
      eventBus: {
        redis: { url: this.url, keyPrefix: prefix },
        logger: { debug: write, info: write, warn: write, error: write },
        ...(maxPayloadBytes === undefined ? {} : { limits: { maxPayloadBytes } }),
      },
      crossProject: trustedKeys === undefined ? {} : { trustedKeys },
    });
    const names = ['published', 'consumed', 'failed', 'retried', 'dead-lettered', 'expired'].map((name) => `event:${name}`);
    for (const name of [...names, 'error', 'subscription:created', 'connection:lost', 'metrics:updated'])
      bus.on(name, (about) => void this.told.push(inspect(about, { depth: 10 })));
    this.#open.push(bus);
    return bus;
  }

  /** The error that `action` fails with; undefined: it does not. */
  async failure(action: () => unknown): Promise<any> {
    try {
      await action();
    } catch (error) {
      this.told.push(inspect(error, { depth: 10 }), JSON.stringify(error), String((error as Error).stack));
      return error;
    }
    return undefined;
  }

  /** The key of a stream; '*' in `name` may stand for anything. */
  async stream(name: string, lane = ':0', prefix = this.prefix): Promise<string> {
    return until(async () => (await this.redis.keys(`${prefix}:{*}:stream:${name}${lane}`))[0]);
  }

  /** The entries of a stream. */
  async entries(key: string): Promise<RawEntry[]> {
    return (await this.redis.xrange(key, '-', '+')) as RawEntry[];
  }

  /** The one message of a type to a project, as it lies there: its stream, entry, metadata and data. */
  async found(target: string, eventType: string, prefix = this.prefix) {
    const key = await this.stream(`@${target}/${eventType}`, ':0*', prefix);
    const [id, fields] = await until(async () => (await this.entries(key))[0]);
    const at = (name: string) => fields[fields.indexOf(name) + 1];
    return { key, id, fields, meta: at('meta'), data: at('data') };
  }

  /** Places and values of everything in this Redis that contain something classified. */
  async leaksInRedis(): Promise<string[]> {
    const leaks: string[] = [];
    let cursor = '0';
    do {
      const [next, keys] = await this.redis.scan(cursor, 'COUNT', 1000);
      cursor = next;
      const texts = await Promise.all(keys.map(async (key) => [key, key + (await this.#valueOf(key))]));
      for (const [key, text] of texts) if (text.includes(CLASSIFIED)) leaks.push(key);
    } while (cursor !== '0');
    return leaks;
  }

  async #valueOf(key: string): Promise<string> {
    const { redis } = this;
    switch (await redis.type(key)) {
      case 'string':
        return (await redis.get(key)) ?? '';
      case 'hash':
        return JSON.stringify(await redis.hgetall(key));
      case 'set':
        return JSON.stringify(await redis.smembers(key));
      case 'zset':
        return JSON.stringify(await redis.zrange(key, '0', '-1'));
      case 'list':
        return JSON.stringify(await redis.lrange(key, 0, -1));
      case 'stream':
        return JSON.stringify([await redis.xrange(key, '-', '+'), await redis.xinfo('STREAM', key, 'FULL')]);
      case 'none':
        return '';
      default:
        throw new Error(`${key} is of a type that is not looked into`);
    }
  }

  /** Fails when anything classified is in Redis or came out of the buses or of `programs`. */
  async expectNoSecrets(programs: Program[] = []): Promise<void> {
    expect(await this.leaksInRedis()).toEqual([]);
    expect(this.told.filter((text) => text.includes(CLASSIFIED))).toEqual([]);
    const outputs = programs.map((program) => program.stderr() + JSON.stringify(program.lines));
    expect(outputs.filter((text) => text.includes(CLASSIFIED))).toEqual([]);
  }

  /** Shuts down all. */
  async end(): Promise<void> {
    await Promise.all(this.#open.splice(0).map((bus) => bus.shutdown({ drainTimeoutMs: 0 })));
    this.redis.disconnect();
  }
}

/** What a handler of all messages to a project was given. */
export interface Received {
  type: string;
  source: string;
  target: string;
  data: any;
}

/** Handles all messages to a project, and keeps what comes. */
export async function receive(bus: OSSAEventBus, projectId: string, options: CrossProjectHandlerOptions = {}): Promise<Received[]> {
  const received: Received[] = [];
  const keep = ({ source, target, payload: { metadata, data } }: any) => {
    received.push({ type: metadata.type, source: source.projectId, target: target.projectId, data });
  };
  await bus.setupCrossProjectHandler(projectId, '**', keep, options);
  return received;
}

/** The dead letters of all types, with the type as its sender knows it. */
export async function deadLetters(bus: OSSAEventBus): Promise<Array<{ type: string; reason: string; error: string }>> {
  const all: Array<{ type: string; reason: string; error: string }> = [];
  let cursor: string | undefined;
  do {
    const page = await bus.deadLetters.list({ limit: 1000, ...(cursor === undefined ? {} : { cursor }) });
    for (const { eventType, reason, error } of page.items) all.push({ type: eventType.slice(eventType.indexOf('/') + 1), reason, error });
    cursor = page.cursor;
  } while (cursor !== undefined);
  return all;
}

/** All audit records. */
export async function auditRecords(bus: OSSAEventBus): Promise<any[]> {
  const records: any[] = [];
  for await (const line of bus.exportAuditLog()) records.push(JSON.parse(line));
  return records;
}

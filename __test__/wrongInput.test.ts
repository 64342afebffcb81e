/** Wrong input: each is refused by name, where it is, and nothing breaks. */

import { EventEmitter } from 'node:events';
import { inspect } from 'node:util';
import { createOSSAEventBus, type DeepPartial, type EventBusConfig, OSSAEventBus, RedisEventBus } from '@bluefly/ossa';
import { commands, connectTo, freePort, pretended, TestServer } from './support/server';
import { until, within } from './support/wait';
import { freshPrefix, quick, redisUrl, refusal, stores, useWorld } from './support/world';

const wrongFlags = ['true', 1, null, {}];
const wrongNumbers = ['1', null, Number.NaN, Number.POSITIVE_INFINITY, {}, [], true, 1n, () => 1, Symbol('s')];
const counts = [0, -1, 1.5, 1e15, ...wrongNumbers];
const nonNegative = [-1, ...wrongNumbers];
const texts = [5, true, null, {}, [], () => 1];

/** `value` at `path` (`a.b.c`) of an object. */
const at = (path: string, value: unknown): Record<string, unknown> => {
  const [key, ...rest] = path.split('.');
  return { [key]: rest.length === 0 ? value : at(rest.join('.'), value) };
};

const named = (values: Record<string, unknown[]>): Array<[string, string, unknown]> =>
  Object.entries(values).flatMap(([key, wrong]) => wrong.map((value): [string, string, unknown] => [key, shown(value), value]));

function shown(value: unknown): string {
  const text = inspect(value, { breakLength: Number.POSITIVE_INFINITY });
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

describe('configuration', () => {
  const wrong: Record<string, unknown[]> = {
    redis: ['redis://localhost', 5, null, []],
    'redis.url': [5, '', 'localhost', 'http://localhost', 'redis://localhost:99999', null],
    'redis.host': [...texts, '', 'a b'],
    'redis.port': [0, 65_536, -1, 1.5, ...wrongNumbers],
    'redis.username': texts,
    'redis.password': [...texts, '\ud800'],
    'redis.db': [-1, 1.5, ...wrongNumbers],
    'redis.keyPrefix': [...texts, '', 'a b', 'a{b}', 'ü', '\ud800', 'x'.repeat(257)],
    'redis.tls': ['yes', 5, null],
    'redis.connectTimeoutMs': counts,
    'redis.commandTimeoutMs': counts,
    performance: ['fast', 5, null, []],
    'performance.batchSize': counts,
    'performance.batchTimeout': counts,
    'performance.connectionPoolSize': counts,
    'performance.pipelineSize': counts,
    'monitoring.enabled': wrongFlags,
    'monitoring.metricsInterval': counts,
    'monitoring.healthCheckInterval': counts,
    'monitoring.tracing': ['yes', 1, null],
    'monitoring.tracing.enabled': wrongFlags,
    'monitoring.tracing.samplingRate': [-0.1, 1.1, ...wrongNumbers],
    'defaults.ttl': nonNegative,
    'defaults.priority': ['urgent', ...texts],
    'defaults.retry': ['never', 5, null],
    'defaults.retry.maxAttempts': [-1, 1.5, ...wrongNumbers],
    'defaults.retry.initialDelay': nonNegative,
    'defaults.retry.backoffMultiplier': [0, 0.5, -1, ...wrongNumbers],
    'defaults.retry.maxDelay': nonNegative,
    'defaults.retry.jitter': ['some', ...texts],
    'deadLetterQueue.enabled': wrongFlags,
    'deadLetterQueue.retention': [0, -1, ...wrongNumbers],
    'deadLetterQueue.keyPattern': ['', 'a b', ...texts],
    'limits.maxPayloadBytes': counts,
    'limits.maxPendingPublishes': counts,
    'limits.keepAcknowledged': [-1, 1.5, ...wrongNumbers],
    'limits.maxStreamLength': counts,
    'limits.stallTimeoutMs': [0, 999, ...counts],
    'durability.waitReplicas': [-1, 1.5, ...wrongNumbers],
    'durability.fsync': wrongFlags,
    'durability.waitTimeoutMs': counts,
    logger: [{}, 5, null, { debug() {}, info() {}, warn() {} }],
  };

  test.each(named(wrong))('%s: %s is refused with its path', async (path, _, value) => {
    const error = await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(at(path, value)));
    expect(error.details).toMatchObject({ path });
    expect(error.message.startsWith(`${path}: `)).toBe(true);
    expect(error.retryable).toBe(false);
  });

  test.each(named({ 'redis.port': [0], 'limits.maxPayloadBytes': ['1'], logger: [5], 'defaults.retry.jitter': ['some'] }))(
    'in an OSSAEventBus, %s: %s is refused with eventBus before it',
    async (path, _, value) => {
      const error = await refusal('ERR_INVALID_CONFIG', () => new OSSAEventBus(null, at(`eventBus.${path}`, value)));
      expect(error.details).toMatchObject({ path: `eventBus.${path}` });
    },
  );

  test.each([null, 5, 'redis://localhost', [], () => 1, true])('%p as the whole configuration is refused', async (config) => {
    expect((await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(config as any))).details).toMatchObject({ path: 'config' });
    expect((await refusal('ERR_INVALID_CONFIG', () => new OSSAEventBus(null, config as any))).details).toMatchObject({ path: 'config' });
  });

  test.each([
    ['redis.prot', 'redis.port'],
    ['performance.batchsize', 'performance.batchSize'],
    ['defaults.retry.maxAttempt', 'defaults.retry.maxAttempts'],
    ['eventBus', 'RedisEventBus takes the content'],
    ['host', 'redis.host'],
    ['limits.whatever', 'maxPayloadBytes'],
    ['redis.__proto__x', 'known'],
  ])('the unknown key %s is refused, and what is right is said', async (path, hint) => {
    const error = await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(at(path, {})));
    expect(error.details).toMatchObject({ path });
    expect(error.message).toContain(hint);
  });

  test('an environment variable that is wrong is named', async () => {
    for (const [name, value, path] of [
      ['REDIS_PORT', 'many', 'redis.port'],
      ['REDIS_DB', '-1', 'redis.db'],
      ['EVENTBUS_BATCH_SIZE', '0', 'performance.batchSize'],
      ['EVENTBUS_DEFAULT_TTL', 'long', 'defaults.ttl'],
      ['MONITORING_ENABLED', 'perhaps', 'monitoring.enabled'],
    ]) {
      process.env[name] = value;
      try {
        const error = await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus());
        expect(error.message).toContain(name);
        expect(error.details).toMatchObject({ path });
      } finally {
        delete process.env[name];
      }
    }
  });

  test('a password is not in the error about it, nor in the one about its URL', async () => {
    for (const config of [
      { redis: { url: 'redis://user:s3cr3t@host:99999' } },
      { redis: { url: 'http://user:s3cr3t@host' } },
      { redis: { password: ['s3cr3t'] } },
      { redis: { url: 'redis://:s3cr3t@host', host: 5 } },
    ]) {
      const error = await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(config as any));
      expect(inspect(error, { depth: null, showHidden: true })).not.toContain('s3cr3t');
    }
  });

  test('a password cannot be seen by looking at the bus', () => {
    const bus = new RedisEventBus({ redis: { host: 'localhost', password: 's3cr3t' } });
    expect(inspect(bus, { depth: null, showHidden: true })).not.toContain('s3cr3t');
    expect(JSON.stringify(bus)).not.toContain('s3cr3t');
  });

  const notPem = '-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----';
  test.each<[string, DeepPartial<EventBusConfig>]>([
    ['durability', { redis: { url: 'memory://' }, durability: { waitReplicas: 1 } }],
    ['redis.tls', { redis: { url: 'redis+unix:///run/redis.sock', tls: true } }],
    ['redis.tls.ca', { redis: { tls: { ca: notPem } } }],
  ])('%s that can have no effect is refused', async (path, config) => {
    const error = await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(config).connect());
    expect(error.details).toMatchObject({ path });
  });
});

describe.each(stores)('on %s', (kind) => {
  const world = useWorld(kind);

  const wrongRetry: unknown[] = [
    5,
    'never',
    null,
    [],
    { maxAttempts: -1 },
    { maxAttempts: 1.5 },
    { initialDelay: '1' },
    { initialDelay: -1 },
    { backoffMultiplier: -1 },
    { maxDelay: Number.NaN },
    { jitter: 'some' },
    { attempts: 3 },
  ];

  describe('publish', () => {
    const options: Record<string, unknown[]> = {
      ttl: [...nonNegative, 1e300],
      retry: wrongRetry,
      delayMs: [...nonNegative, 1e300],
      deliverAt: ['tomorrow', 5, new Date(Number.NaN), null, {}],
      idempotencyKey: [...texts, '', 'x'.repeat(1025)],
      idempotencyWindowMs: [5],
      correlationId: [...texts, '', 'x'.repeat(1025)],
      causationId: [...texts, ''],
      source: [...texts, '', 'a\ud800'],
      target: [...texts, ''],
      version: [...texts, ''],
      tags: ['x', [5], [null], [undefined], Array(101).fill('x'), ['x'.repeat(1025)], ['\udfff'], null, new Set(['x']), {}],
      headers: [
        [],
        'x',
        null,
        { a: 5 },
        { a: null },
        { '\ud800': 'x' },
        new Map([['a', 'b']]),
        { a: '\ud800' },
        { a: 'x'.repeat(8193) },
        Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`h${n}`, ''])),
      ],
      priority: ['urgent', ...texts],
      signal: [{}, 'x', null, new EventEmitter()],
      ttll: [5],
      __proto__x: [5],
    };

    test.each(named(options))('option %s: %s is refused with its path', async (key, _, value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { [key]: value }));
      expect(error.details?.['argument']).toMatch(new RegExp(`^options\\.${key}`));
      expect(error.message).toContain(`options.${key}`);
      expect(await bus.getStream('t')).toBeNull();
    });

    test('delayMs and deliverAt together are refused', async () => {
      const bus = await world.bus();
      await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { delayMs: 5, deliverAt: new Date() }));
    });

    test('idempotencyWindowMs out of range is refused', async () => {
      const bus = await world.bus();
      for (const idempotencyWindowMs of [0, -1, Number.NaN, '5' as any]) {
        const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, { idempotencyKey: 'k', idempotencyWindowMs }));
        expect(error.details).toMatchObject({ argument: 'options.idempotencyWindowMs' });
      }
    });

    test('an own key __proto__ in the options is an unknown key', async () => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, JSON.parse('{"__proto__": {"ttl": 1}}')));
      expect(error.details).toMatchObject({ argument: 'options.__proto__' });
    });

    test.each([5, 'x', [], true, () => 1])('%p as options is refused', async (value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish('t', 1, value as any));
      expect(error.details).toMatchObject({ argument: 'options' });
    });

    test.each([
      undefined,
      null,
      5,
      {},
      [],
      't'.repeat(257),
      '',
      ' ',
      'a b',
      'ü',
      'a\tb',
      'a\nb',
      'a\0b',
      '*',
      '**',
      'a.*',
      'a.**',
      'a*',
      '\ud800',
    ])('the event type %j is refused', async (eventType) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publish(eventType as any, 1));
      expect(error.details).toMatchObject({ argument: 'eventType' });
      const wildcard = typeof eventType === 'string' && eventType.includes('*');
      expect(/wildcard/.test(error.message)).toBe(wildcard);
    });

    test('names that are properties of every object are names like others', async () => {
      const bus = await world.bus();
      const got: string[] = [];
      await bus.subscribe('**', (event) => void got.push(event.metadata.type));
      const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 't'.repeat(256), 'a:b/c-d_e.F9', '.', '..', '-'];
      for (const name of names) await bus.publish(name, 1);
      await until(() => got.length === names.length);
      expect([...got].sort()).toEqual([...names].sort());
    });

    test.each<[string, unknown, string]>([
      ['a BigInt', { a: [{ b: 1n }] }, 'data.a[0].b'],
      ['a BigInt alone', 1n, 'data'],
      ['a circle', circle(), 'data.inner.list[1]'],
      ['a function alone', () => 1, 'data'],
      ['a symbol alone', Symbol('s'), 'data'],
      ['a toJSON that throws', { a: { toJSON: () => { throw new Error('inner'); } } }, 'data.a'], // biome-ignore format: one line a case
      ['a toJSON that answers undefined', { toJSON: () => undefined }, 'data'],
      ['a getter that throws', { get a() { throw new Error('inner'); } }, 'data.a'], // biome-ignore format: one line a case
      ['a key that is no identifier', { 'a b': 1n }, 'data["a b"]'],
    ])('data with %s: ERR_NOT_SERIALIZABLE with the path', async (_, data, path) => {
      const bus = await world.bus();
      const error = await refusal('ERR_NOT_SERIALIZABLE', () => bus.publish('t', data));
      expect(error.details).toMatchObject({ path });
      expect(error.message.startsWith(path)).toBe(true);
    });

    test('data nested ten thousand levels deep goes through, or is refused by name', async () => {
      const bus = await world.bus();
      const got: unknown[] = [];
      await bus.subscribe('t', (event) => void got.push(event.data));
      for (const depth of [1000, 10_000, 100_000]) {
        const text = '['.repeat(depth) + ']'.repeat(depth);
        const data = JSON.parse(text);
        try {
          await bus.publish('t', data);
        } catch (error) {
          expect(depth).toBeGreaterThan(1000);
          expect(error).toMatchObject({ code: 'ERR_NOT_SERIALIZABLE' });
          continue;
        }
        await until(() => got.length > 0);
        expect(JSON.stringify(got.pop())).toBe(text);
      }
    });

    test('data beyond maxPayloadBytes, however large: ERR_PAYLOAD_TOO_LARGE, and the bus goes on', async () => {
      const bus = await world.bus();
      const error = await refusal('ERR_PAYLOAD_TOO_LARGE', () => bus.publish('t', 'x'.repeat(1 << 20)));
      expect(error.message).toMatch(/maxPayloadBytes/);
      expect(error.details).toMatchObject({ limit: 1 << 20 });
      await refusal('ERR_PAYLOAD_TOO_LARGE', () => bus.publish('t', Array(10).fill('x'.repeat(1 << 26))));
      await bus.publish('t', 'fits');
    });

    test.each([undefined, null, 5, 'x', {}, [null], [5], [['t', 1]]])('publishBatch(%j) is refused', async (events) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.publishBatch(events as any));
      expect(error.message).toMatch(/events/);
    });
  });

  describe('subscribe', () => {
    const options: Record<string, unknown[]> = {
      group: [...texts, '', 'a b', 'ü', '\ud800', '~retry', 'a*', 'x'.repeat(257)],
      startFrom: ['end', 'timestamp', ...texts],
      startTimestamp: ['today', 5, new Date(Number.NaN), new Date()],
      autoAck: wrongFlags,
      maxUnacknowledged: counts,
      consumerTimeout: [0, -1, 1e300, ...wrongNumbers],
      concurrency: counts,
      priority: [0.5, 1e300, ...wrongNumbers],
      errorStrategy: ['panic', ...texts],
      retry: wrongRetry,
      signal: [{}, 'x', null],
      qos: [1],
    };

    test.each(named(options))('option %s: %s is refused with its path', async (key, _, value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, { [key]: value }));
      const path = key === 'startFrom' && value === 'timestamp' ? 'startTimestamp' : key;
      expect(error.details?.['argument']).toMatch(new RegExp(`^(options\\.)?${path}`));
      expect(error.message).toContain(path);
      expect((await bus.getStatus()).subscriptions).toBe(0);
    });

    test.each([5, 'x', [], true, () => 1])('%p as options is refused', async (value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, value as any));
      expect(error.details).toMatchObject({ argument: 'options' });
    });

    test.each([undefined, null, 5, {}, '', 'a b', 'ü', 'a.b*', '***', 'a**', '*.x*', 't'.repeat(257), 'a\nb'])(
      'the event type or pattern %j is refused',
      async (eventType) => {
        const bus = await world.bus();
        const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe(eventType as any, () => 1));
        expect(error.details).toMatchObject({ argument: 'eventType' });
      },
    );

    test.each([5, 'x', {}, [], true])('the handler %p is refused', async (handler) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', handler as any));
      expect(error.details).toMatchObject({ argument: 'handler' });
    });

    test.each<[string, Record<string, unknown>]>([
      ['options.filter', { filter: 'x' }],
      ['options.filter.tags', { filter: { tags: 'x' } }],
      ['options.filter.tags', { filter: { tags: [1] } }],
      ['options.filter.source', { filter: { source: 5 } }],
      ['options.filter.priority', { filter: { priority: ['urgent'] } }],
      ['options.filter.headers', { filter: { headers: { a: 1 } } }],
      ['options.filter.type', { filter: { type: 'x' } }],
      ['options.ordered', { ordered: 'yes' }],
      ['options.ephemeral', { ephemeral: 1 }],
      ['options.batch', { batch: 5 }],
      ['options.batch.maxSize', { batch: {} }],
      ['options.batch.maxSize', { batch: { maxSize: 0 } }],
      ['options.batch.maxWaitMs', { batch: { maxSize: 5, maxWaitMs: -1 } }],
      ['options.batch.size', { batch: { maxSize: 5, size: 5 } }],
      ['options.maxUnacknowledged', { batch: { maxSize: 5 }, maxUnacknowledged: 4 }],
    ])('%s: %j is refused', async (path, value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.subscribe('t', () => 1, value as any));
      expect(error.details).toMatchObject({ argument: path });
      expect((await bus.getStatus()).subscriptions).toBe(0);
    });

    test('what later versions bring may be switched off', async () => {
      const bus = await world.bus();
      await bus.subscribe('t', () => 1, { ordered: false, ephemeral: false });
      await bus.publish('t', 1, { waitForAck: false, transient: false, priority: 'normal' });
    });

    test.each([5, null, {}, ['t']])('unsubscribe(%j) is refused', async (eventType) => {
      const bus = await world.bus();
      await refusal('ERR_INVALID_ARGUMENT', () => bus.unsubscribe(eventType as any));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.unsubscribe('t', 'handler' as any));
    });
  });

  describe('other calls', () => {
    test.each(named({ drainTimeoutMs: [...nonNegative, 1e300], drain: [5] }))(
      'closing with %s: %s is refused, and nothing closes',
      async (key, _, value) => {
        const bus = await world.bus();
        const subscription = await bus.subscribe('t', () => 1);
        const argument = expect.stringContaining(key);
        expect((await refusal('ERR_INVALID_ARGUMENT', () => subscription.close({ [key]: value }))).details).toMatchObject({ argument });
        expect((await refusal('ERR_INVALID_ARGUMENT', () => bus.disconnect({ [key]: value }))).details).toMatchObject({ argument });
        expect((await bus.getStatus()).subscriptions).toBe(1);
      },
    );

    test.each(
      named({
        limit: [0, -1, 1.5, 'x', null],
        from: ['today', 5, null],
        to: [new Date(Number.NaN)],
        cursor: [5, 'nonsense'],
        group: [5],
        eventType: [5],
        typ: ['t'],
      }),
    )('deadLetters.list with %s: %s is refused', async (key, _, value) => {
      const bus = await world.bus();
      const error = await refusal('ERR_INVALID_ARGUMENT', () => bus.deadLetters.list({ [key]: value }));
      expect(error.message).toContain(key);
    });

    test.each<[string, any]>([
      ['nothing', undefined],
      ['null', null],
      ['an empty query', {}],
      ['a query of undefined only', { group: undefined }],
      ['a string', 'all'],
      ['an array', ['id']],
      ['ids that are no array', { ids: 'id' }],
      ['ids that are no strings', { ids: [5] }],
      ['an unknown key', { id: 'x' }],
      ['an unknown key beside a known one', { group: 'g', evenType: 'x' }],
    ])('redrive and purge with %s are refused', async (_, query) => {
      const bus = await world.bus();
      await refusal('ERR_INVALID_ARGUMENT', () => bus.deadLetters.redrive(query));
      await refusal('ERR_INVALID_ARGUMENT', () => bus.deadLetters.purge(query));
    });

    test('redrive and purge of ids that do not exist do nothing', async () => {
      const bus = await world.bus();
      for (const ids of [[], ['nonsense'], ['1-1'], ['t:1-1', '']]) {
        const done = await bus.deadLetters.redrive({ ids }).catch((error) => error.code);
        expect([0, 'ERR_INVALID_ARGUMENT']).toContain(done);
        const purged = await bus.deadLetters.purge({ ids }).catch((error) => error.code);
        expect([0, 'ERR_INVALID_ARGUMENT']).toContain(purged);
      }
    });

    test.each([5, null, undefined, '', 'a b', '*'])('getStream(%j) is refused', async (name) => {
      const bus = await world.bus();
      await refusal('ERR_INVALID_ARGUMENT', () => bus.getStream(name as any));
    });
  });

  describe('a handler', () => {
    test.each<[string, (value: any) => void]>([
      ['delayMs', (nack) => nack({ delayMs: -1 })],
      ['delayMs', (nack) => nack({ delayMs: '5' })],
      ['delayMs', (nack) => nack({ delayMs: 1e300 })],
      ['deadLetter', (nack) => nack({ deadLetter: 1 })],
      ['reason', (nack) => nack({ reason: 5 })],
      ['delay', (nack) => nack({ delay: 5 })],
      ['options', (nack) => nack(5)],
    ])('that calls nack with a wrong %s is told so and may go on', async (key, call) => {
      const bus = await world.bus();
      let error: any;
      let attempts = 0;
      await bus.subscribe('t', async (_, context) => {
        attempts++;
        error = await refusal('ERR_INVALID_ARGUMENT', () => call(context.nack)).catch((unexpected) => unexpected);
      });
      await bus.publish('t', 1);
      await until(() => bus.getMetrics().eventsConsumed === 1, { show: () => String(error) });
      expect(error.message).toContain(key);
      expect(attempts).toBe(1);
    });

    test.each([
      ['the empty text', '', /.+/],
      ['a very long text', 'x'.repeat(50_000), /^x{900,}…$/],
      ['lone surrogates', 'a\ud800b', /^a.b$/],
    ])('that gives %s as the reason of a nack is understood', async (_, reason, expected) => {
      const bus = await world.bus();
      await bus.subscribe('t', (_, context) => context.nack({ deadLetter: true, reason }));
      await bus.publish('t', 1);
      await until(async () => (await bus.deadLetters.count()) === 1);
      expect((await bus.deadLetters.list()).items[0].error).toMatch(expected);
    });

    test('that asks for wrong extensions is told so', async () => {
      const bus = await world.bus();
      const errors: unknown[] = [];
      await bus.subscribe('t', async (_, context) => {
        for (const ms of nonNegative) errors.push(await refusal('ERR_INVALID_ARGUMENT', () => context.extend(ms as any)));
      });
      await bus.publish('t', 1);
      await until(() => bus.getMetrics().eventsConsumed === 1);
      expect(errors.length).toBe(nonNegative.length);
    });

    test('that never ends holds up neither the others nor disconnect for longer than drainTimeoutMs', async () => {
      const bus = await world.bus();
      const got: unknown[] = [];
      await bus.subscribe('t', (event) => {
        got.push(event.data);
        return event.data === 0 ? new Promise(() => undefined) : undefined;
      });
      for (let n = 0; n < 20; n++) await bus.publish('t', n);
      await until(() => got.length === 20);
      const start = Date.now();
      await bus.disconnect({ drainTimeoutMs: 200 });
      expect(Date.now() - start).toBeGreaterThanOrEqual(190);
      // Not the ten seconds of the default.
      expect(Date.now() - start).toBeLessThan(9000);
    });

    test('that disconnects its own bus does not wait for itself, and its event is acknowledged', async () => {
      const [bus, other] = [await world.bus(), await world.bus()];
      let done = false;
      await bus.subscribe(
        't',
        async () => {
          await within(9000, 'disconnect() from inside the handler', bus.disconnect());
          done = true;
        },
        { group: 'g' },
      );
      await other.publish('t', 1);
      await until(() => done);
      await within(20_000, 'disconnect()', bus.disconnect());
      await until(async () => (await other.getStream('t'))?.stats.groups[0].pending === 0);
      expect((await other.getStream('t'))?.stats.groups[0].lag).toBe(0);
    });

    test.each<[string, () => unknown]>([
      ['a value', () => 'a value'],
      ['an object with a then that is no function', () => ({ then: 5 })],
      ['a frozen promise', () => Object.freeze(Promise.resolve())],
      ['another realm’s promise', () => require('node:vm').runInNewContext('Promise.resolve(1)')],
    ])('that answers %s has succeeded', async (_, handler) => {
      const bus = await world.bus();
      await bus.subscribe('t', handler);
      await bus.publish('t', 1);
      await until(() => bus.getMetrics().eventsConsumed === 1);
    });

    test.each<[string, () => unknown]>([
      ['whose then throws when read', () => Object.defineProperty({}, 'then', { get() { throw new Error('then'); } })], // biome-ignore format: one line a case
      ['whose then throws', () => ({ then() { throw new Error('then'); } })], // biome-ignore format: one line a case
      ['whose then rejects', () => ({ then(_: unknown, no: (error: unknown) => void) { no(new Error('then')); } })], // biome-ignore format: one line a case
    ])('that answers an object %s has failed', async (_, handler) => {
      const bus = await world.bus();
      await bus.subscribe('t', handler, { errorStrategy: 'dlq' });
      await bus.publish('t', 1);
      await until(async () => (await bus.deadLetters.count()) === 1);
      expect((await bus.deadLetters.list()).items[0].error).toBe('then');
    });

    test('whose thenable answers twice has answered once', async () => {
      const bus = await world.bus();
      await bus.subscribe(
        't',
        () => ({
          then(yes: () => void, no: (error: unknown) => void) {
            yes();
            no(new Error('second'));
          },
        }),
        { retry: quick(2) },
      );
      await bus.publish('t', 1);
      await bus.publish('t', 2);
      await until(() => bus.getMetrics().eventsConsumed === 2);
      expect(bus.getMetrics().eventsFailed).toBe(0);
    });
  });
});

describe('connecting', () => {
  async function refusedIn(ms: number, code: Parameters<typeof refusal>[0], config: DeepPartial<EventBusConfig>) {
    const logs: string[] = [];
    const log = (message: string) => void logs.push(message);
    const bus = new RedisEventBus({ ...config, logger: { debug: log, info: log, warn: log, error: log } });
    const start = Date.now();
    const error = await refusal(code, () => bus.connect());
    expect(Date.now() - start).toBeLessThan(ms);
    await within(10_000, 'disconnect()', bus.disconnect());
    return { error, logs, bus };
  }

  test('nobody listens: ERR_CONNECTION names host and port, and may be tried again', async () => {
    const port = await freePort();
    const { error } = await refusedIn(9000, 'ERR_CONNECTION', { redis: { host: '127.0.0.1', port, connectTimeoutMs: 2000 } });
    expect(error.message).toContain(`127.0.0.1:${port}`);
    expect(error.retryable).toBe(true);
  });

  test('somebody listens and says nothing: ERR_CONNECTION within connectTimeoutMs', async () => {
    const silent = await pretended(() => undefined);
    const { error } = await refusedIn(9000, 'ERR_CONNECTION', { redis: { host: '127.0.0.1', port: silent.port, connectTimeoutMs: 500 } });
    expect(error.message).toContain(`127.0.0.1:${silent.port}`);
    await silent.close();
  });

  test('somebody listens who speaks something else: an error that names him, within connectTimeoutMs', async () => {
    const web = await pretended(() => 'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
    const { error } = await refusedIn(9000, 'ERR_CONNECTION', { redis: { host: '127.0.0.1', port: web.port, connectTimeoutMs: 1500 } });
    expect(error.message).toContain(`127.0.0.1:${web.port}`);
    await web.close();
  });

  test('a name that nobody has: ERR_CONNECTION names it', async () => {
    const { error } = await refusedIn(9000, 'ERR_CONNECTION', { redis: { host: 'no-such-host.invalid', connectTimeoutMs: 3000 } });
    expect(error.message).toContain('no-such-host.invalid:6379');
  });

  test('after a failure connect may be called again, once the server is there', async () => {
    const server = await TestServer.start();
    await server.kill();
    const bus = new RedisEventBus({ redis: { url: server.url, connectTimeoutMs: 1000 } });
    await refusal('ERR_CONNECTION', () => bus.connect());
    await refusal('ERR_NOT_INITIALIZED', () => bus.publish('t', 1));
    await server.start();
    await bus.connect();
    await bus.publish('t', 1);
    await bus.disconnect();
    await server.stop();
  });

  test('createOSSAEventBus without a Redis: the same error', async () => {
    const port = await freePort();
    const error = await refusal('ERR_CONNECTION', () =>
      createOSSAEventBus(null, { eventBus: { redis: { host: '127.0.0.1', port, connectTimeoutMs: 1000 } } }),
    );
    expect(error.message).toContain(`127.0.0.1:${port}`);
  });

  describe('with a password', () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await TestServer.start([], { password: 'right-pa55' });
    });
    afterAll(() => server.stop());

    test('the right one', async () => {
      const bus = new RedisEventBus({ redis: { host: '127.0.0.1', port: server.port, password: 'right-pa55' } });
      await bus.connect();
      await bus.publish('t', 1);
      await bus.disconnect();
    });

    test.each<[string, (port: number) => DeepPartial<EventBusConfig>]>([
      ['a wrong one', (port) => ({ redis: { host: '127.0.0.1', port, password: 'wr0ng-pa55' } })],
      ['a wrong one in the URL', (port) => ({ redis: { url: `redis://:wr0ng-pa55@127.0.0.1:${port}` } })],
      ['an unknown user', (port) => ({ redis: { host: '127.0.0.1', port, username: 'nobody', password: 'wr0ng-pa55' } })],
      ['none', (port) => ({ redis: { host: '127.0.0.1', port } })],
    ])('%s: ERR_AUTH, and it is nowhere to be seen', async (_, config) => {
      const { error, logs, bus } = await refusedIn(5000, 'ERR_AUTH', config(server.port));
      expect(error.retryable).toBe(false);
      expect(error.message).toContain(`127.0.0.1:${server.port}`);
      for (const seen of [
        inspect(error, { depth: null, showHidden: true }),
        inspect(bus, { depth: null, showHidden: true }),
        ...logs,
        String(error.stack),
      ]) {
        expect(seen).not.toContain('wr0ng-pa55');
      }
    });

    test('a user who may not do what the bus needs: ERR_AUTH', async () => {
      const client = server.client();
      await client.call('ACL', 'SETUSER', 'weak', 'on', '>weak-pa55', '~*', '&*', '+@all', '-@stream', '-@scripting', '-info', '-time');
      client.disconnect();
      const { error } = await refusedIn(5000, 'ERR_AUTH', {
        redis: { host: '127.0.0.1', port: server.port, username: 'weak', password: 'weak-pa55' },
      });
      expect(error.message).not.toContain('weak-pa55');
    });
  });

  test.each([
    ['6.2.0', true],
    ['5.0.7', false],
    ['nonsense', true],
  ])('a server of version %s: ERR_UNSUPPORTED_SERVER names it and what is needed', async (version, knowsClientInfo) => {
    const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`;
    const old = await pretended((chunk) =>
      commands(chunk)
        .map((command) => {
          switch (command.slice(0, 2).join(' ').toUpperCase()) {
            case 'INFO SERVER':
              return bulk(`# Server\r\nredis_version:${version}\r\nredis_mode:standalone\r\n`);
            case 'TIME':
              return `*2\r\n${bulk(String(Math.floor(Date.now() / 1000)))}${bulk('0')}`;
            case 'CLIENT INFO':
              return knowsClientInfo ? bulk('id=1 addr=127.0.0.1:1 laddr=127.0.0.1:2 name=') : '-ERR Unknown subcommand\r\n';
            case 'CLIENT SETINFO':
              return '-ERR Unknown subcommand\r\n';
            default:
              return '+OK\r\n';
          }
        })
        .join(''),
    );
    const { error } = await refusedIn(3000, 'ERR_UNSUPPORTED_SERVER', { redis: { host: '127.0.0.1', port: old.port } });
    expect(error.message).toContain(version);
    expect(error.message).toContain('7.0');
    await old.close();
  });

  test('keys of another layout under the prefix: ERR_LAYOUT says what to do, and they are not touched', async () => {
    const prefix = freshPrefix();
    const client = connectTo(redisUrl());
    await client.set(`${prefix}:layout`, '{"version":999,"buckets":16}');
    const { error } = await refusedIn(3000, 'ERR_LAYOUT', { redis: { url: redisUrl(), keyPrefix: prefix } });
    expect(error.message).toContain('999');
    expect(error.message).toContain('keyPrefix');
    expect(await client.keys(`${prefix}*`)).toEqual([`${prefix}:layout`]);
    client.disconnect();
  });
});

function circle(): object {
  const data = { inner: { list: [1] as unknown[] } };
  data.inner.list.push(data.inner);
  return data;
}

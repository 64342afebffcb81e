/** What is logged, from which level on, and where it goes. */
import type { LogLevel, LogLine } from '@bluefly/ossa';
import { createOSSAEventBus, RedisEventBus, ServiceRegistry } from './support/package';
import { project, secretOf } from './support/projects';
import { TestServer } from './support/server';
import { until } from './support/wait';
import { freshPrefix, refusal, useWorld } from './support/world';

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;
type Level = (typeof LEVELS)[number];

/** A logger, and what it was given. */
function recorder() {
  const lines: string[] = [];
  const write = (level: Level) => (message: string) => void lines.push(`${level} ${message}`);
  return { lines, logger: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') } };
}

/** Runs with this variable. */
async function withVariable<T>(value: string | undefined, work: () => T | Promise<T>): Promise<T> {
  const before = process.env['OSSA_LOG'];
  const set = (to: string | undefined) => {
    if (to === undefined) delete process.env['OSSA_LOG'];
    else process.env['OSSA_LOG'] = to;
  };
  set(value);
  try {
    return await work();
  } finally {
    set(before);
  }
}

/** What goes to the console while `work` runs. */
async function onConsole(work: () => Promise<void>): Promise<string[]> {
  const lines: string[] = [];
  const spies = LEVELS.map((level) =>
    jest.spyOn(console, level).mockImplementation((...line: unknown[]) => void lines.push([level, ...line].join(' '))),
  );
  try {
    await work();
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return lines;
}

/** A bus that connects, has a listener that fails, and disconnects: an info line of the engine at least, and an error. */
async function session(config: ConstructorParameters<typeof RedisEventBus>[0]): Promise<void> {
  const bus = new RedisEventBus({ redis: { url: 'memory://' }, ...config });
  bus.on('subscription:created', () => {
    throw new Error('broke');
  });
  await bus.connect();
  await bus.subscribe('t', () => undefined, { group: 'g' });
  await bus.disconnect();
}

describe('the level', () => {
  test.each<[string, LogLevel | undefined, string | undefined, Level[]]>([
    ['is warn where nothing is said', undefined, undefined, ['error']],
    ['is taken from OSSA_LOG in any case', undefined, 'Info', ['info', 'error']],
    ['is that of the configuration before OSSA_LOG', 'warn', 'debug', ['error']],
    ['is that of the configuration', 'info', 'silent', ['info', 'error']],
    ['may be silent', 'silent', undefined, []],
    ['may be silent by OSSA_LOG', undefined, 'silent', []],
  ])('%s', async (_, logLevel, variable, expected) => {
    const { lines, logger } = recorder();
    await withVariable(variable, () => session({ logger, ...(logLevel === undefined ? {} : { logLevel }) }));
    const seen = new Set(lines.map((line) => line.split(' ')[0]));
    expect([...seen].sort()).toEqual([...expected].sort());
  });

  test.each(['WARN', 'trace', '', 1, null])('%p is refused', async (logLevel) => {
    const wrong = { logLevel } as never;
    expect((await refusal('ERR_INVALID_CONFIG', () => new RedisEventBus(wrong))).details).toMatchObject({ path: 'logLevel' });
    expect((await refusal('ERR_INVALID_CONFIG', () => new ServiceRegistry(wrong))).details).toMatchObject({ path: 'logLevel' });
    const error = await refusal('ERR_INVALID_CONFIG', () => createOSSAEventBus(null, { eventBus: wrong }));
    expect(error.details).toMatchObject({ path: 'eventBus.logLevel' });
  });

  test('an unknown OSSA_LOG is refused by its name; an empty one counts as absent', async () => {
    const error = await withVariable('verbose', () => refusal('ERR_INVALID_CONFIG', () => new RedisEventBus()));
    expect(error.details).toMatchObject({ path: 'logLevel', env: 'OSSA_LOG' });
    expect(error.message).toContain('OSSA_LOG');
    await withVariable(' ', () => new RedisEventBus());
  });

  test('debug mode was asked for: its lines are written at every level but silent', async () => {
    const journal = async (logLevel: LogLevel): Promise<string[]> => {
      const { lines, logger } = recorder();
      const bus = new RedisEventBus({
        redis: { url: 'memory://' },
        logger,
        logLevel,
        monitoring: { tracing: { enabled: true, samplingRate: 1 } },
      });
      await bus.connect();
      await bus.publish('t', 1);
      await bus.disconnect();
      return lines.filter((line) => line.includes('type=t step=published'));
    };
    expect(await journal('error')).toHaveLength(1);
    expect(await journal('silent')).toEqual([]);
  });
});

describe('where lines go', () => {
  const info = { logLevel: 'info' } as const;

  test('to the logger, and not to the console', async () => {
    const { lines, logger } = recorder();
    expect(await onConsole(() => session({ logger, ...info }))).toEqual([]);
    expect(lines).toEqual([
      'info connected redis=memory://private keyPrefix=ossa:eventbus',
      expect.stringMatching(/^info subscribed eventType=t group=g consumer=\S+$/),
      "error A listener of 'subscription:created' failed: broke",
      'info a subscription ended with its bus eventType=t group=g',
      'info disconnected',
    ]);
  });

  test('to the console without one: warnings and errors, unless more is asked for', async () => {
    const failed = "error @bluefly/ossa: A listener of 'subscription:created' failed: broke";
    expect(await onConsole(() => session({}))).toEqual([failed]);
    expect(await onConsole(() => session({ logLevel: 'silent' }))).toEqual([]);
    const all = await onConsole(() => session(info));
    expect(all[0]).toBe('info @bluefly/ossa: connected redis=memory://private keyPrefix=ossa:eventbus');
    expect(all).toContain(failed);
  });

  test("to listeners of 'log' in place of the console, and beside a logger", async () => {
    const heard: LogLine[] = [];
    const run = async (config: object) => {
      const bus = new RedisEventBus({ redis: { url: 'memory://' }, ...info, ...config });
      bus.on('log', (line: LogLine) => heard.push(line));
      const before = Date.now();
      await bus.connect();
      await bus.disconnect();
      expect(heard[0]).toEqual({
        level: 'info',
        target: 'bus',
        message: 'connected',
        fields: { redis: 'memory://private', keyPrefix: 'ossa:eventbus' },
        timestamp: expect.any(Date),
      });
      expect(heard[0]?.timestamp.getTime()).toBeGreaterThanOrEqual(before);
      expect(heard[0]?.timestamp.getTime()).toBeLessThanOrEqual(Date.now());
      expect(heard.splice(0).map((line) => line.message)).toEqual(['connected', 'disconnected']);
    };
    expect(await onConsole(() => run({}))).toEqual([]);
    const { lines, logger } = recorder();
    expect(await onConsole(() => run({ logger }))).toEqual([]);
    expect(lines).toHaveLength(2);
  });

  test("a listener of 'log' that throws or rejects is told of elsewhere, and does not go round in circles", async () => {
    const bus = new RedisEventBus({ redis: { url: 'memory://' }, ...info });
    const fail = () => {
      throw new Error('no');
    };
    bus.on('log', fail);
    bus.on('log', async () => fail());
    const lines = await onConsole(async () => {
      await bus.connect();
      await bus.disconnect();
    });
    expect(lines).toEqual(Array.from({ length: 4 }, () => "error @bluefly/ossa: A listener of 'log' failed: no"));
  });

  test('a failure that repeats itself with every event is written thirty times', async () => {
    const { lines, logger } = recorder();
    const bus = new RedisEventBus({ redis: { url: 'memory://' }, logger });
    let failures = 0;
    bus.on('event:published', () => {
      failures++;
      throw new Error('no');
    });
    await bus.connect();
    await bus.publishBatch(Array.from({ length: 100 }, (_, data) => ({ eventType: 't', data })));
    await until(() => failures === 100);
    await bus.disconnect();
    expect(lines).toEqual(Array.from({ length: 30 }, () => "error A listener of 'event:published' failed: no"));
  });

  test('lines of two buses stay apart', async () => {
    const [a, b] = [recorder(), recorder()];
    const bus = (name: string, { logger }: ReturnType<typeof recorder>, logLevel: LogLevel) =>
      new RedisEventBus({ redis: { url: `memory://${name}` }, logger, logLevel });
    const names = [freshPrefix(), freshPrefix()].map((name) => name.replaceAll(':', '-')) as [string, string];
    const [first, second] = [bus(names[0], a, 'debug'), bus(names[1], b, 'info')];
    await Promise.all([first.connect(), second.connect()]);
    await Promise.all([first.subscribe('of.first', () => undefined), second.subscribe('of.second', () => undefined)]);
    await Promise.all([first.disconnect(), second.disconnect()]);
    expect(a.lines.filter((line) => line.includes('of.first'))).toHaveLength(2);
    expect(b.lines.filter((line) => line.includes('of.second'))).toHaveLength(2);
    expect(a.lines.join()).not.toContain('of.second');
    expect(b.lines.join()).not.toContain('of.first');
    expect(a.lines).toContain(`info connected redis=memory://${names[0]} keyPrefix=ossa:eventbus`);
    expect(b.lines).toContain(`info connected redis=memory://${names[1]} keyPrefix=ossa:eventbus`);
  });

  test('a registry has a log of its own', async () => {
    const { lines, logger } = recorder();
    const heard: string[] = [];
    const registry = new ServiceRegistry({ redis: { url: 'memory://' }, logger, logLevel: 'info' });
    registry.on('log', ({ level, target, message }) => heard.push(`${level} ${target} ${message}`));
    await registry.discover();
    await registry.close();
    expect(lines).toEqual(['info the service registry is connected redis=memory://private', 'info the service registry is closed']);
    expect(heard).toEqual(['info services::life the service registry is connected', 'info services::life the service registry is closed']);
    const other = await onConsole(() =>
      withVariable('info', async () => {
        const registry = new ServiceRegistry({ redis: { url: 'memory://' } });
        await registry.discover();
        await registry.close();
      }),
    );
    expect(other[0]).toBe('info @bluefly/ossa: the service registry is connected redis=memory://private');
  });
});

describe('with a server', () => {
  const world = useWorld('redis');
  let server: TestServer | undefined;
  /** Ended after the test, also where it fails. */
  const open: Array<() => Promise<void>> = [];
  afterEach(async () => {
    for (const close of open.splice(0)) await close();
    await world.end();
    await server?.stop();
    server = undefined;
  });

  test('that it is lost is a warning, and that it is back, once each', async () => {
    const own = (server = await TestServer.start());
    const { lines, logger } = recorder();
    const bus = await world.bus({ redis: { url: own.url }, logger });
    await bus.subscribe('t', () => undefined, { group: 'g' });
    expect(lines).toEqual([]);
    await own.kill();
    await until(() => lines.length > 0, { show: () => lines });
    await own.start();
    await until(async () => (await bus.getStatus()).redis.connected);
    const id = await bus.publish('t', 1);
    expect(id).toHaveLength(36);
    await until(() => lines.some((line) => line.includes('is back')), { show: () => lines });
    const of = (text: string) => lines.filter((line) => line.includes(text));
    expect(of('warn the connection to Redis was lost error=')).toHaveLength(1);
    expect(of('warn the connection to Redis is back')).toHaveLength(1);
  });

  test('a permission that is missing is a warning, as nothing mends it by itself', async () => {
    const own = (server = await TestServer.start());
    await own.call('ACL', 'SETUSER', 'bus', 'on', '>p', '~*', '&*', '+@all');
    const { lines, logger } = recorder();
    const bus = await world.bus({ redis: { url: `redis://bus:p@127.0.0.1:${own.port}` }, logger });
    await bus.subscribe('t', () => undefined, { group: 'g' });
    await own.call('ACL', 'SETUSER', 'bus', '-@all', '+@connection');
    await until(() => lines.some((line) => /^warn .*error=.*permission/.test(line)), { show: () => lines });
    await bus.disconnect({ drainTimeoutMs: 0 });
  });

  test('no secret and no data of an event is in any line of a whole session', async () => {
    const password = 'p@ss/w:rd %41';
    const secrets = [password, encodeURIComponent(password), 'no such one', secretOf('a'), 'key-a', 'card 4111', 'reply 4111'];
    const own = (server = await TestServer.start([], { password }));
    const { lines, logger } = recorder();
    const url = `redis://:${encodeURIComponent(password)}@127.0.0.1:${own.port}`;
    const config = (url: string, keyPrefix = freshPrefix()) => ({
      redis: { url, keyPrefix, connectTimeoutMs: 2000 },
      logger,
      logLevel: 'debug' as const,
    });
    const wrong = new RedisEventBus(config(`redis://:${encodeURIComponent('no such one')}@127.0.0.1:${own.port}`));
    await refusal('ERR_AUTH', () => wrong.connect());

    const registry = new ServiceRegistry(config(url));
    open.push(() => registry.close());
    const bus = await createOSSAEventBus(registry, { eventBus: config(url) });
    open.unshift(() => bus.shutdown({ drainTimeoutMs: 0 }));
    for (const id of ['a', 'b']) await bus.registerProject(project(id));
    await bus.setupCrossProjectHandler('b', 'told', () => {
      throw new Error('declined');
    });
    await bus.sendCrossProjectMessage('a', 'b', 'told', 'card 4111');
    let handled = 0;
    await bus.subscribe(
      't',
      ({ data }) => {
        handled++;
        if (data === 'card 4111') throw new Error('declined');
        return 'reply 4111';
      },
      { group: 'g', retry: { maxAttempts: 0 } },
    );
    await bus.publish('t', 'card 4111');
    expect(await bus.request('t', 'ask')).toBe('reply 4111');
    await until(() => handled >= 2);
    await own.kill();
    const late = bus.publish('t', 'card 4111');
    await until(() => lines.some((line) => line.startsWith('warn the connection to Redis was lost')), { show: () => lines });
    await until(() => lines.some((line) => line.startsWith('debug ')), { show: () => lines });
    await own.start();
    await late;
    await bus.shutdown({ drainTimeoutMs: 0 });
    await registry.close();
    await own.kill();
    const nobody = new RedisEventBus(config(url));
    await refusal('ERR_CONNECTION', () => nobody.connect());

    expect(lines.length).toBeGreaterThan(10);
    expect(lines).toContainEqual(expect.stringMatching(/^info connected redis=redis:\/\/127\.0\.0\.1:\d+\/0 /));
    for (const line of lines) {
      for (const secret of secrets) expect(line).not.toContain(secret);
      expect(line).not.toMatch(/[\r\n]/);
    }
  });
});

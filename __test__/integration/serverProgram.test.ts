/** The server program: what it says when it is told something wrong, while Redis is not there, when it serves, and how it ends. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestServer } from '../support/server';
import { endServers, ServerProgram } from '../support/serverProgram';
import { until } from '../support/wait';
import { clusterNodes, freshPrefix, redisUrl, useWorld } from '../support/world';

const { Front } = require('../../dist/server/front') as typeof import('../../ts/server/front');

jest.setTimeout(60_000);
afterEach(endServers);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ossa-server-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const EMBEDDED = { REDIS_URL: 'memory://' };
const NOBODY = { REDIS_URL: 'redis://127.0.0.1:1' };

/** A configuration file that holds this text, or this value as JSON. */
function configFile(content: unknown): string {
  const path = join(folder, 'ossa.json');
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('told something wrong it ends with exit code 1 and names the variable:', () => {
  const refusal = async (env: { [name: string]: string }) => {
    const program = new ServerProgram(env);
    expect(await program.ended).toEqual({ code: 1, signal: null });
    expect(program.stderr).toBe('');
    return program.log.filter(({ level }) => level === 'error').map(({ message }) => message);
  };

  test.each([
    ['PORT', 'http'],
    ['PORT', '65536'],
    ['PORT', '-1'],
    ['PORT', '3000.5'],
    ['DRAIN_TIMEOUT_MS', '10s'],
    ['OSSA_LOG', 'verbose'],
    ['REDIS_PORT', 'x'],
    ['EVENTBUS_BATCH_SIZE', '0'],
  ])('%s=%s', async (name, value) => {
    // A URL would win over the port of Redis.
    const address = name === 'REDIS_PORT' ? {} : EMBEDDED;
    const [message, ...others] = await refusal({ ...address, [name]: value });
    expect(message).toContain(name);
    expect(message).toContain(JSON.stringify(value));
    expect(others).toEqual([]);
  });

  test('a token that no header can carry, without showing it', async () => {
    const [message] = await refusal({ ...EMBEDDED, OSSA_HTTP_TOKEN: 'geheim geheim' });
    expect(message).toMatch(/^OSSA_HTTP_TOKEN must /);
    expect(message).not.toContain('geheim');
  });

  test('a host that is not of this machine', async () => {
    expect((await refusal({ ...EMBEDDED, HOST: '192.0.2.1' }))[0]).toMatch(/^HOST 192\.0\.2\.1, PORT 0: .*EADDRNOTAVAIL/);
  });

  test('a port that is taken', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    try {
      expect((await refusal({ ...EMBEDDED, PORT: String(port) }))[0]).toMatch(new RegExp(`PORT ${port}: .*EADDRINUSE`));
    } finally {
      other.close();
    }
  });

  test('a file that is not there', async () => {
    expect((await refusal({ OSSA_CONFIG: join(folder, 'none.json') }))[0]).toMatch(/^OSSA_CONFIG: .*none\.json cannot be read \(ENOENT\)/);
  });

  test('a file that is not JSON, without showing what is in it', async () => {
    const [message] = await refusal({ OSSA_CONFIG: configFile('{ "password": geheim }') });
    expect(message).toMatch(/^OSSA_CONFIG: .*ossa\.json is not JSON$/);
  });

  test('a file that holds no object', async () => {
    expect((await refusal({ OSSA_CONFIG: configFile([]) }))[0]).toMatch(/^OSSA_CONFIG: .* must hold a JSON object/);
  });

  test.each([
    ['eventBus.redis.prot', { eventBus: { redis: { prot: 1 } } }],
    ['eventBus', { eventBus: [] }],
    ['eventBus.logger', { eventBus: { logger: {} } }],
    ['monitoring.alerting.thresholds.maxErrorRate', { monitoring: { alerting: { thresholds: { maxErrorRate: -1 } } } }],
  ])('a file whose key %s is wrong', async (path, config) => {
    const [message] = await refusal({ ...EMBEDDED, OSSA_CONFIG: configFile(config) });
    expect(message).toMatch(/^OSSA_CONFIG: /);
    expect(message).toContain(path);
  });

  test('a password that Redis does not take', async () => {
    const server = await TestServer.start([], { password: 'right' });
    try {
      const messages = await refusal({ REDIS_URL: server.url, REDIS_PASSWORD: 'wrong' });
      expect(messages).toHaveLength(1);
      expect(messages[0]).not.toContain('wrong');
    } finally {
      await server.stop();
    }
  });
});

describe('while Redis is not there', () => {
  test('it is alive and not ready, and says so in the log', async () => {
    const program = new ServerProgram(NOBODY);
    expect(await program.get('/healthz')).toEqual({ status: 200, text: '{"status":"starting"}\n' });
    expect(await program.get('/readyz')).toEqual({ status: 503, text: '{"status":"starting"}\n' });
    expect(await program.get('/metrics')).toMatchObject({ status: 503 });
    expect((await program.logged(/Redis cannot be used yet/)).level).toBe('warn');
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('%s ends it at once, with exit code 0', async (signal) => {
    const program = new ServerProgram(NOBODY);
    await program.logged(/Redis cannot be used yet/);
    program.kill(signal);
    expect(await program.ended).toEqual({ code: 0, signal: null });
    expect(program.log.at(-1)?.message).toBe('Ended with exit code 0');
  });

  test('it is silent when it is told to be', async () => {
    const program = new ServerProgram({ PORT: 'x', OSSA_LOG: 'silent', ...NOBODY });
    expect(await program.ended).toEqual({ code: 1, signal: null });
    // A second attempt to connect comes after a warning of the first one.
    let attempts = 0;
    const redis = createTcpServer((socket) => {
      attempts++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => redis.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = redis.address() as AddressInfo;
      const quiet = new ServerProgram({ REDIS_URL: `redis://127.0.0.1:${port}`, OSSA_LOG: 'error' });
      await until(() => attempts >= 2);
      quiet.kill('SIGTERM');
      expect(await quiet.ended).toEqual({ code: 0, signal: null });
      expect([quiet.log, quiet.stderr]).toEqual([[], '']);
    } finally {
      redis.close();
    }
  });

  test('OSSA_LOG is understood in any case', async () => {
    const program = new ServerProgram({ ...NOBODY, OSSA_LOG: 'WARN' });
    expect((await program.logged(/Redis cannot be used yet/)).level).toBe('warn');
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 0, signal: null });
    expect(program.log.filter(({ level }) => level === 'info')).toEqual([]);
  });

  test('when nobody reads its log any more it ends with exit code 1', async () => {
    const program = new ServerProgram(NOBODY);
    await program.logged(/Redis cannot be used yet/);
    program.stopReading();
    expect(await program.ended).toEqual({ code: 1, signal: null });
    expect(program.stderr).toBe('');
  });

  test('what does not end is not waited for', async () => {
    const preload = join(folder, 'preload.cjs');
    const bus = join(__dirname, '..', '..', 'dist', 'OSSAEventBus.js');
    writeFileSync(preload, `require(${JSON.stringify(bus)}).OSSAEventBus.prototype.shutdown = () => new Promise(() => {});`);
    const program = new ServerProgram({ ...NOBODY, DRAIN_TIMEOUT_MS: '0', NODE_OPTIONS: `--require ${preload}` });
    await program.logged(/Redis cannot be used yet/);
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 1, signal: null });
    expect(program.log.at(-1)?.message).toBe('Shutting down takes more than 10000 ms: ending at once');
  });

  test('it becomes ready when Redis comes', async () => {
    const server = await TestServer.start();
    try {
      await server.kill();
      const program = new ServerProgram({ REDIS_URL: server.url });
      expect((await program.get('/readyz')).status).toBe(503);
      await server.start();
      await until(async () => (await program.get('/readyz')).status === 200);
      expect((await program.get('/healthz')).status).toBe(200);
      program.kill('SIGTERM');
      expect(await program.ended).toEqual({ code: 0, signal: null });
    } finally {
      await server.stop();
    }
  });
});

describe('an error that nothing handles', () => {
  test.each([
    ['unhandledRejection', 'void Promise.reject(new Error("boom"))'],
    ['uncaughtException', 'throw new Error("boom")'],
  ])('%s is logged, and ends it with exit code 1', async (event, makes) => {
    const preload = join(folder, 'preload.cjs');
    // Once the program listens for it.
    const body = `const timer = setInterval(() => { if (process.listenerCount('${event}') === 0) return; clearInterval(timer); ${makes}; }, 5);`;
    writeFileSync(preload, body);
    const program = new ServerProgram({ ...NOBODY, NODE_OPTIONS: `--require ${preload}` });
    expect(await program.ended).toEqual({ code: 1, signal: null });
    expect(program.stderr).toBe('');
    expect(program.log.filter(({ level }) => level === 'error').map(({ message }) => message)).toEqual([
      expect.stringMatching(/^An error that nothing handled: Error: boom\n +at /),
    ]);
  });
});

describe('the HTTP server at the end', () => {
  /** One that answers `after` ms after it was asked; never: undefined. */
  const asked = async (after: number | undefined) => {
    const front = new Front();
    let isAsked = false;
    front.ready((_, response) => {
      isAsked = true;
      if (after !== undefined) setTimeout(() => response.end('done'), after);
    });
    const url = await front.listen(0, '127.0.0.1');
    const answer = fetch(url).then(
      (response) => response.text(),
      () => 'cut',
    );
    await until(() => isAsked);
    const from = performance.now();
    await front.close();
    return { answer: await answer, took: performance.now() - from };
  };

  test('what is being answered is answered', async () => {
    const { answer, took } = await asked(200);
    expect(answer).toBe('done');
    // A connection that is kept for more questions is not waited for.
    expect(took).toBeLessThan(1_900);
  });

  test('what is never answered is cut after two seconds', async () => {
    const { answer, took } = await asked(undefined);
    expect(answer).toBe('cut');
    expect(took).toBeGreaterThan(1_900);
  });
});

describe('serving', () => {
  const world = useWorld('redis');
  const ready = async (env: { [name: string]: string }) => {
    const program = new ServerProgram({ REDIS_URL: redisUrl(), EVENTBUS_KEY_PREFIX: world.prefix, ...env });
    await program.logged(/^Connected to Redis$/);
    return program;
  };

  test('a token is asked for, but not by probes', async () => {
    const program = await ready({ OSSA_HTTP_TOKEN: 'open-sesame' });
    for (const path of ['/healthz', '/readyz']) expect([path, (await program.get(path)).status]).toEqual([path, 200]);
    expect((await program.get('/metrics')).status).toBe(401);
    expect((await program.get('/metrics', { authorization: 'Bearer other' })).status).toBe(401);
    const metrics = await program.get('/metrics', { authorization: 'Bearer open-sesame' });
    expect(metrics.status).toBe(200);
    expect(metrics.text).toContain('ossa_eventbus_connected 1');
    const warnings = program.log.filter(({ level }) => level === 'warn').map(({ message }) => message);
    expect(warnings).toEqual(['HTTP: a request with a wrong token']);
  });

  test('open to other machines without a token it warns', async () => {
    const program = await ready({ HOST: '0.0.0.0' });
    expect((await program.logged(/OSSA_HTTP_TOKEN/)).level).toBe('warn');
  });

  test('the file wins over the environment, and its bus shares events with others of its prefix', async () => {
    const prefix = freshPrefix();
    const program = await ready({
      OSSA_CONFIG: configFile({ eventBus: { redis: { keyPrefix: prefix } }, orchestration: { enabled: false } }),
    });
    const bus = await world.bus({ redis: { keyPrefix: prefix } });
    await bus.publish('from.another.process', 1);
    await until(async () => (await program.get('/readyz')).status === 200);
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 0, signal: null });
    // It said goodbye to those that share its prefix.
    const goodbyes: unknown[] = [];
    for await (const { data } of bus.replay('system.shutdown')) goodbyes.push(data);
    expect(goodbyes).toHaveLength(1);
  });

  test('a Redis Cluster by a file', async () => {
    const program = new ServerProgram({
      OSSA_CONFIG: configFile({ eventBus: { redis: { keyPrefix: world.prefix, cluster: { nodes: clusterNodes() } } } }),
    });
    await program.logged(/^Connected to Redis$/);
    expect((await program.get('/readyz')).status).toBe(200);
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 0, signal: null });
  });

  test('with the registry switched off it needs none', async () => {
    const program = await ready({ OSSA_CONFIG: configFile({ serviceRegistry: { enabled: false } }) });
    expect((await program.get('/metrics')).text).not.toContain('ossa_service_registry_services_total');
  });

  test('a second signal ends it at once', async () => {
    const server = await TestServer.start();
    try {
      const program = new ServerProgram({ REDIS_URL: server.url });
      await program.logged(/^Connected to Redis$/);
      // Saying goodbye waits for Redis, which does not answer.
      server.pause();
      program.kill('SIGTERM');
      await program.logged(/^SIGTERM: ending/);
      expect(await program.get('/readyz')).toMatchObject({ status: 503 });
      expect((await program.get('/healthz')).status).toBe(200);
      program.kill('SIGTERM');
      expect(await program.ended).toEqual({ code: 143, signal: null });
    } finally {
      server.resume();
      await server.stop();
    }
  });

  test('Redis going away makes it not ready, and it stays alive', async () => {
    const server = await TestServer.start();
    try {
      const program = new ServerProgram({ REDIS_URL: server.url });
      await program.logged(/^Connected to Redis$/);
      await server.kill();
      await until(async () => (await program.get('/readyz')).status === 503);
      expect((await program.get('/healthz')).status).toBe(200);
      program.kill('SIGTERM');
      expect(await program.ended).toEqual({ code: 0, signal: null });
      // Bus and registry have something to say of it, all in the log.
      expect(program.stderr).toBe('');
    } finally {
      await server.stop();
    }
  });
});

/**
 * Processes around a service registry. The argument is JSON: { role, redis, … } with role
 * - 'bus': a bus that works with the registry; prints every 100 ms what it sends to whom, and at once what it logs
 * - 'sites', `services`, `file`, `seed`: HTTP services that register themselves, and write a line for each event they are sent to
 *   `file`, before they answer. SIGUSR2 begins the time in which they fail at random, and ends it
 * - 'publish', `types`, `events`: publishes events by turns, each until it is stored, and prints when it is done
 * SIGTERM ends a bus.
 */
const { openSync, writeSync } = require('node:fs');
const { createServer } = require('node:http');
const { createOSSAEventBus, ServiceRegistry } = require('@bluefly/ossa');

const task = JSON.parse(process.argv[2]);
const { redis } = task;
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const registryOf = (config) => new ServiceRegistry({ ...config, redis: { url: redis.url, keyPrefix: `${redis.keyPrefix}:registry` } });

async function bus() {
  const registry = registryOf({ healthCheck: { intervalMs: 1000, timeoutMs: 500 } });
  const log = (message) => print({ log: message });
  const made = await createOSSAEventBus(registry, {
    eventBus: {
      redis,
      logger: { debug: () => undefined, info: () => undefined, warn: log, error: log },
      defaults: { retry: { maxAttempts: 40, initialDelay: 100, maxDelay: 1000, backoffMultiplier: 2 } },
    },
    serviceRegistry: { http: { timeoutMs: 1000 } },
  });
  process.once('SIGTERM', async () => {
    clearInterval(telling);
    await made.shutdown();
    await registry.close();
  });
  const telling = setInterval(async () => {
    const status = await made
      .getServiceRegistryIntegration()
      .getStatus()
      .catch(() => undefined);
    if (status === undefined) return;
    const routes = status.routes.map(({ service, circuit, delivered, failed }) => [service, circuit, delivered, failed]);
    print({ at: Date.now(), problem: status.problem, routes });
  }, 100);
  print({ ready: true });
}

/** Numbers from a seed, 0 to 1. */
function seeded(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

async function sites() {
  const random = seeded(task.seed);
  const file = openSync(task.file, 'a');
  const registry = registryOf({});
  let failing = false;
  process.on('SIGUSR2', () => {
    failing = !failing;
    print({ failing, at: Date.now() });
  });
  // The first of them is down altogether.
  const chance = (name) => (!failing ? 1 : name === task.services[0].name ? 0 : random());
  for (const { name, capabilities } of task.services) {
    const server = createServer((request, response) => {
      const chunks = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('error', () => undefined);
      request.on('end', () => {
        if (request.method !== 'POST') return response.writeHead(request.url === '/health' ? 200 : 404).end();
        const { metadata, data } = JSON.parse(Buffer.concat(chunks));
        const luck = chance(name);
        // 'lost': the work is done, and nobody hears of it.
        const outcome = luck < 0.1 ? 'refused' : luck < 0.14 ? 'hung' : luck < 0.2 ? 'closed' : luck < 0.25 ? 'lost' : 'accepted';
        const attempt = Number(request.headers['x-event-attempt']);
        writeSync(
          file,
          `${JSON.stringify({ at: Date.now(), service: name, id: metadata.id, type: metadata.type, n: data.n, attempt, outcome })}\n`,
        );
        if (outcome === 'accepted') response.writeHead(204).end();
        else if (outcome === 'refused') response.writeHead(500).end('no luck');
        else if (outcome !== 'hung') request.socket.destroy();
      });
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    await registry.register({ name, endpoint: `http://127.0.0.1:${server.address().port}`, version: '1.0.0', capabilities });
  }
  print({ ready: true });
}

async function publish() {
  const made = await createOSSAEventBus(null, { eventBus: { redis } });
  const store = async (n) => {
    const type = task.types[n % task.types.length];
    for (;;) {
      try {
        return await made.publish(type, { n, agentId: 'nobody', source: 'nobody' }, { idempotencyKey: `event ${n}` });
      } catch (error) {
        if (!error.retryable) throw error;
        await pause(50);
      }
    }
  };
  const ids = [];
  for (let n = 0; n < task.events; n += 50) {
    ids.push(...(await Promise.all(Array.from({ length: 50 }, (_, i) => store(n + i)))));
    await pause(task.pauseMs);
  }
  print({ published: ids.length, at: Date.now() });
  await made.shutdown();
}

({ bus, sites, publish })[task.role]();

/**
 * Buses in three workers and the main thread at once. Each worker publishes to all and hears from all; then one
 * disconnects, one is terminated with its bus open and one in the middle of publishing. Prints what came.
 */
const { isMainThread, parentPort, Worker, workerData } = require('node:worker_threads');
const { RedisEventBus } = require('@bluefly/ossa');

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const EACH = 200;

async function member(name, redis, heard) {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  await bus.subscribe('t', (event) => heard(event.data), { group: name });
  return bus;
}

async function worker() {
  const { name, redis } = workerData;
  const bus = await member(name, redis, (data) => parentPort.postMessage({ name, data }));
  parentPort.on('message', async (order) => {
    if (order === 'publish') for (let n = 0; n < EACH; n++) await bus.publish('t', `${name} ${n}`);
    if (order === 'flood') {
      for (let n = 0; ; n++) {
        void bus.publish('flood', n).catch(() => undefined);
        if (n % 100 === 0) await new Promise(setImmediate);
      }
    }
    if (order === 'disconnect') {
      await bus.disconnect();
      parentPort.close();
    }
  });
  parentPort.postMessage({ name, ready: true });
}

async function main() {
  const { redis, rounds } = JSON.parse(process.argv[2]);
  for (let round = 0; round < rounds; round++) {
    const heard = new Map();
    const note = (name, data) => heard.set(name, (heard.get(name) ?? new Set()).add(data));
    const config = { ...redis, keyPrefix: `${redis.keyPrefix}:${round}` };
    const bus = await member('main', config, (data) => note('main', data));
    const workers = ['a', 'b', 'c'].map((name) => new Worker(__filename, { workerData: { name, redis: config } }));
    const failures = [];
    for (const thread of workers) thread.on('error', (error) => failures.push(String(error)));
    let ready = 0;
    for (const thread of workers)
      thread.on('message', ({ name, data, ready: isReady }) => {
        if (isReady) ready++;
        else note(name, data);
      });
    const until = async (condition) => {
      while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await until(() => ready === 3);
    for (const thread of workers) thread.postMessage('publish');
    for (let n = 0; n < EACH; n++) await bus.publish('t', `main ${n}`);
    await until(() => ['main', 'a', 'b', 'c'].every((name) => heard.get(name)?.size === 4 * EACH));
    workers[2].postMessage('flood');
    workers[0].postMessage('disconnect');
    await new Promise((resolve) => workers[0].once('exit', resolve));
    await Promise.all([workers[1].terminate(), workers[2].terminate()]);
    // The main thread's bus is not touched by the end of the others.
    await bus.publish('after', 1);
    await bus.disconnect();
    print({ round, failures });
  }
  print({ done: true });
}

void (isMainThread ? main() : worker());

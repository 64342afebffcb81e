/** Programs that end, or do not: { redis, how }. What is not done by hand is left to Node. */
const { RedisEventBus } = require('@bluefly/ossa');
const vm = require('node:vm');

const { redis, how } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function connected() {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  return bus;
}

const ways = {
  async 'idle publisher'() {
    const bus = await connected();
    await bus.publish('t', 1);
    globalThis.kept = bus;
  },
  async 'publishes without await'() {
    const bus = await connected();
    for (let n = 0; n < 1000; n++) void bus.publish('t', n);
  },
  async 'open subscription'() {
    const bus = await connected();
    await bus.subscribe('t', () => undefined);
  },
  async 'closed subscription'() {
    const bus = await connected();
    const subscription = await bus.subscribe('t', () => undefined);
    await subscription.close();
  },
  async 'paused subscription'() {
    const bus = await connected();
    (await bus.subscribe('t', () => undefined)).pause();
  },
  async disconnected() {
    const bus = await connected();
    await bus.subscribe('t', () => undefined);
    await bus.disconnect();
  },
  async 'process.exit'() {
    const bus = await connected();
    await bus.subscribe('t', () => undefined);
    void bus.publish('t', 1);
    process.exit(3);
  },
  async collected() {
    for (let n = 0; n < 30; n++) {
      let bus = await connected();
      await bus.publish('t', n);
      bus = undefined;
      global.gc();
    }
    await new Promise((resolve) => setImmediate(resolve));
    global.gc();
    print({ collected: true });
    // Until somebody has looked.
    await new Promise((resolve) => setTimeout(resolve, 60_000));
  },
  async 'another realm'() {
    // As jest has it: the package's modules run in a context of their own.
    const Module = require('node:module');
    const context = vm.createContext({
      process,
      console,
      Buffer,
      setTimeout,
      clearTimeout,
      AbortController,
      AbortSignal,
      TextEncoder,
      URL,
    });
    const cache = new Map();
    const load = (file) => {
      if (cache.has(file)) return cache.get(file).exports;
      const module = { exports: {} };
      cache.set(file, module);
      const nested = Module.createRequire(file);
      const own = (name) => (name.startsWith('.') ? load(nested.resolve(name)) : nested(name));
      const source = require('node:fs').readFileSync(file, 'utf8');
      const run = vm.runInContext(`(function (module, exports, require, __dirname) {${source}\n})`, context, { filename: file });
      run(module, module.exports, own, require('node:path').dirname(file));
      return module.exports;
    };
    const ossa = load(require.resolve('@bluefly/ossa'));
    const realm = vm.runInContext('({ Date, Error, Array, Object, Promise })', context);
    const bus = new ossa.RedisEventBus({ redis });
    await bus.connect();
    const event = await new Promise((resolve) => void bus.subscribe('t', resolve).then(() => bus.publish('t', { list: [1] })));
    const error = await bus.publish('', 1).catch((thrown) => thrown);
    print({
      date: event.metadata.timestamp instanceof realm.Date,
      list: event.data.list instanceof realm.Array,
      data: event.data instanceof realm.Object,
      error: error instanceof realm.Error && error instanceof ossa.OSSAError,
      promise: bus.publish('t', 1) instanceof realm.Promise,
      status: (await bus.getStatus()).lastHealthCheck instanceof realm.Date,
    });
    await bus.disconnect();
  },
  /** Everything that a program may do wrong, at once: it goes on. */
  async 'wrong everywhere'() {
    const bus = await connected();
    bus.on('event:failed', () => {
      throw new Error('a listener');
    });
    bus.on('event:consumed', async () => {
      throw new Error('a listener, later');
    });
    const bad = [
      () => Promise.reject(),
      () => {
        throw null;
      },
      () => new Promise(() => undefined),
      () => Object.defineProperty({}, 'then', { get: () => JSON.parse('{') }),
      (_, context) => {
        void context.nack({ deadLetter: true, reason: '\ud800' });
        throw '\udfff';
      },
      async (_, context) => {
        await context.ack();
        throw new Error('after ack');
      },
    ];
    for (const [n, handler] of bad.entries())
      await bus.subscribe(`t.${n}`, handler, { consumerTimeout: 50, retry: { maxAttempts: 1, initialDelay: 1 } });
    let good = 0;
    await bus.subscribe('good', () => void good++);
    const wrong = [{ a: 1n }, () => 1, 'x'.repeat(1 << 21)];
    const refused = await Promise.all(wrong.map((data) => bus.publish('t.0', data).catch((error) => error.code)));
    for (let n = 0; n < bad.length; n++) await bus.publish(`t.${n}`, n);
    await bus.publish('good', 1);
    while (good === 0 || (await bus.deadLetters.count()) < 5) await new Promise((resolve) => setTimeout(resolve, 10));
    await bus.disconnect({ drainTimeoutMs: 0 });
    print({ good, refused });
  },
};

void ways[how]().then(() => print({ done: true }));

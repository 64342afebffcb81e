/**
 * Subscribes and prints a line for each delivery. The argument is JSON:
 * { redis, pattern, options, handler } with handler
 * - 'succeed'
 * - 'fail': it throws each time
 * - 'fail-some': it throws for those data for which `fails` below says so
 * - 'hold': it never ends
 * - 'block': it blocks the JavaScript thread for `blockMs`, once
 * - 'exit': it ends the process with code 7
 * - 'disconnect': it disconnects the bus
 */
const { RedisEventBus } = require('@bluefly/ossa');
const { fails } = require('./seeded.cjs');

const { redis, pattern, options, handler, blockMs, workMs } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let blocked = false;

async function handle(bus, event) {
  const about = { type: event.metadata.type, n: event.data?.n, attempt: event.metadata.attempt };
  switch (handler) {
    case 'fail':
      print({ failed: true, ...about });
      throw new Error('as told');
    case 'fail-some':
      if (workMs) await pause(workMs);
      if (fails(event.data.n, event.metadata.attempt)) throw new Error(`failure of ${event.data.n}`);
      print(about);
      return;
    case 'hold':
      print(about);
      return new Promise(() => undefined);
    case 'block':
      print({ started: true, ...about });
      if (!blocked) {
        blocked = true;
        for (const end = Date.now() + blockMs; Date.now() < end; );
      }
      print({ finished: true, ...about });
      return;
    case 'exit':
      process.exit(7);
      return;
    case 'disconnect':
      await bus.disconnect();
      print({ disconnected: true });
      return;
    default:
      if (workMs) await pause(workMs);
      print(about);
  }
}

(async () => {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  const subscription = await bus.subscribe(pattern, (event) => handle(bus, event), options);
  process.on('SIGTERM', () => void bus.disconnect());
  print({ ready: true, consumer: subscription.consumer });
})();

/**
 * Answers requests: what came, and by whom. The argument is JSON: { redis, pattern, options, workMs }.
 */
const { RedisEventBus } = require('@bluefly/ossa');

const { redis, pattern, options, workMs } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

(async () => {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  const answer = async ({ data }) => {
    if (workMs) await new Promise((resolve) => setTimeout(resolve, workMs));
    return { n: data.n, by: process.pid };
  };
  await bus.subscribe(pattern, answer, options);
  print({ ready: true });
  process.on('SIGTERM', () => void bus.disconnect());
})();

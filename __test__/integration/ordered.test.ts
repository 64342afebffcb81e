/** Order over processes: each key keeps it while members of its group fail, are killed and replaced. */
import Redis from 'ioredis';
import { endAll, type Program, start } from '../support/children';
import { pause, until } from '../support/wait';
import { quick, redisUrl, useWorld } from '../support/world';

afterEach(endAll);
const world = useWorld('redis');

type Step = [step: 'begin' | 'fail' | 'end', key: string, n: number, pid: number];

/** What is wrong with the order, and how many events have ended. */
function check(steps: readonly Step[]): { wrong: string[]; done: number; again: number } {
  const ended = new Map<string, number>();
  const wrong: string[] = [];
  let again = 0;
  for (const [step, key, n] of steps) {
    const next = ended.get(key) ?? 0;
    if (step === 'begin' && n > next) wrong.push(`${key}: ${n} began before ${next} had ended`);
    if (step !== 'end') continue;
    if (n === next) ended.set(key, next + 1);
    else again++;
  }
  return { wrong, done: [...ended.values()].reduce((sum, count) => sum + count, 0), again };
}

test('100 keys keep their order over three processes, retries and SIGKILLs, with 8 partitions', async () => {
  const [keys, each] = [100, 40];
  const list = `${world.prefix}:course`;
  const record = new Redis(redisUrl());
  const bus = await world.bus();
  await bus.createStream('t', { maxLength: 100_000, retention: 'time', retentionValue: 3600, partitioning: 'hash', partitions: 8 });
  const options = { group: 'g', ordered: true, maxUnacknowledged: 30, retry: quick(50, 50) };
  const member = () => start('orderly.cjs', { redis: { url: redisUrl(), keyPrefix: world.prefix }, list, pattern: 't', options });
  const ready = (program: Program) => until(() => program.lines.length > 0, { timeoutMs: 20_000, show: program.stderr });
  const members = [member(), member(), member()];
  await Promise.all(members.map(ready));
  const read = async () => (await record.lrange(list, 0, -1)).map((text) => JSON.parse(text) as Step);
  try {
    for (let n = 0; n < each; n++) {
      const round = Array.from({ length: keys }, (_, k) => ({
        eventType: 't',
        data: { key: `k${k}`, k, n },
        options: { partitionKey: `k${k}` },
      }));
      await bus.publishBatch(round);
      if (n % 10 === 5) {
        // One is killed with events in its hands, and replaced.
        const [killed] = members.splice(0, 1) as [Program];
        killed.kill('SIGKILL');
        await killed.ended;
        members.push(member());
      }
      await pause(100);
    }
    await until(async () => check(await read()).done === keys * each, { timeoutMs: 90_000, everyMs: 500 });
    const { wrong, again } = check(await read());
    console.log(`${keys * each} events of ${keys} keys, four processes killed; handled again: ${again}`);
    expect(wrong).toEqual([]);
    await until(async () => (await bus.getStream('t'))?.stats.groups[0]?.pending === 0, { timeoutMs: 20_000 });
  } finally {
    record.disconnect();
  }
}, 180_000);

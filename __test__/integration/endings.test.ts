/** How programs end, and what they leave behind when they do not end their buses. */
import { endAll, start } from '../support/children';
import { connectTo, TestServer } from '../support/server';
import { pause, until, within } from '../support/wait';
import { redisUrl, useWorld } from '../support/world';

jest.setTimeout(60_000);
afterEach(endAll);

const world = useWorld('redis');
const redis = () => ({ url: redisUrl(), keyPrefix: world.prefix });

describe.each(['memory', 'redis'])('a program on %s', (kind) => {
  const run = (how: string, nodeOptions: string[] = []) =>
    start('ending.cjs', { redis: kind === 'memory' ? { url: 'memory://' } : redis(), how }, { nodeOptions });

  test.each([
    ['idle publisher', 0],
    ['publishes without await', 0],
    ['closed subscription', 0],
    ['disconnected', 0],
    ['process.exit', 3],
    ['wrong everywhere', 0],
  ])('%s: ends by itself with code %i', async (how, code) => {
    const program = run(how);
    expect(await within(30_000, how, program.ended)).toEqual({ code, signal: null });
    expect(program.lines.some((line) => line.done)).toBe(code === 0);
    if (how === 'publishes without await' && kind === 'redis') {
      expect((await (await world.bus()).getStream('t'))?.stats.messageCount).toBe(1000);
    }
    if (how === 'wrong everywhere') {
      expect(program.lines[0]).toEqual({ good: 1, refused: ['ERR_NOT_SERIALIZABLE', 'ERR_NOT_SERIALIZABLE', 'ERR_PAYLOAD_TOO_LARGE'] });
    } else {
      expect(program.stderr()).toBe('');
    }
  });

  test.each(['open subscription', 'paused subscription'])('%s: keeps Node alive', async (how) => {
    const program = run(how);
    await until(() => program.lines.some((line) => line.done));
    let over = false;
    void program.ended.then(() => {
      over = true;
    });
    await pause(2000);
    expect(over).toBe(false);
  });

  test('another realm: dates, errors, arrays and promises are those of the realm that uses the package', async () => {
    const program = run('another realm');
    expect(await within(30_000, 'the program', program.ended)).toEqual({ code: 0, signal: null });
    expect(program.lines[0]).toEqual({ date: true, list: true, data: true, error: true, promise: true, status: true });
  });
});

test('buses that were collected without disconnect leave no connections and no threads behind', async () => {
  const server = await TestServer.start();
  const client = connectTo(server.url);
  try {
    const program = start('ending.cjs', { redis: { url: server.url }, how: 'collected' }, { nodeOptions: ['--expose-gc'] });
    await until(() => program.lines.some((line) => line.collected), { timeoutMs: 20_000, show: program.stderr });
    // The last one may still be on its way out.
    await until(
      async () =>
        String(await client.client('LIST'))
          .trim()
          .split('\n').length <= 12,
      { timeoutMs: 15_000 },
    );
  } finally {
    client.disconnect();
    await server.stop();
  }
});

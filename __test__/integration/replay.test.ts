/** Replaying a long history: its length costs no memory. */
import { endAll, type Line, start } from '../support/children';
import { TestServer } from '../support/server';

jest.setTimeout(120_000);

/** OSSA_REPLAY_EVENTS makes it shorter where a machine is slow. */
const EVENTS = Number(process.env['OSSA_REPLAY_EVENTS'] ?? 1_000_000);
const GROWTH_MAX = 64 * 1024 * 1024;

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => {
  await endAll();
  await server.stop();
});

async function run(how: string): Promise<Line> {
  const program = start('replaying.cjs', { redis: { url: server.url }, how, events: EVENTS }, { nodeOptions: ['--expose-gc'] });
  expect(await program.ended).toEqual({ code: 0, signal: null });
  expect(program.stderr()).toBe('');
  return program.lines[0] as Line;
}

test(`${EVENTS} events are replayed in order, within 64 MB`, async () => {
  expect(await run('publish')).toEqual({ published: EVENTS });
  const told = await run('replay');
  expect(told).toMatchObject({ count: EVENTS, inOrder: true });
  expect(told['highest'] - told['before']).toBeLessThan(GROWTH_MAX);
});

/** A backup as docs/deployment.md says, and what a bus finds when it was restored. */
import { copyFileSync } from 'node:fs';
import { TestServer } from '../support/server';
import { until } from '../support/wait';
import { useWorld } from '../support/world';

jest.setTimeout(60_000);
const world = useWorld('redis');

const done = (server: TestServer, what: string) =>
  until(async () => String(await server.call('INFO', 'persistence')).includes(`${what}:0`));

test('a snapshot, restored with the append-only file off and then on, has what was not acknowledged, dead letters, and nothing later', async () => {
  const [server, restored] = await Promise.all([TestServer.start(), TestServer.start()]);
  try {
    const bus = await world.bus({ redis: { url: server.url } });
    const first = await bus.subscribe('order.*', ({ data }) => (data === 'bad' ? Promise.reject(new Error('no')) : undefined), {
      group: 'billing',
      errorStrategy: 'dlq',
    });
    for (const data of [1, 2, 3, 'bad']) await bus.publish('order.created', data);
    await until(async () => (await bus.deadLetters.count()) === 1);
    await until(async () => {
      const [group] = (await bus.getStream('order.created'))?.stats.groups ?? [];
      return group?.pending === 0 && group.lag === 0;
    });
    await first.close();
    for (const data of [4, 5, 6]) await bus.publish('order.created', data);

    await server.call('BGSAVE');
    await done(server, 'rdb_bgsave_in_progress');
    expect(await server.call('INFO', 'persistence')).toContain('rdb_last_bgsave_status:ok');
    await bus.publish('order.created', 7);
    await bus.disconnect();

    await restored.kill();
    copyFileSync(server.path('dump.rdb'), restored.path('dump.rdb'));
    await restored.start();
    await restored.call('CONFIG', 'SET', 'appendonly', 'yes');
    await done(restored, 'aof_rewrite_in_progress');
    await done(restored, 'aof_rewrite_scheduled');

    const after = await world.bus({ redis: { url: restored.url } });
    const got: unknown[] = [];
    await after.subscribe('order.*', ({ data }) => void got.push(data), { group: 'billing' });
    await after.publish('order.created', 8);
    await until(() => got.includes(8));
    expect(got).toEqual([4, 5, 6, 8]);
    expect(await after.deadLetters.count()).toBe(1);
    expect((await after.deadLetters.list()).items[0]?.event.data).toBe('bad');
  } finally {
    await world.end();
    await Promise.all([server.stop(), restored.stop()]);
  }
});

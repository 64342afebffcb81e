/** The cluster of the fault suite keeps its keys whatever the suite does to it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { startCluster, tags } from './cluster.mjs';

const keysATag = 120;

test('keys are there after moves of slots, failovers, and a master that was killed and came back', { timeout: 120_000 }, async () => {
  const cluster = await startCluster();
  try {
    const redis = async (...command) => {
      // Whoever has the slot: as a client without a map would find out.
      for (const node of await cluster.masters()) {
        const answer = await node.call(...command).catch((error) => error);
        if (!(answer instanceof Error)) return answer;
        if (!/^(MOVED|ASK)/.test(answer.message)) throw answer;
      }
      throw new Error(`no master takes ${command.join(' ')}`);
    };
    for (const tag of tags.slice(0, 3)) {
      const pairs = Array.from({ length: keysATag }, (_, n) => [`k:{${tag}}:${n}`, 'v']).flat();
      await redis('MSET', ...pairs);
    }
    const count = async (tag) => redis('EXISTS', ...Array.from({ length: keysATag }, (_, n) => `k:{${tag}}:${n}`));
    const all = async () => Promise.all(tags.slice(0, 3).map(count));
    for (const bucket of [0, 1, 2]) for (const to of [0, 1, 2]) await cluster.moveSlot(bucket, to);
    assert.deepEqual(await all(), [keysATag, keysATag, keysATag]);
    await cluster.failover(0);
    assert.deepEqual(await all(), [keysATag, keysATag, keysATag]);
    const [master] = await cluster.masters();
    await master.kill();
    await master.start();
    await master.ready();
    await cluster.ready();
    assert.deepEqual(await all(), [keysATag, keysATag, keysATag]);
  } finally {
    await cluster.stop();
  }
});

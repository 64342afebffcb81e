/** What it takes to begin, in processes of their own: `require` and connect, and the memory that a client at rest adds to Node.js. */
import { begin } from '../lib/children.mjs';
import { ossaEntry } from '../lib/ossa.mjs';
import { median } from '../lib/stats.mjs';

/** Starts of which the median counts, in each round. */
const starts = 5;
/** Connected, and then nothing to do, before its memory is looked at. */
const restMs = 500;

async function run(client, address, rest) {
  const { told, end } = begin('client.mjs', { client, entry: ossaEntry, address, restMs: rest });
  try {
    return await told();
  } finally {
    await end();
  }
}

const starting =
  (client) =>
  async ({ address }) => {
    const times = [];
    while (times.length < starts) times.push((await run(client, address, 0)).tookMs);
    return { value: median(times) };
  };

const resting =
  (client) =>
  async ({ address }) => {
    const [nothing, with_] = await Promise.all([run('nothing', address, restMs), run(client, address, restMs)]);
    return { value: (with_.rss - nothing.rss) / 1e6 };
  };

export const start = {
  name: 'require and connect, in a new process',
  unit: 'ms',
  sides: { ossa: starting('ossa'), ioredis: starting('ioredis') },
};

export const memory = {
  name: 'memory (RSS) added to Node.js, connected and at rest',
  unit: 'MB',
  sides: { ossa: resting('ossa'), ioredis: resting('ioredis') },
};

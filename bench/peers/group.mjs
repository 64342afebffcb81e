/** What the peers that are plain clients have in common: entries of one stream, read as a member of a group. */

export const stream = 'plain';
export const group = 'group';
export const consumer = 'reader';
export const blockMs = 1_000;

/**
 * Reads until `enough()`, or until it is closed: handlers of one reply are called together, then one XACK for all of them, which the next
 * read does not wait for. `read()` resolves with entries or nothing, `parse(entry)` gives { id, meta, data }, `ack(ids)` acknowledges.
 * `ended` rejects when something failed; `close()` resolves once all is acknowledged.
 */
export function readGroup({ read, parse, ack }, handler, enough) {
  let closed = false;
  const loop = async () => {
    const acks = new Set();
    while (!closed && !enough()) {
      const entries = await read();
      if (!entries?.length) continue;
      const ids = [];
      await Promise.all(
        entries.map((entry) => {
          const { id, meta, data } = parse(entry);
          ids.push(id);
          return handler({ metadata: JSON.parse(meta), data: JSON.parse(data) });
        }),
      );
      const acked = ack(ids);
      acks.add(acked);
      acked.then(
        () => acks.delete(acked),
        (error) => error,
      );
    }
    await Promise.all(acks);
  };
  const ended = loop();
  ended.catch(() => undefined);
  return {
    ended,
    close: () => {
      closed = true;
      return ended;
    },
  };
}

/** How many entries were added to streams of this pattern, and how many of them a group has not acknowledged. */
export async function streamState(redis, pattern) {
  const state = { stored: 0, unsettled: 0 };
  for (const key of await redis.keys(pattern)) {
    const added = pairs(await redis.xinfo('STREAM', key))['entries-added'];
    const groups = (await redis.xinfo('GROUPS', key)).map(pairs);
    state.stored += added;
    if (groups.length === 0) state.unsettled += added;
    for (const about of groups) state.unsettled += about.pending + added - about['entries-read'];
  }
  return state;
}

function pairs(list) {
  const out = {};
  for (let i = 0; i < list.length; i += 2) out[list[i]] = list[i + 1];
  return out;
}

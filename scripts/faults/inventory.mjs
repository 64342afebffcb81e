/** What Redis holds of a run: asked for once nothing moves any more. */

/** All keys of a kind, over all nodes: `<prefix>:{tag}:<kind>:…`. */
async function keysOf(client, prefix, kind) {
  const keys = [];
  let cursor = '0';
  do {
    const [next, page] = await client.scan(cursor, 'MATCH', `${prefix}:{*}:${kind}:*`, 'COUNT', 1000);
    keys.push(...page);
    cursor = next;
  } while (cursor !== '0');
  return [...new Set(keys)].sort();
}

const unescaped = (name) => name.replaceAll('%3A', ':');
/** `T:q[:lane]` of a key's end. */
const typeOf = (key, kind) => unescaped(key.split(`:${kind}:`)[1].split(':')[0]);

/**
 * What is left to do: [{ what, key, group, count, … }], empty when all is done. Read without entries, so that it can be
 * asked again and again.
 */
export async function outstanding(client, prefix) {
  const found = [];
  for (const key of await keysOf(client, prefix, 'stream')) {
    const last = (await client.xrevrange(key, '+', '-', 'COUNT', 1))[0]?.[0];
    for (const group of (await client.xinfo('GROUPS', key)).map(pairs)) {
      if (group.pending > 0) found.push({ what: 'pending', key, group: group.name, count: group.pending });
      const unread =
        last && group['last-delivered-id'] !== last && (await client.xrange(key, `(${group['last-delivered-id']}`, '+', 'COUNT', 1)).length;
      if (unread) found.push({ what: 'not delivered', key, group: group.name, count: group.lag ?? 1, from: group['last-delivered-id'] });
    }
  }
  for (const [kind, what] of [
    ['retry', 'waits for a retry'],
    ['delayed', 'delayed'],
  ])
    for (const key of await keysOf(client, prefix, kind)) {
      const count = await client.zcard(key);
      if (count > 0) found.push({ what, key, count, first: (await client.zrange(key, 0, 0, 'WITHSCORES')).join(' ') });
    }
  return found;
}

/** { entries: [{ key, sid, type, id, k }], dead: [{ type, group, id, reason, k }], streams: [{ key, type, added, groups }] }. */
export async function inventory(client, prefix) {
  const entries = [];
  const dead = [];
  const streams = [];
  for (const key of await keysOf(client, prefix, 'stream')) {
    const type = typeOf(key, 'stream');
    const info = pairs(await client.xinfo('STREAM', key));
    const groups = (await client.xinfo('GROUPS', key)).map(pairs);
    streams.push({ key, type, length: info.length, added: info['entries-added'], groups: groups.map(({ name }) => name) });
    for await (const [sid, fields] of scan(client, key)) {
      const entry = pairs(fields);
      entries.push({ key, sid, type, id: JSON.parse(entry.meta).id, k: keyOf(entry.data) });
    }
  }
  for (const key of await keysOf(client, prefix, 'dlq'))
    for await (const [, fields] of scan(client, key)) {
      const letter = pairs(fields);
      dead.push({
        type: typeOf(key, 'dlq'),
        group: letter.group,
        reason: letter.reason,
        id: JSON.parse(letter.meta).id,
        k: keyOf(letter.data),
      });
    }
  return { entries, dead, streams };
}

/** The name of an event by its publisher; other events, such as system.shutdown, have none. */
const keyOf = (data) => JSON.parse(data)?.k;

async function* scan(client, key) {
  for (let from = '-'; ; ) {
    const page = await client.xrange(key, from, '+', 'COUNT', 500);
    yield* page;
    if (page.length < 500) return;
    from = `(${page.at(-1)[0]}`;
  }
}

const pairs = (list) => Object.fromEntries(Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i], list[2 * i + 1]]));

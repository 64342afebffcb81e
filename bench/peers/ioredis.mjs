/** ioredis: one connection writes, another one reads. */
import { envelope } from '../lib/event.mjs';
import { openClient } from '../lib/sides.mjs';
import { blockMs, consumer, group, readGroup, stream, streamState } from './group.mjs';

/** Entries a call: more make it slower, as it parses a whole reply before it hands over the first entry. */
const count = 100;

const fields = (i) => {
  const { meta, data } = envelope(i);
  return ['meta', meta, 'data', data];
};

const parse = ([id, [, meta, , data]]) => ({ id, meta, data });

function peer(name, options) {
  return {
    name,
    share: 0.5,
    async open({ address, redis }) {
      const writer = await openClient(address, options);
      const clients = [writer];
      return {
        publish: (i) => writer.xadd(stream, '*', ...fields(i)),
        async publishBatch(first, size) {
          const pipeline = writer.pipeline();
          for (let i = 0; i < size; i++) pipeline.xadd(stream, '*', ...fields(first + i));
          for (const [error] of await pipeline.exec()) if (error) throw error;
        },
        async subscribe(handler, enough) {
          const reader = await openClient(address);
          clients.push(reader);
          await reader.xgroup('CREATE', stream, group, '0', 'MKSTREAM');
          const read = async () => {
            const reply = await reader.xreadgroup('GROUP', group, consumer, 'COUNT', count, 'BLOCK', blockMs, 'STREAMS', stream, '>');
            return reply?.[0][1];
          };
          return readGroup({ read, parse, ack: (ids) => reader.xack(stream, group, ...ids) }, handler, enough);
        },
        state: () => streamState(redis, stream),
        close: () => clients.forEach((client) => void client.disconnect()),
      };
    },
  };
}

export const ioredis = peer('ioredis', {});

/** With its own gathering of the commands of one turn. */
export const ioredisAutoPipelining = peer('ioredis, auto-pipelining', { enableAutoPipelining: true });

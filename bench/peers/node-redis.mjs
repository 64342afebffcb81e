/** node-redis: one connection writes, another one reads. It gathers commands of one turn by itself. */
import { createClient } from 'redis';
import { envelope } from '../lib/event.mjs';
import { blockMs, consumer, group, readGroup, stream, streamState } from './group.mjs';

/** Entries a call: the more, the faster, up to about this many. */
const count = 1_000;

const parse = ({ id, message }) => ({ id, meta: message.meta, data: message.data });

async function connect(address) {
  const client = createClient({ url: address });
  client.on('error', (error) => console.error('node-redis: %s', error.message));
  await client.connect();
  return client;
}

export const nodeRedis = {
  name: 'node-redis',
  share: 0.4,
  async open({ address, redis }) {
    const writer = await connect(address);
    const clients = [writer];
    return {
      publish: (i) => writer.xAdd(stream, '*', envelope(i)),
      publishBatch(first, size) {
        const pipeline = writer.multi();
        for (let i = 0; i < size; i++) pipeline.xAdd(stream, '*', envelope(first + i));
        return pipeline.execAsPipeline();
      },
      async subscribe(handler, enough) {
        const reader = await connect(address);
        clients.push(reader);
        await reader.xGroupCreate(stream, group, '0', { MKSTREAM: true });
        const from = { key: stream, id: '>' };
        const read = async () => (await reader.xReadGroup(group, consumer, from, { COUNT: count, BLOCK: blockMs }))?.[0].messages;
        return readGroup({ read, parse, ack: (ids) => reader.xAck(stream, group, ids) }, handler, enough);
      },
      state: () => streamState(redis, stream),
      close: () => clients.forEach((client) => void client.destroy()),
    };
  },
};

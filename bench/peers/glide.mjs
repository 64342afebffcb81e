/** valkey-glide: one client writes, another one reads, as its documentation asks of blocking commands. */
import { Batch, GlideClient } from '@valkey/valkey-glide';
import { envelope } from '../lib/event.mjs';
import { blockMs, consumer, group, readGroup, stream, streamState } from './group.mjs';

/** Entries a call: the more, the faster, up to about this many. */
const count = 1_000;

const parse = ([id, [[, meta], [, data]]]) => ({ id, meta, data });
const fields = (i) => Object.entries(envelope(i));

function connect(address) {
  const { hostname: host, port } = new URL(address);
  // Its bound on requests in flight is 1,000 unless given: as many as are in flight here.
  return GlideClient.createClient({ addresses: [{ host, port: Number(port) }], requestTimeout: 5_000, inflightRequestsLimit: 10_000 });
}

export const glide = {
  name: 'valkey-glide',
  share: 0.4,
  async open({ address, redis }) {
    const writer = await connect(address);
    const clients = [writer];
    return {
      publish: (i) => writer.xadd(stream, fields(i)),
      publishBatch(first, size) {
        const batch = new Batch(false);
        for (let i = 0; i < size; i++) batch.xadd(stream, fields(first + i));
        return writer.exec(batch, true);
      },
      async subscribe(handler, enough) {
        const reader = await connect(address);
        clients.push(reader);
        await reader.xgroupCreate(stream, group, '0', { mkStream: true });
        const read = async () => {
          const reply = await reader.xreadgroup(group, consumer, { [stream]: '>' }, { count, block: blockMs });
          return reply && Object.entries(reply[0].value);
        };
        return readGroup({ read, parse, ack: (ids) => reader.xack(stream, group, ids) }, handler, enough);
      },
      state: () => streamState(redis, stream),
      close: () => clients.forEach((client) => void client.close()),
    };
  },
};

/** This bus, with its default configuration. */
import { data, type } from '../lib/event.mjs';
import { openBus } from '../lib/sides.mjs';
import { streamState } from './group.mjs';

/** `subscription`: options that are not the defaults. */
function peer(name, subscription) {
  return {
    name,
    async open({ address, redis }) {
      const bus = await openBus(address);
      return {
        publish: (i) => bus.publish(type, data(i)),
        publishBatch: (first, size) =>
          bus.publishBatch(Array.from({ length: size }, (_, i) => ({ eventType: type, data: data(first + i) }))),
        async subscribe(handler) {
          const opened = await bus.subscribe(type, handler, subscription);
          const ended = new Promise((_, reject) => {
            bus.on('event:failed', ({ error }) => reject(error));
          });
          ended.catch(() => undefined);
          return { ended, close: () => opened.close() };
        },
        state: () => streamState(redis, `bench:*:stream:${type}:*`),
        close: () => bus.disconnect(),
      };
    },
  };
}

export const ossa = peer('ossa');

/** As many events under way as the peers that are plain clients have. */
export const ossaWide = peer('ossa, maxUnacknowledged 1,000', { maxUnacknowledged: 1_000 });

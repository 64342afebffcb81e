/** What an event costs by its size, published and consumed at once: CPU time of the JavaScript thread, the engine and the server. */
import { pump } from '../lib/counting.mjs';
import { countCpu } from '../lib/cpu.mjs';
import { data, type } from '../lib/event.mjs';
import { signal } from '../lib/run.mjs';
import { withBus } from '../lib/sides.mjs';
import { sideOf, sizes } from '../lib/sizes.mjs';

const ahead = 100;
/** Bytes that are published at most, so that large events do not take most of the time. */
const bytesMax = 100e6;

/** Records as other events have them, filled up to so many bytes of JSON. */
function body(bytes) {
  const records = [];
  // A comma is counted for each record; the first one has none.
  let left = bytes + 1 - JSON.stringify({ records, note: '' }).length;
  for (;;) {
    const record = data(records.length);
    const length = JSON.stringify(record).length + 1;
    if (length > left) break;
    records.push(record);
    left -= length;
  }
  return { records, note: 'x'.repeat(records.length === 0 ? left - 1 : left) };
}

const measure =
  (bytes) =>
  async ({ address, redis, count }) =>
    withBus(address, async (bus) => {
      const payload = body(bytes);
      const events = Math.min(count / 2, bytesMax / bytes);
      const { promise, done, fail } = signal();
      const more = pump(events, ahead, () => bus.publish(type, payload), fail);
      const cpu = await countCpu(redis);
      let handled = 0;
      const handler = async (event) => {
        if (event.data.note.length !== payload.note.length) fail(new Error('an event without its data'));
        if (++handled === events) done();
        more(handled);
      };
      await bus.subscribe(type, handler, { maxUnacknowledged: ahead });
      more(0);
      await promise;
      const parts = await cpu(events);
      return { value: Object.values(parts).reduce((sum, one) => sum + one, 0), cpu: parts };
    });

export const payload = {
  name: 'CPU of an event by its size, published and consumed',
  unit: 'µs',
  ratios: false,
  sides: Object.fromEntries(sizes.map((bytes) => [sideOf(bytes), measure(bytes)])),
};

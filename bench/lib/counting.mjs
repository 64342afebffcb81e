/** Handlers that count, and the time until the last event was handled. */
import { performance } from 'node:perf_hooks';
import { countCpu } from './cpu.mjs';
import { signal } from './run.mjs';

/**
 * Starts the clock for `count` events. `handler` takes one, `onEvent(handled)` is called after it; `result(ended)` resolves with events a
 * second and what each cost once all are handled, and rejects when an event came without its data or `ended` rejects.
 */
export async function counter(redis, count, onEvent = () => {}) {
  const cpu = await countCpu(redis);
  const { promise, done, fail } = signal();
  const start = performance.now();
  let handled = 0;
  let end = 0;
  return {
    handler: async ({ data, metadata }) => {
      if (data.userId === undefined || metadata.id === undefined) fail(new Error('an event without its data or its envelope'));
      if (++handled === count) {
        end = performance.now();
        done();
      }
      onEvent(handled);
    },
    enough: () => handled >= count,
    fail,
    result: async (ended) => {
      await Promise.race([promise, ended.then(() => promise)]);
      return { value: count / ((end - start) / 1e3), cpu: await cpu(count) };
    },
  };
}

/**
 * Keeps publishing so that no more than `ahead` events are published and not yet handled: `more(handled)` is to be called after each. A
 * stream that is handled as it comes is measured so, not a backlog.
 */
export function pump(count, ahead, publish, onError) {
  let published = 0;
  return (handled) => {
    if (published - handled > ahead / 2) return;
    while (published < count && published - handled < ahead) publish(published++).catch(onError);
  };
}

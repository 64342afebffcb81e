/** Doing something very often, and knowing how long it took. */
import { performance } from 'node:perf_hooks';
import { countCpu } from './cpu.mjs';

/** `count` calls, `width` of them under way at any time. */
export async function lanes({ count, width }, call) {
  let next = 0;
  const lane = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

/** The same; resolves with calls a second, or what is done in `perCall`, and the CPU time of one. */
export async function flight({ redis, count, width, perCall = 1 }, call) {
  const cpu = await countCpu(redis);
  const start = performance.now();
  await lanes({ count, width }, call);
  const seconds = (performance.now() - start) / 1e3;
  return { value: (count * perCall) / seconds, cpu: await cpu(count * perCall) };
}

/** `count` calls, each after the one before; resolves with the time of each in µs. */
export async function oneByOne(count, call) {
  const times = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await call(i);
    times[i] = (performance.now() - start) * 1e3;
  }
  return times;
}

/** `call(i)` at a steady rate, until `count` are made. */
export function paced(count, perSecond, call) {
  const start = performance.now();
  let made = 0;
  return new Promise((resolve) => {
    const tick = () => {
      const due = Math.min(count, Math.floor(((performance.now() - start) * perSecond) / 1e3));
      while (made < due) call(made++);
      if (made < count) setTimeout(tick, 1);
      else resolve();
    };
    tick();
  });
}

/** ns of a clock that all processes of the machine share. */
export const monotonicNs = () => Number(process.hrtime.bigint());

/** A promise, and what resolves and rejects it. */
export function signal() {
  let done;
  let fail;
  const promise = new Promise((resolve, reject) => {
    done = resolve;
    fail = reject;
  });
  promise.catch(() => undefined);
  return { promise, done, fail };
}

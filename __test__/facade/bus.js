/** A façade over the fake addon. */
'use strict';

process.env.OSSA_ADDON = require.resolve('./fakeAddon');
const fake = require('./fakeAddon');
const ossa = require('../../dist');

/** A connected RedisEventBus and the fake below it. */
async function connected(config) {
  const bus = new ossa.RedisEventBus(config);
  await bus.connect();
  return { bus, native: fake.buses.at(-1) };
}

/** Two turns of the event loop: all that was scheduled has happened, answers of the fake included. */
async function turns() {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` holds. */
async function until(condition, ms = 20_000) {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never held: ${condition}`);
    await sleep(2);
  }
}

module.exports = { ...ossa, fake, connected, turns, sleep, until };

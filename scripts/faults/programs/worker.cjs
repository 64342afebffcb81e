/** What publishers and consumers have in common: their task, their records, their bus. */
const { openSync, writeSync } = require('node:fs');
const { RedisEventBus } = require('@bluefly/ossa');

/** The argument: { seed, name, records, bus, … }. */
const task = JSON.parse(process.argv[2]);

const file = openSync(task.records, 'a');

/** ms of a clock that all processes share and that never jumps. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

/**
 * Writes a line of this process's records, at once: what the process did before it was killed is there. One write a
 * line, so that a line is there or not.
 */
const record = (line) => writeSync(file, `${JSON.stringify({ t: now(), ...line })}\n`);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Until it succeeds: workers are started while Redis is away, too. */
async function surely(what, action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      record({ e: 'refused', what, code: error.code, message: String(error.message).slice(0, 200) });
      if (!error.retryable && error.code !== 'ERR_CONNECTION') throw error;
      await pause(100);
    }
  }
}

/** A connected bus whose announcements are recorded. */
async function openBus() {
  const say = (level) => (message) => record({ e: 'log', level, message: String(message).slice(0, 500) });
  const logger = { debug() {}, info() {}, warn: say('warn'), error: say('error') };
  const bus = new RedisEventBus({ ...task.bus, logger });
  bus.on('data:loss', (loss) => record({ e: 'loss', loss }));
  bus.on('event:dead-lettered', ({ eventType, eventId, group, reason, attempt }) =>
    record({ e: 'dead', type: eventType, id: eventId, group, reason, attempt }),
  );
  bus.on('event:expired', ({ eventType, eventId, group }) => record({ e: 'expired', type: eventType, id: eventId, group }));
  bus.on('error', (error) => record({ e: 'error', code: error.code, message: String(error.message).slice(0, 300) }));
  await surely('connect', () => bus.connect());
  return bus;
}

module.exports = { task, now, record, pause, surely, openBus };

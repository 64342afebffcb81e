/**
 * A process of a measurement: an OSSAEventBus that takes its turn in orchestration. Messages: { await: <count> }: answers once it knows so
 * many agents; { first, count, width }: distributes tasks, so many at a time, and answers { beganNs, answeredNs }. Ends with the channel.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createOSSAEventBus } from '../lib/ossa.mjs';
import { monotonicNs } from '../lib/run.mjs';

const { config } = JSON.parse(process.argv[2]);
const bus = await createOSSAEventBus(null, config);
process.once('disconnect', () => process.exit());

async function distribute({ first, count, width }) {
  const beganNs = monotonicNs();
  let next = 0;
  const lane = async () => {
    while (next < count) {
      const id = `t${first + next++}`;
      await bus.distributeTask({ id, type: 'nothing', priority: 1, requiredCapabilities: ['work'], data: { number: 1 } });
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  return { beganNs, answeredNs: monotonicNs() };
}

process.on('message', async (message) => {
  if (message.await === undefined) return process.send(await distribute(message));
  while (bus.getAgents().length < message.await) await sleep(20);
  process.send('all');
});
process.send('ready');

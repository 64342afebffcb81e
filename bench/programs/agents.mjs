/** A process of a measurement: agents that return at once. Tells how many tasks they did, and when the last one was told. Ends with the channel. */
import { createAgent, RedisEventBus } from '../lib/ossa.mjs';
import { monotonicNs } from '../lib/run.mjs';

const TELL_MS = 20;
const AT_ONCE = 50;

const { config, agents, maxTasks } = JSON.parse(process.argv[2]);
const bus = new RedisEventBus(config);
await bus.connect();
process.once('disconnect', () => process.exit());

let done = 0;
let told = 0;
let lastNs = 0;
const ids = [...agents];
const make = async () => {
  for (let agentId = ids.pop(); agentId !== undefined; agentId = ids.pop()) {
    const agent = await createAgent(bus, { agentId, agentType: 'worker', capabilities: ['work'], maxTasks, handler: () => null });
    agent.on('task:completed', () => {
      done++;
      lastNs = monotonicNs();
    });
  }
};
await Promise.all(Array.from({ length: AT_ONCE }, make));
setInterval(() => {
  if (done === told) return;
  told = done;
  process.send({ done, lastNs });
}, TELL_MS);
process.send('ready');

/**
 * A process of a measurement: an OSSAEventBus beside a ServiceRegistry, all of it by default. { width, first, count } publishes so many events
 * of the types in turn, or sends them from one project to another where these are given; the answer is { beganNs }. Ends with the channel.
 */
import { data } from '../lib/event.mjs';
import { createOSSAEventBus, ServiceRegistry } from '../lib/ossa.mjs';
import { monotonicNs } from '../lib/run.mjs';

const { redis, types, sender, contract } = JSON.parse(process.argv[2]);
const registry = new ServiceRegistry({ redis });
const bus = await createOSSAEventBus(registry, { eventBus: { redis } });
if (sender !== undefined) await bus.registerProject(sender);
if (contract !== undefined)
  await bus.registerContract({ ...contract, metadata: { ...contract.metadata, createdAt: new Date(), updatedAt: new Date() } });

process.once('disconnect', async () => {
  await bus.shutdown();
  await registry.close();
});

const send = (i) => {
  const type = types[i % types.length];
  if (sender === undefined) return bus.publish(type, data(i));
  return bus.sendCrossProjectMessage('sender', 'receiver', type, data(i));
};

process.on('message', async ({ width, first, count }) => {
  const beganNs = monotonicNs();
  let next = first;
  const lane = async () => {
    while (next < first + count) await send(next++);
  };
  await Promise.all(Array.from({ length: width }, lane));
  process.send({ beganNs });
});
process.send('ready');

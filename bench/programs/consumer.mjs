/**
 * A process of a measurement: an OSSAEventBus beside a ServiceRegistry, all of it by default, that handles what comes of a pattern, or comes to
 * a project where one is given. Tells how many it handled, and when the last one was. Ends with the channel.
 */
import { createOSSAEventBus, ServiceRegistry } from '../lib/ossa.mjs';
import { monotonicNs } from '../lib/run.mjs';

const tellMs = 20;

const { redis, pattern, receiver, options } = JSON.parse(process.argv[2]);
const registry = new ServiceRegistry({ redis });
const bus = await createOSSAEventBus(registry, { eventBus: { redis } });

let handled = 0;
let told = 0;
let lastNs = 0;
const handler = async () => {
  handled++;
  lastNs = monotonicNs();
};
if (receiver === undefined) {
  await bus.subscribe(pattern, handler, options);
} else {
  await bus.registerProject(receiver);
  await bus.setupCrossProjectHandler(receiver.projectId, pattern, handler, { ...options, requireSignatureValidation: true });
}

const telling = setInterval(() => {
  if (handled === told) return;
  told = handled;
  process.send({ handled, lastNs });
}, tellMs);
process.once('disconnect', async () => {
  clearInterval(telling);
  await bus.shutdown();
  await registry.close();
});
process.send('ready');

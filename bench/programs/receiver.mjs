/** The other process of a measurement: handles messages to a project and tells when each came. Ends with the channel. */
import { createOSSAEventBus } from '../lib/ossa.mjs';
import { monotonicNs } from '../lib/run.mjs';

const { config, project, count, warmUp } = JSON.parse(process.argv[2]);
const bus = await createOSSAEventBus(null, config);
process.once('disconnect', () => bus.shutdown());
await bus.registerProject(project);

const arrived = new Float64Array(count);
let number = 0;
let before;
const handler = ({ payload }) => {
  arrived[payload.data.number] = monotonicNs();
  number++;
  if (number === warmUp) before = process.cpuUsage();
  if (number !== count) return;
  const { user, system } = process.cpuUsage(before);
  process.send({ arrived, cpuUs: user + system });
};
await bus.setupCrossProjectHandler(project.projectId, '**', handler, { requireSignatureValidation: true });
process.send('ready');

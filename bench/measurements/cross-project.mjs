/**
 * From the call of sendCrossProjectMessage() in one process to the call of the handler in another, at 1,000 messages a second: signed,
 * held against a contract on both sides, with audit records of sending and delivery.
 */
import { begin } from '../lib/children.mjs';
import { countCpu } from '../lib/cpu.mjs';
import { data, type } from '../lib/event.mjs';
import { createOSSAEventBus } from '../lib/ossa.mjs';
import { contract, project } from '../lib/projects.mjs';
import { monotonicNs, paced } from '../lib/run.mjs';
import { quantile } from '../lib/stats.mjs';

const perSecond = 1_000;
/** Messages at the beginning that are not counted. */
const warmUp = 500;

async function measure({ address, redis, seconds }) {
  const count = warmUp + seconds * perSecond;
  const config = { eventBus: { redis: { url: address, keyPrefix: 'bench' } } };
  const { told, end } = begin('receiver.mjs', { config, project: project('receiver'), count, warmUp });
  const bus = await createOSSAEventBus(null, config);
  try {
    await bus.registerProject(project('sender'));
    await bus.registerContract(contract([type]));
    await told();
    const arriving = told();
    arriving.catch(() => undefined);
    const sent = new Float64Array(count);
    let cpu;
    let failed;
    await paced(count, perSecond, (i) => {
      if (i === warmUp) cpu = countCpu(redis);
      sent[i] = monotonicNs();
      bus.sendCrossProjectMessage('sender', 'receiver', type, data(i)).catch((error) => {
        failed ??= error;
      });
    });
    const { arrived, cpuUs } = await arriving;
    if (failed !== undefined) throw failed;
    const sender = await (await cpu)(count - warmUp);
    const took = arrived.map((at, i) => (at - sent[i]) / 1e3).subarray(warmUp);
    return {
      value: quantile(took, 0.5),
      p95: quantile(took, 0.95),
      p99: quantile(took, 0.99),
      cpu: { ...sender, receiver: cpuUs / (count - warmUp) },
    };
  } finally {
    await Promise.all([end(), bus.shutdown()]);
  }
}

export const crossProject = {
  name: 'message between projects to handler in another process at 1,000/s, p50',
  unit: 'µs',
  sides: { ossa: measure },
};

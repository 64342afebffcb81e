/**
 * From the call of sendCrossProjectMessage() in one process to the call of the handler in another, at 1,000 messages a second: signed,
 * held against a contract on both sides, with audit records of sending and delivery.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { countCpu } from '../lib/cpu.mjs';
import { data } from '../lib/event.mjs';
import { monotonicNs, paced } from '../lib/run.mjs';
import { quantile } from '../lib/stats.mjs';

const require = createRequire(import.meta.url);
const { createOSSAEventBus } = require('@bluefly/ossa');

const perSecond = 1_000;
/** Messages at the beginning that are not counted. */
const warmUp = 500;
const receiver = join(import.meta.dirname, '../lib/receiver.mjs');

const project = (projectId) => ({
  projectId,
  name: projectId,
  namespace: 'bench',
  allowedEventTypes: ['**'],
  allowedTargets: ['*'],
  credentials: { apiKey: `key of ${projectId}`, secret: `only for measuring: ${projectId}` },
});

const text = { type: 'string', minLength: 1 };
const contract = () => ({
  name: 'users',
  version: '1.0.0',
  sourceProject: 'sender',
  targetProjects: ['receiver'],
  eventTypes: ['user.created'],
  schema: {
    type: 'object',
    required: ['userId', 'email', 'number', 'tags', 'nested'],
    additionalProperties: false,
    properties: {
      userId: text,
      email: { type: 'string', format: 'email' },
      number: { type: 'integer', minimum: 0 },
      tags: { type: 'array', items: text },
      nested: { type: 'object', properties: { ok: { type: 'boolean' }, score: { type: 'number' }, note: text } },
    },
  },
  metadata: { description: 'what is measured', author: 'bench', createdAt: new Date(), updatedAt: new Date() },
});

async function measure({ address, redis, seconds }) {
  const count = warmUp + seconds * perSecond;
  const config = { eventBus: { redis: { url: address, keyPrefix: 'bench' } } };
  const child = fork(receiver, [JSON.stringify({ config, project: project('receiver'), count, warmUp })], { serialization: 'advanced' });
  const ended = once(child, 'exit');
  const bus = await createOSSAEventBus(null, config);
  try {
    await bus.registerProject(project('sender'));
    await bus.registerContract(contract());
    await once(child, 'message');
    const arriving = once(child, 'message');
    const sent = new Float64Array(count);
    let cpu;
    let failed;
    await paced(count, perSecond, (i) => {
      if (i === warmUp) cpu = countCpu(redis);
      sent[i] = monotonicNs();
      bus.sendCrossProjectMessage('sender', 'receiver', 'user.created', data(i)).catch((error) => {
        failed ??= error;
      });
    });
    const [{ arrived, cpuUs }] = await Promise.race([
      arriving,
      ended.then(([code]) => Promise.reject(new Error(`the receiver ended with code ${code}`))),
    ]);
    if (failed !== undefined) throw failed;
    const sender = await (await cpu)(count - warmUp);
    const took = arrived.map((at, i) => (at - sent[i]) / 1e3).subarray(warmUp);
    const receiving = cpuUs / (count - warmUp);
    return {
      value: quantile(took, 0.5),
      p95: quantile(took, 0.95),
      p99: quantile(took, 0.99),
      cpu: { javascript: sender.javascript, process: sender.process, receiver: receiving, server: sender.server },
    };
  } finally {
    child.disconnect();
    await Promise.all([ended, bus.shutdown()]);
  }
}

export const crossProject = {
  name: 'message between projects to handler in another process at 1,000/s, p50',
  unit: 'µs',
  sides: { ossa: measure },
};

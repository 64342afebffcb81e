// A worker: a few agents that do the tasks they are given. main.mjs starts it as a process of its own; at SIGTERM its agents finish what
// they do, give back the rest, and the process ends.
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { createAgent, RedisEventBus } from '@bluefly/ossa';
import { SKILLS } from './plan.mjs';

/** The agents of a worker, on a connected bus. */
export function startAgents(bus, { name, msPerEffort, types }) {
  return Promise.all(
    types.map((type, i) =>
      createAgent(bus, {
        agentId: `${name}-${type}-${i + 1}`,
        agentType: type,
        capabilities: SKILLS[type],
        handler: async ({ data }, { signal }) => {
          await sleep(data.effort * msPerEffort, undefined, { signal });
          return { worker: name };
        },
      }),
    ),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { worker, redis } = JSON.parse(process.argv[2]);
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  await startAgents(bus, worker);
}

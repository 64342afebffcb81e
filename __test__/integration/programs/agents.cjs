/**
 * Agents in a process of their own, on a bus that does not orchestrate. The argument is JSON: { redis, agents, work } with the options of
 * each agent but its handler. It prints { ready: true }, and { begun, agent } for each task. `work`
 * - 'succeed': the task's result is who did it
 * - 'hold': it never ends
 */
const { createAgent, RedisEventBus } = require('@bluefly/ossa');

const { redis, agents, work } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function main() {
  const bus = new RedisEventBus({ redis });
  await bus.connect();
  for (const options of agents) {
    const handler = (task) => {
      print({ begun: task.id, agent: options.agentId });
      return work === 'hold' ? new Promise(() => undefined) : options.agentId;
    };
    await createAgent(bus, { ...options, handler });
  }
  print({ ready: true });
}

main();

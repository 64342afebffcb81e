/**
 * A process with an OSSAEventBus that takes its turn in orchestration. The argument is JSON: { config }. It prints { ready } once it is
 * connected. Messages:
 * - { id, distribute: [<task>, …], width }: distributes all, so many at a time, again and again where that may help; answers how often
 *   it tried again
 * - { id, look: true }: answers { stats, agents, pools } as this process sees them
 * - { id, tasks: [<id>, …] }: answers what is known of them
 * - { id, letters: <event type>, group }: answers all dead letters
 */
const { createOSSAEventBus } = require('@bluefly/ossa');

const { config } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** Calls `one` with each item, `width` of them at a time. */
async function each(items, width, one) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await one(items[next++]);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

async function distribute(bus, tasks, width) {
  let again = 0;
  await each(tasks, width, async (task) => {
    for (;;) {
      try {
        return await bus.distributeTask(task);
      } catch (error) {
        if (!error.retryable) throw error;
        again++;
      }
    }
  });
  return again;
}

async function views(bus, ids) {
  const found = {};
  await each(ids, 64, async (id) => {
    found[id] = await bus.getTask(id);
  });
  return found;
}

async function letters(bus, eventType, group) {
  const found = [];
  let cursor;
  do {
    const page = await bus.deadLetters.list({ eventType, group, limit: 500, cursor });
    found.push(...page.items.map(({ reason, attempts, event }) => ({ reason, attempts, data: event.data })));
    cursor = page.cursor;
  } while (cursor !== undefined);
  return found;
}

async function main() {
  const bus = await createOSSAEventBus(null, config);
  process.on('message', async ({ id, distribute: tasks, width, look, tasks: ids, letters: eventType, group }) => {
    try {
      let value;
      if (tasks) value = await distribute(bus, tasks, width);
      else if (look) value = { stats: bus.getOrchestrationStats(), agents: bus.getAgents(), pools: bus.getPools() };
      else if (ids) value = await views(bus, ids);
      else value = await letters(bus, eventType, group);
      print({ answer: id, value });
    } catch (error) {
      print({ answer: id, error: `${error.code} ${error.message}` });
    }
  });
  print({ ready: true });
}

main();

/**
 * A process with agents that sleep over their tasks. The argument is JSON: { config, journal, agents: [{ agentId, agentType, capabilities,
 * maxTasks, workMs }, …], reportIntervalMs }. It prints { ready } once all are there. What handlers do is written to the file `journal`
 * before they go on, so that it is there however the process ends; a line is `<what> <task> <attempt> <agent> <ns>` with what
 * - B: a handler began
 * - E: it is about to return
 * - F: it is about to throw
 * ns are those of a clock that all processes of the machine share. What a task's data asks for: { ms }: to take so long, instead of
 * workMs; { fails: 'always' | 'permanently' }. Messages:
 * - { id, busy: true }: answers how many handlers are at work
 * - { id, stats: true }: answers { <agent>: its stats }
 */
const { appendFileSync } = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');
const { createAgent, RedisEventBus } = require('@bluefly/ossa');

const { config, journal, agents, reportIntervalMs } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const made = [];
let busy = 0;

async function work(agentId, workMs, task, { attempt, signal }) {
  const note = (what) => appendFileSync(journal, `${what} ${task.id} ${attempt} ${agentId} ${process.hrtime.bigint()}\n`);
  const { ms = workMs, fails } = task.data;
  busy++;
  try {
    note('B');
    await sleep(ms, undefined, { signal });
    if (fails !== undefined) {
      note('F');
      throw Object.assign(new Error(`${task.id} fails`), fails === 'permanently' ? { permanent: true } : {});
    }
    note('E');
    return { by: agentId, attempt };
  } finally {
    busy--;
  }
}

async function main() {
  const bus = new RedisEventBus(config);
  await bus.connect();
  await Promise.all(
    agents.map(async ({ workMs, ...who }) => {
      const handler = (task, context) => work(who.agentId, workMs, task, context);
      made.push(await createAgent(bus, { ...who, reportIntervalMs, handler }));
    }),
  );
  print({ ready: true });
}

process.on('message', ({ id, busy: asked }) => {
  print({ answer: id, value: asked ? busy : Object.fromEntries(made.map((agent) => [agent.id, agent.stats])) });
});

main();

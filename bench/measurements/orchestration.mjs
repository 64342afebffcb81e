/** Tasks that are distributed to agents that return at once: how many a second, and what one costs with few agents and with many. */
import { begin } from '../lib/children.mjs';
import { processesUs, serverPid } from '../lib/cpu.mjs';

/** Processes that the agents are in. */
const agentProcesses = 2;
/** Tasks that wait for an answer, over all processes that distribute. */
const width = 600;
/** Places of all agents where only their number is to differ. */
const places = 1_000;
const sum = (values) => values.reduce((all, one) => all + one, 0);

/** Resolves with seconds until all were answered, and done, and the CPU time of a task. */
async function run({ address, redis, tasks }, { agents, maxTasks, buses }) {
  const config = { redis: { url: address, keyPrefix: 'bench' } };
  const server = await serverPid(redis);
  const distributors = Array.from({ length: buses }, () => begin('distributor.mjs', { config: { eventBus: config } }));
  const ids = Array.from({ length: agents }, (_, n) => `a${n}`);
  const workers = Array.from({ length: agentProcesses }, (_, n) =>
    begin('agents.mjs', { config, maxTasks, agents: ids.filter((_, at) => at % agentProcesses === n) }),
  );
  const all = [...distributors, ...workers];
  try {
    await Promise.all(all.map(({ told }) => told()));
    await Promise.all(distributors.map(({ ask }) => ask({ await: agents })));
    const pids = [server, ...all.map(({ child }) => child.pid)];
    const before = processesUs(pids);
    const counts = workers.map(() => ({ done: 0, lastNs: 0 }));
    const done = Promise.race([
      ...all.map(({ ended }) => ended),
      new Promise((resolve) => {
        for (const [at, { child }] of workers.entries()) {
          child.on('message', (count) => {
            counts[at] = count;
            if (sum(counts.map((one) => one.done)) >= tasks) resolve();
          });
        }
      }),
    ]);
    const share = tasks / buses;
    const answers = await Promise.all(
      distributors.map(({ ask }, n) =>
        ask({ first: Math.round(n * share), count: Math.round((n + 1) * share) - Math.round(n * share), width: width / buses }),
      ),
    );
    await done;
    const used = processesUs(pids).map((us, at) => (us - before[at]) / tasks);
    const beganNs = Math.min(...answers.map((one) => one.beganNs));
    const seconds = (ns) => (Math.max(...ns) - beganNs) / 1e9;
    const of = (from, count) => sum(used.slice(1 + from, 1 + from + count));
    return {
      answered: seconds(answers.map((one) => one.answeredNs)),
      done: seconds(counts.map((one) => one.lastNs)),
      cpu: { buses: of(0, buses), agents: of(buses, agentProcesses), server: used[0] },
      cpuUs: sum(used),
    };
  } finally {
    await Promise.all(all.map(({ end }) => end()));
  }
}

const rate = (setup, until) => async (context) => {
  const { cpu, ...figures } = await run(context, setup);
  return { value: context.tasks / figures[until], cpu };
};
const cost = (agents) => async (context) => {
  const { cpuUs, cpu } = await run(context, { agents, maxTasks: places / agents, buses: 1 });
  return { value: cpuUs, cpu };
};
const hundred = { agents: 100, maxTasks: 10 };

export const orchestration = {
  name: 'tasks to 100 agents, CPU: buses / agents / server',
  unit: 'tasks/s',
  sides: {
    'one process distributes, to the last completion': rate({ ...hundred, buses: 1 }, 'done'),
    'three, to the last completion': rate({ ...hundred, buses: 3 }, 'done'),
    'three, to the last answer': rate({ ...hundred, buses: 3 }, 'answered'),
  },
};

export const orchestrationCost = {
  name: 'CPU of all processes for a task, 1,000 places',
  unit: 'µs',
  sides: {
    '1,000 agents': cost(1_000),
    '10 agents': cost(10),
  },
};

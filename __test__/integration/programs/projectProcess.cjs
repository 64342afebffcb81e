/**
 * A process with projects. The argument is JSON:
 * { redis, crossProject?, work } with work
 * - 'plan' and `process`: registers its share of the projects of crossing.cjs with their contracts, handles what comes for
 *   them, and on SIGUSR2 sends what they send
 * - 'verify': prints what verifyAuditLog() says, and ends
 * - 'handle', `projects`, `handled`, `options`, `workMs`: registers the projects and handles all messages to `handled`
 * - 'flood', `project`, `width`, `seconds`: registers the project and on SIGUSR2 sends as it as fast as it may
 * SIGTERM shuts it down.
 */
const { performance } = require('node:perf_hooks');
const { createOSSAEventBus } = require('@bluefly/ossa');
const { contractsOf, configOf, messagesOf, projectsOf } = require('./crossing.cjs');

const task = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/** Says that it is ready and waits until the test tells it to begin; an idle bus does not keep a process. */
const beginTold = () =>
  new Promise((resolve) => {
    const staying = setInterval(() => undefined, 60_000);
    process.once('SIGUSR2', () => {
      clearInterval(staying);
      resolve();
    });
    print({ ready: true });
  });
const now = () => performance.timeOrigin + performance.now();

const about = ({ source, target, payload: { metadata, data }, contracts, security }, context) => ({
  source: source.projectId,
  target: target.projectId,
  id: metadata.id,
  type: metadata.type,
  n: data?.n ?? null,
  signed: security.signature !== '',
  contracts,
  attempt: context.attempt,
});

async function plan(bus) {
  const own = projectsOf(task.process);
  await Promise.all(own.map((id) => bus.registerProject(configOf(id))));
  const date = new Date();
  for (const contract of own.flatMap(contractsOf))
    await bus.registerContract({ ...contract, metadata: { ...contract.metadata, createdAt: date, updatedAt: date } });
  for (const id of own)
    await bus.setupCrossProjectHandler(id, 'work.*', (message, context) => print({ handler: id, ...about(message, context) }), {
      requireSignatureValidation: true,
    });
  await beginTold();
  const calls = own.flatMap((id) => messagesOf(id).map((message) => ({ id, ...message })));
  let next = 0;
  const sendNext = async () => {
    while (next < calls.length) {
      const { id, target, type, data } = calls[next++];
      print({ sent: await bus.sendCrossProjectMessage(id, target, type, data), source: id, n: data.n });
    }
  };
  await Promise.all(Array.from({ length: 20 }, sendNext));
  print({ sentAll: true });
}

async function handle(bus) {
  for (const config of task.projects) await bus.registerProject(config);
  const handler = async (message, context) => {
    const line = about(message, context);
    print({ began: true, ...line });
    if (task.workMs) await pause(task.workMs);
    print({ handled: true, ...line });
  };
  await bus.setupCrossProjectHandler(task.handled, '**', handler, task.options);
  print({ ready: true });
}

/** Sends without a pause; prints when it began and had its last answer, what came through, and refusals that are not as they should be. */
async function flood(bus) {
  await bus.registerProject(task.project);
  await beginTold();
  const { projectId } = task.project;
  const wrong = [];
  let accepted = 0;
  let refused = 0;
  const first = now();
  let last = first;
  const sendOn = async () => {
    while (now() < first + task.seconds * 1000) {
      try {
        await bus.sendCrossProjectMessage(projectId, projectId, 'flood', accepted);
        accepted++;
      } catch (error) {
        refused++;
        const { code, details } = error;
        if (code !== 'ERR_RATE_LIMITED' || !Number.isInteger(details?.retryAfterMs) || details.retryAfterMs < 1)
          wrong.push(`${code} ${JSON.stringify(details)}`);
      }
      last = now();
    }
  };
  await Promise.all(Array.from({ length: task.width }, sendOn));
  print({ flooded: true, first, last, accepted, refused, wrong: wrong.slice(0, 10) });
}

(async () => {
  const log = (message) => print({ log: message });
  const bus = await createOSSAEventBus(null, {
    eventBus: { redis: task.redis, logger: { debug: log, info: log, warn: log, error: log } },
    crossProject: task.crossProject,
  });
  process.on('SIGTERM', () => void bus.shutdown());
  const end = (error) => {
    print({ failed: String(error?.stack ?? error), code: error?.code });
    process.exitCode = 1;
    return bus.shutdown();
  };
  if (task.work === 'verify') {
    print(await bus.verifyAuditLog());
    await bus.shutdown();
  } else await { plan, handle, flood }[task.work](bus).catch(end);
})();

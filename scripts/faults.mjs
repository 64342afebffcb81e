/**
 * `npm run test:faults`: real servers, several processes, and faults by a seed; then it is checked that nothing was lost,
 * stored twice, out of order or stuck. Builds first. `npm run test:faults -- --help` says what can be asked for; the seed
 * of a failing run repeats its plan.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { prepareClocks } from './faults/clock.mjs';
import { readOptions, usage } from './faults/options.mjs';
import { makePlan } from './faults/plan.mjs';
import { details, line, table } from './faults/report.mjs';
import { carryOut } from './faults/run.mjs';
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { main } from './lib/run.mjs';

main(async () => {
  const options = readOptions(process.argv.slice(2));
  if (options.help) return console.log(usage);
  if (options.build) {
    await buildFacade();
    await buildAddon();
  }
  if (options.topology === 'cluster' && !(await knowsCluster()))
    throw new Error('this version of the bus cannot be used with Redis Cluster');
  const clockless = await prepareClocks();
  if (clockless) console.log(`No jumps of clocks: ${clockless}.`);
  const without = [...options.without, ...(clockless ? ['serverClock', 'workerClock', 'flushUnseen'] : [])];

  const results = [];
  for (let seed = options.seed; seed < options.seed + options.runs; seed++) {
    const plan = makePlan({ ...options, seed, without });
    const result = { seed, ...(await carryOut(plan, { clocks: !clockless }).catch(brokenOff)) };
    results.push(result);
    console.log(line(result));
    if (result.violations.length > 0) console.log(details(result));
    else if (!options.keep) rmSync(result.folder, { recursive: true, force: true });
  }
  console.log(`\n${table(results)}`);
  if (options.report) writeFileSync(options.report, `${table(results)}\n`);
  const failed = results.filter(({ violations }) => violations.length > 0);
  if (failed.length === 0) return;
  console.error(`\nFailed. The same plan again: ${again(options, failed[0].seed)}`);
  process.exitCode = 1;
});

/** What is said of a run that could not be brought to its end: a server that crashed, for one. */
const brokenOff = (error) => ({
  counts: {},
  duplicates: {},
  violations: [{ rule: 'broken off', text: error.stack }],
});

const again = ({ seconds, topology, only, without }, seed) =>
  `npm run test:faults -- --runs 1 --seed ${seed} --seconds ${seconds} --topology ${topology}${only ? ` --only ${only}` : ''}${without.length ? ` --without ${without}` : ''}`;

/** Whether a bus takes the addresses of a cluster; nobody is at this one. */
async function knowsCluster() {
  const { RedisEventBus } = createRequire(import.meta.url)('@bluefly/ossa');
  const nodes = [{ host: '127.0.0.1', port: 1 }];
  const bus = new RedisEventBus({ redis: { cluster: { nodes }, connectTimeoutMs: 500 } });
  const refused = await bus.connect().catch((error) => error.code);
  await bus.disconnect();
  return refused !== 'ERR_DISABLED';
}

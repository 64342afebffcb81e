/**
 * `npm run test:faults`: real servers, several processes, and faults by a seed; then it is checked that nothing was lost,
 * stored twice, out of order or stuck. Needs a built package (`npm run build`). The seed of a failing run repeats its plan:
 * `npm run test:faults -- --seed 7`.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { prepareClocks } from './faults/clock.mjs';
import { readOptions, usage } from './faults/options.mjs';
import { makePlan } from './faults/plan.mjs';
import { details, line, table } from './faults/report.mjs';
import { carryOut } from './faults/run.mjs';
import { main } from './lib/run.mjs';

main(async () => {
  const options = readOptions(process.argv.slice(2));
  if (options.help) return console.log(usage);
  if (options.topology === 'cluster') throw new Error('the bus cannot be used with Redis Cluster in this version');
  const clockless = await prepareClocks();
  if (clockless) console.log(`No jumps of clocks: ${clockless}.`);
  const without = clockless ? ['serverClock', 'workerClock'] : [];

  const results = [];
  for (let seed = options.seed; seed < options.seed + options.runs; seed++) {
    const result = { seed, ...(await carryOut(makePlan({ ...options, seed, without }), { clocks: !clockless })) };
    results.push(result);
    console.log(line(result));
    if (result.violations.length > 0) console.log(details(result));
    else if (!options.keep) rmSync(result.folder, { recursive: true, force: true });
  }
  console.log(`\n${table(results)}`);
  if (options.report) writeFileSync(options.report, `${table(results)}\n`);
  const failed = results.filter(({ violations }) => violations.length > 0);
  if (failed.length === 0) return;
  console.error(`\nFailed. The same plan again: npm run test:faults -- --runs 1 --seed ${failed[0].seed} --seconds ${options.seconds}`);
  process.exitCode = 1;
});

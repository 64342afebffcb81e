/**
 * `npm run test:load`: 500 subscriptions over 40 buses in 4 processes, 1,000 event types, payloads up to 1 MiB, at a steady
 * rate for some minutes; then it is checked that all was handled, and that memory, handles and what is left to do level off.
 * Builds first. `npm run test:load -- --help` says what can be asked for.
 */
import { writeFileSync } from 'node:fs';
import { buildAddon } from './lib/addon.mjs';
import { buildFacade } from './lib/facade.mjs';
import { main } from './lib/run.mjs';
import { readOptions, usage } from './load/options.mjs';
import { markdown } from './load/report.mjs';
import { carryOut } from './load/run.mjs';
import { judge } from './load/verdicts.mjs';

main(async () => {
  const options = readOptions(process.argv.slice(2));
  if (options.help) return console.log(usage);
  if (options.build) {
    await buildFacade();
    await buildAddon();
  }
  const facts = await carryOut(options);
  const verdicts = judge(facts);
  const text = markdown(facts, verdicts);
  console.log(`\n${text}`);
  if (options.report) writeFileSync(options.report, text);
  const failed = verdicts.filter(({ holds }) => holds === false);
  if (failed.length === 0) return;
  console.error(`\nFailed:\n${failed.map(({ name, figure }) => `  ${name}: ${figure}`).join('\n')}`);
  process.exitCode = 1;
});

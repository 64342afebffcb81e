/** Builds the TypeScript façade into dist/. */
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bin } from './bin.mjs';
import { root } from './paths.mjs';
import { run } from './run.mjs';

/** Makes dist/ anew: CommonJS by tsc; the ES module entry points and the check of index.d.ts by types.mjs. */
export async function buildFacade() {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  // The maps hold the sources: stack traces and coverage lead to ts/.
  await run(process.execPath, [
    bin('typescript', 'tsc'),
    ...['-p', 'ts/tsconfig.json', '--noEmitOnError', '--sourceMap', '--inlineSources'],
  ]);
  await buildDashboard();
  await run(process.execPath, ['scripts/types.mjs', '--check']);
}

/** The dashboard page: ES modules for browsers, what is no TypeScript, and the chart library with its licence. */
async function buildDashboard() {
  const assets = join(root, 'dist/dashboard/assets');
  await run(process.execPath, [bin('typescript', 'tsc'), ...['-p', 'ts/dashboard/tsconfig.json', '--noEmitOnError']]);
  const copy = (from, to) => cpSync(join(root, from), join(assets, to));
  mkdirSync(join(assets, 'vendor'), { recursive: true });
  for (const file of ['style.css', 'icon.svg']) copy(`ts/dashboard/${file}`, file);
  copy('ts/dashboard/index.html', '../index.html');
  copy('node_modules/uplot/dist/uPlot.esm.js', 'vendor/uPlot.js');
  copy('node_modules/uplot/dist/uPlot.min.css', 'vendor/uPlot.css');
  copy('node_modules/uplot/LICENSE', 'vendor/uPlot.LICENSE.txt');
}

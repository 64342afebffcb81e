/** Builds the TypeScript façade into dist/. */
import { rmSync } from 'node:fs';
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
  await run(process.execPath, ['scripts/types.mjs', '--check']);
}

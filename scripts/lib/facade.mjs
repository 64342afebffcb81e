/** Builds the TypeScript façade: CommonJS by tsc, and the ES module entry points with their types beside it. */
import { cpSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bin } from './bin.mjs';
import { root } from './paths.mjs';
import { run } from './run.mjs';

/** Makes dist/ anew and fails when index.d.ts does not fit the sources. */
export async function buildFacade() {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  // The maps hold the sources: stack traces and coverage lead to ts/.
  await run(process.execPath, [
    bin('typescript', 'tsc'),
    ...['-p', 'ts/tsconfig.json', '--noEmitOnError', '--sourceMap', '--inlineSources'],
  ]);
  cpSync(join(root, 'ts/esm'), join(root, 'dist'), { recursive: true });
  if (existsSync(join(root, 'scripts/types.mjs'))) await run(process.execPath, ['scripts/types.mjs', '--check']);
}

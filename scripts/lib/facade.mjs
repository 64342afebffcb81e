/** Builds the TypeScript façade: CommonJS by tsc, ES module wrappers, and the types of each entry point. */
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { bin } from './bin.mjs';
import { root } from './paths.mjs';
import { run } from './run.mjs';

/**
 * Types of the entry points, each with its twin for `import`. All offer the same names and lead to the one index.d.ts,
 * so that a class has one type however it was imported.
 */
const entryTypes = {
  'index.d.mts': "export * from './index.js';\n",
  'dist/services/EventBus/index.d.ts': "export * from '../../../index.js';\n",
  'dist/services/EventBus/index.d.mts': "export * from './index.js';\n",
  'dist/services/ServiceRegistry/index.d.ts': "export * from '../../../index.js';\n",
  'dist/services/ServiceRegistry/index.d.mts': "export * from './index.js';\n",
};

/** Makes dist/ anew and fails when index.d.ts does not fit the sources. */
export async function buildFacade() {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  // The maps hold the sources: stack traces and coverage lead to ts/.
  await run(process.execPath, [
    bin('typescript', 'tsc'),
    ...['-p', 'ts/tsconfig.json', '--noEmitOnError', '--sourceMap', '--inlineSources'],
  ]);
  cpSync(join(root, 'ts/esm'), join(root, 'dist'), {
    recursive: true,
    filter: (source) => !/\.m?ts$/.test(source),
  });
  for (const [file, text] of Object.entries(entryTypes)) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  }
  if (existsSync(join(root, 'scripts/types.mjs'))) await run(process.execPath, ['scripts/types.mjs', '--check']);
}

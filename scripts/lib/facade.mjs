/** Builds the TypeScript façade: CommonJS by tsc, ES module wrappers, and the types of each entry point. */
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { bin } from './bin.mjs';
import { root } from './paths.mjs';
import { run } from './run.mjs';

/** Names of the types that `./services/ServiceRegistry` offers; `./services/EventBus` offers all, as the root does. */
const serviceRegistryNames = [
  'DEFAULT_SERVICE_REGISTRY_CONFIG',
  'ServiceCapability',
  'ServiceDefinition',
  'ServiceDiscoveryFilter',
  'ServiceHealth',
  'ServiceHealthStatus',
  'ServiceRegistry',
  'ServiceRegistryConfig',
];

/**
 * Types of the entry points, each with its twin for `import`. All lead to the one index.d.ts, so that a class has one
 * type however it was imported.
 */
const entryTypes = {
  'index.d.mts': "export * from './index.js';\n",
  'dist/services/EventBus/index.d.ts': "export * from '../../../index.js';\n",
  'dist/services/EventBus/index.d.mts': "export * from './index.js';\n",
  'dist/services/ServiceRegistry/index.d.ts': `export { ${serviceRegistryNames.join(', ')} } from '../../../index.js';\n`,
  'dist/services/ServiceRegistry/index.d.mts': "export * from './index.js';\n",
};

/** Makes dist/ anew and fails when index.d.ts does not fit the sources. */
export async function buildFacade() {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  await run(process.execPath, [bin('typescript', 'tsc'), '-p', 'ts/tsconfig.json']);
  cpSync(join(root, 'ts/esm'), join(root, 'dist'), {
    recursive: true,
    filter: (source) => !/\.m?ts$/.test(source),
  });
  for (const [file, text] of Object.entries(entryTypes)) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), text);
  }
  if (existsSync(join(root, 'scripts/types.mjs')))
    await run(process.execPath, ['scripts/types.mjs', '--check']);
}

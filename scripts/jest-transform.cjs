/**
 * How jest reads files: tests in TypeScript are compiled file by file (types are checked by `npm run check`), and the
 * built façade comes with its source map, so that stack traces and coverage lead to ts/.
 */
const { createHash } = require('node:crypto');
const { existsSync, readFileSync } = require('node:fs');
const ts = require('typescript');

const thisFile = readFileSync(__filename, 'utf8');

const mapOf = (file) => (existsSync(`${file}.map`) ? readFileSync(`${file}.map`, 'utf8') : 'null');

module.exports = {
  process(source, file) {
    if (file.endsWith('.js')) return { code: source, map: JSON.parse(mapOf(file)) };
    const { outputText, sourceMapText } = ts.transpileModule(source, {
      fileName: file,
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.CommonJS,
        esModuleInterop: true,
        sourceMap: true,
      },
    });
    return { code: outputText, map: JSON.parse(sourceMapText) };
  },

  /** The map belongs to it: a comment moved in ts/ changes the map alone. */
  getCacheKey(source, file, { configString, instrument }) {
    const parts = [thisFile, ts.version, source, file, mapOf(file), configString, String(instrument)];
    return createHash('sha256').update(parts.join('\0')).digest('hex');
  },
};

/** Builds the Rust crate and puts the addon where the façade loads it from. */
import { copyFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './paths.mjs';
import { addonFile, isMusl } from './platform.mjs';
import { output } from './run.mjs';

/**
 * `cargo build --release`, then a copy to `<root>/ossa.<platform>.node`. Cargo itself says where the library is, so
 * that CARGO_TARGET_DIR and every other setting of it hold. Resolves with the copy's path.
 */
export async function buildAddon({ crate = root } = {}) {
  const messages = await output(
    'cargo',
    ['build', '--release', '--lib', '--message-format=json-render-diagnostics'],
    { cwd: crate, env: muslFlags() },
  );
  const library = libraryIn(messages);
  if (!library) throw new Error('cargo build made no dynamic library: [lib] needs crate-type cdylib');
  const target = join(crate, addonFile());
  // A running process may have the old file mapped: replace it, never write into it.
  copyFileSync(library, `${target}.new`);
  renameSync(`${target}.new`, target);
  return target;
}

/** The path of the cdylib among cargo's messages, one JSON object a line. */
function libraryIn(messages) {
  return messages
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
    .filter((m) => m.reason === 'compiler-artifact' && m.target.crate_types.includes('cdylib'))
    .flatMap((m) => m.filenames)
    .find((file) => /\.(so|dylib|dll)$/.test(file));
}

/** A musl target links statically unless told otherwise, and then makes no dynamic library. */
const muslFlags = () =>
  isMusl() && !process.env.RUSTFLAGS ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {};

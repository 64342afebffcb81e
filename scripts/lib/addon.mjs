/** Builds the Rust crate and puts the addon where the façade loads it from. */
import { copyFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './paths.mjs';
import { addonFile, isMusl } from './platform.mjs';
import { output } from './run.mjs';

/**
 * The library alone, then a copy to `target`: a build for Rust programs beside it would leave it without the optimisation across
 * crates (cargo passes over `lto` there). Cargo itself says where the library is, so that CARGO_TARGET_DIR and every other setting
 * of it hold. `yielding` as for {@link output}.
 */
export async function buildAddon({ profile = 'release', env = {}, target = join(root, addonFile()), yielding = false } = {}) {
  const args = ['rustc', '--profile', profile, '--lib', '--crate-type', 'cdylib', '--message-format=json-render-diagnostics'];
  const printed = await output('cargo', args, {
    env: { ...muslFlags(), ...env },
    yielding,
  });
  const library = cargoMessages(printed)
    .filter((message) => message.target?.crate_types.includes('cdylib'))
    .flatMap((message) => message.filenames ?? [])
    .find((file) => /\.(so|dylib|dll)$/.test(file));
  if (!library) throw new Error('cargo made no dynamic library: [lib] needs crate-type cdylib');
  // A running process may have the old file mapped: replace it, never write into it.
  copyFileSync(library, `${target}.new`);
  renameSync(`${target}.new`, target);
}

/** What cargo prints with --message-format=json: one object a line. */
export const cargoMessages = (printed) =>
  printed
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));

/** A musl target links statically unless told otherwise, and then makes no dynamic library. */
const muslFlags = () => (isMusl() && !process.env.RUSTFLAGS ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {});

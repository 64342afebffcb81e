/**
 * The engine's tests, several programs at a time. `cargo test` runs one after the other, and most of them wait for
 * servers and timers more than they compute.
 */
import { cargoMessages } from './addon.mjs';
import { root } from './paths.mjs';
import { captured, exitCode, output } from './run.mjs';

/**
 * Without the binding, because a test program cannot be linked against Node.js; in the dev profile, because that
 * compiles faster than it would run slower, and checks arithmetic overflow.
 */
export const engineAlone = ['--no-default-features'];

/** More would crowd two cores: some tests measure how soon something happens. */
const atOnce = 2;

/** Those that take longest start first, so that none of them is left alone at the end. */
const longFirst = ['topologies', 'publishing_faults', 'topology_helpers', 'conformance', 'engine', 'services', 'projects'];

/** Builds what `targets` names as for cargo, by default all; resolves with the programs. */
export async function buildRustTests(targets = [], options) {
  const args = ['test', ...engineAlone, ...targets, '--no-run', '--message-format=json-render-diagnostics'];
  const made = cargoMessages(await output('cargo', args, options)).filter((message) => message.executable);
  const programs = made.map(({ target, executable }) => ({
    name: target.kind.includes('test') ? target.name : `unit tests of ${target.name}`,
    file: executable,
  }));
  if (programs.length === 0) throw new Error('cargo made no test programs');
  return programs;
}

/** The steps that run them, and the examples in the documentation of the library; `programs` is a promise. */
export const rustSteps = (programs, options) => [
  { name: "Rust's test programs", run: async () => runRustTests(await programs, options) },
  { name: "Rust's documentation tests", run: () => exitCode('cargo', ['test', ...engineAlone, '--doc'], options) },
];

/**
 * What a program printed is shown when it ends, and at the end which tests failed. Resolves with 0 when every program
 * did well, else with 1.
 */
async function runRustTests(programs, { env = {} } = {}) {
  // As under cargo, which names the manifest's folder to tests.
  const options = { env: { CARGO_MANIFEST_DIR: root, ...env } };
  const waiting = programs.toSorted((one, other) => rank(one) - rank(other));
  const failures = [];
  const work = async () => {
    for (let program = waiting.shift(); program; program = waiting.shift()) {
      const { name, file } = program;
      console.log(`started: ${name}`);
      const start = Date.now();
      const { code, text } = await captured(file, [], options).catch((error) => ({ code: 1, text: error.message }));
      const seconds = ((Date.now() - start) / 1000).toFixed(1);
      console.log(`\n${code === 0 ? 'ok' : 'FAILED'}: ${name} (${seconds} s)\n${text.trim()}\n`);
      if (code !== 0) failures.push(...failed(name, code, text));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  if (failures.length > 0) console.log(`Failed:\n${failures.map((line) => `  ${line}`).join('\n')}`);
  return failures.length > 0 ? 1 : 0;
}

const rank = ({ name }) => (longFirst.includes(name) ? longFirst.indexOf(name) : longFirst.length);

/** A line for each test that failed; a program that ended before it could say so has one of its own. */
function failed(name, code, text) {
  const tests = [...text.matchAll(/^test (.+) \.\.\. FAILED$/gm)].map(([, test]) => `${name}: ${test}`);
  return tests.length > 0 ? tests : [`${name}: exit code ${code}`];
}

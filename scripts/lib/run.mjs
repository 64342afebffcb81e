/** Running the programs that the other scripts put together. */
import { spawn } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { root } from './paths.mjs';

/** Programs that run; they end with this process. */
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill();
});

/** On Windows npm and npx are command files, which only a shell runs. */
const needsShell = (command) => process.platform === 'win32' && /^(npm|npx)$/.test(command);

/**
 * Runs a program in the repository's root with this terminal; resolves with its exit code, or rejects when it could not
 * be started.
 */
export function exitCode(command, args, { env = {}, cwd = root, stdio = 'inherit' } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      stdio,
      env: { ...process.env, ...env },
      shell: needsShell(command),
    });
    children.add(child);
    child.once('error', (error) => reject(startError(command, error)));
    child.once('exit', (code, signal) => {
      children.delete(child);
      resolve(signal ? 1 : code);
    });
  });
}

/** As {@link exitCode}, but an exit code other than 0 rejects. */
export async function run(command, args, options) {
  const code = await exitCode(command, args, options);
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')} ended with exit code ${code}`);
}

/**
 * Runs a program and resolves with what it printed; its error output goes to this terminal unless `quiet`. `yielding`, it
 * and what it starts take the time that others leave.
 */
export function output(command, args, { env = {}, cwd = root, quiet = false, yielding = false } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      stdio: ['ignore', 'pipe', quiet ? 'ignore' : 'inherit'],
      env: { ...process.env, ...env },
      shell: needsShell(command),
    });
    children.add(child);
    if (yielding && child.pid) setPriority(child.pid, constants.priority.PRIORITY_LOW);
    const chunks = [];
    child.stdout.on('data', (chunk) => chunks.push(chunk));
    child.once('error', (error) => {
      children.delete(child);
      reject(startError(command, error));
    });
    child.once('close', (code) => {
      children.delete(child);
      if (code === 0) resolve(Buffer.concat(chunks).toString());
      else reject(new Error(`${[command, ...args].join(' ')} ended with exit code ${code}`));
    });
  });
}

/** Runs a program and resolves with its exit code and all that it printed, both streams as they came. */
export function captured(command, args, { env = {}, cwd = root } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    children.add(child);
    const chunks = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => chunks.push(chunk));
    child.once('error', (error) => {
      children.delete(child);
      reject(startError(command, error));
    });
    child.once('close', (code, signal) => {
      children.delete(child);
      if (signal) chunks.push(Buffer.from(`\nended by ${signal}\n`));
      resolve({ code: signal ? 1 : code, text: Buffer.concat(chunks).toString() });
    });
  });
}

/** Whether a program can be started; `args` should make it do nothing, such as `--version`. */
export const works = (command, args = ['--version']) =>
  exitCode(command, args, { stdio: 'ignore' }).then(
    (code) => code === 0,
    () => false,
  );

/** Runs a script's main function. What it rejects with becomes exit code 1, and one line if it was foreseen. */
export function main(body) {
  body().catch((error) => {
    console.error('\n%s', error.constructor === Error ? error.message : error.stack);
    process.exitCode = 1;
  });
}

function startError(command, error) {
  const advice = {
    cargo: 'Rust is missing: install it from https://rustup.rs and run this again.',
  }[command];
  return new Error(error.code === 'ENOENT' && advice ? advice : `${command} could not be started: ${error.message}`);
}

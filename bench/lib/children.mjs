/** Other processes of a measurement: programs in bench/programs/, which are told what to do by one argument, and by messages. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

/** Starts a program. `told()` resolves with its next message, or rejects when it ends; `end()` disconnects it and waits until it is gone. */
export function begin(program, argument, { execArgv = [] } = {}) {
  const file = join(import.meta.dirname, '../programs', program);
  const child = fork(file, [JSON.stringify(argument)], { serialization: 'advanced', execArgv });
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`${program} ended with code ${code}`)));
  ended.catch(() => undefined);
  const told = async () => (await Promise.race([once(child, 'message'), ended]))[0];
  const end = () => {
    if (child.connected) child.disconnect();
    return ended.catch(() => undefined);
  };
  /** Sends a message and resolves with the answer. */
  const ask = (message) => {
    child.send(message);
    return told();
  };
  return { child, ended, told, ask, end };
}

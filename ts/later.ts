/** Parts of the contract that are not in this version: they exist with their types and say so when they are used. */
import { OSSAError } from './errors';

/** ERR_DISABLED for `what`, with what can be done instead. */
export function notYet(what: string, instead: string): OSSAError {
  return new OSSAError(`${what} is not in 0.1.9 yet. ${instead}`, { code: 'ERR_DISABLED', details: { feature: what } });
}

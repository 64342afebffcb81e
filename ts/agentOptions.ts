/** Options of createAgent() and drain(), checked. */
import { keysOf } from './arguments';
import { invalidArgument } from './errors';
import { isText } from './json';
import { isSignal } from './publisher';
import type { AgentContext, AgentTask } from './types';

/** Options with the defaults filled in. */
export interface ResolvedAgentOptions {
  agentId: string;
  agentType: string;
  capabilities: string[];
  maxTasks: number;
  handler: (task: AgentTask, context: AgentContext) => unknown;
  taskTimeoutMs: number | undefined;
  reportIntervalMs: number;
  drainTimeoutMs: number;
  drainOnSigterm: boolean;
  signal: AbortSignal | undefined;
}

const NAME = /^[A-Za-z0-9_.:/-]{1,128}$/;
const A_NAME = 'must be 1 to 128 of the characters A-Z a-z 0-9 _ . : / -';
const CAPABILITIES_MAX = 100;
const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
const REASON_BYTES_MAX = 1024;

/** What is right for each option. */
const CHECKS: { [K in keyof ResolvedAgentOptions]: (value: unknown, name: string) => void } = {
  agentId: checkName,
  agentType: checkName,
  capabilities(value, name) {
    if (!Array.isArray(value) || value.length > CAPABILITIES_MAX)
      throw invalidArgument(name, `must be an array of at most ${CAPABILITIES_MAX} names`);
    // Not forEach, which leaves out holes.
    for (let i = 0; i < value.length; i++) checkName(value[i], `${name}[${i}]`);
  },
  maxTasks: (value, name) => checkNumber(value, name, 1, 10_000, true),
  handler(value, name) {
    if (typeof value !== 'function') throw invalidArgument(name, 'must be a function (task, context) => result');
  },
  taskTimeoutMs: (value, name) => checkNumber(value, name, 1, Number.MAX_SAFE_INTEGER),
  reportIntervalMs: (value, name) => checkNumber(value, name, 100, HOUR_MS),
  drainTimeoutMs: (value, name) => checkNumber(value, name, 0, DAY_MS),
  drainOnSigterm(value, name) {
    if (typeof value !== 'boolean') throw invalidArgument(name, 'must be true or false');
  },
  signal(value, name) {
    if (!isSignal(value)) throw invalidArgument(name, 'must be an AbortSignal');
  },
};
const NEEDED: ReadonlyArray<keyof ResolvedAgentOptions> = ['agentId', 'agentType', 'capabilities', 'handler'];
const DEFAULTS = {
  maxTasks: 1,
  taskTimeoutMs: undefined,
  reportIntervalMs: 5_000,
  drainTimeoutMs: 10_000,
  drainOnSigterm: true,
  signal: undefined,
};

/** @throws OSSAError ERR_INVALID_ARGUMENT with the option's name */
export function resolveAgentOptions(options: unknown): ResolvedAgentOptions {
  const given = checked(options, 'agent', CHECKS);
  for (const name of NEEDED) if (!(name in given)) CHECKS[name](undefined, name);
  const resolved = { ...DEFAULTS, ...given } as ResolvedAgentOptions;
  return { ...resolved, capabilities: [...new Set(resolved.capabilities)] };
}

/** @throws OSSAError ERR_INVALID_ARGUMENT with the option's name */
export function resolveDrainOptions(options: unknown): { reason?: string; timeoutMs?: number } {
  if (options === undefined || options === null) return {};
  return checked(options, 'drain()', {
    reason(value, name) {
      if (typeof value !== 'string' || !isText(value) || value === '' || Buffer.byteLength(value) > REASON_BYTES_MAX)
        throw invalidArgument(name, `must be a text of 1 to ${REASON_BYTES_MAX} bytes`);
    },
    timeoutMs: CHECKS.drainTimeoutMs,
  });
}

/** The options that are there, read once. */
function checked(options: unknown, whose: string, checks: Record<string, (value: unknown, name: string) => void>): Record<string, unknown> {
  const given = keysOf('options', options);
  if (given === undefined) throw invalidArgument('options', 'must be an object');
  const read: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(given)) {
    const check = Object.hasOwn(checks, name) ? checks[name] : undefined;
    if (check === undefined) {
      throw invalidArgument(name, `is no option of ${whose}; there are ${Object.keys(checks).join(', ')}`);
    }
    if (value === undefined) continue;
    check(value, name);
    read[name] = value;
  }
  return read;
}

function checkName(value: unknown, name: string): void {
  if (typeof value !== 'string' || !NAME.test(value)) throw invalidArgument(name, A_NAME);
}

function checkNumber(value: unknown, name: string, min: number, max: number, whole = false): void {
  if (typeof value !== 'number' || !(value >= min && value <= max) || (whole && !Number.isInteger(value)))
    throw invalidArgument(name, `must be a ${whole ? 'whole number' : 'number of milliseconds'} from ${min} to ${max}`);
}

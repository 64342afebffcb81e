/**
 * The package of this repository. Measurements have a package.json of their own, so that its name does not lead there from here: it is
 * asked for as the root itself would.
 */
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../package.json', import.meta.url));

export const { createAgent, createOSSAEventBus, RedisEventBus, ServiceRegistry } = require('@bluefly/ossa');

/** Where it is loaded from by `require`, for programs that measure just that. */
export const ossaEntry = require.resolve('@bluefly/ossa');

/** The package as a user has it, and short names for some of its types. */
import type { EventRetryConfig } from '@bluefly/ossa';

export * from '@bluefly/ossa';

export type RetryOptions = Partial<EventRetryConfig>;

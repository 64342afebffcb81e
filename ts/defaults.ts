/**
 * The defaults that users can read. The engine has its own, and they are the ones in force; a test holds these equal to
 * its `defaultConfig`, so that importing the package needs no addon.
 */

import type { EventBusConfig, ServiceRegistryConfig } from './types';
import { EventPriority } from './types';

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value)) if (typeof child === 'object' && child !== null) deepFreeze(child as object);
  return Object.freeze(value);
}

/** Defaults of RedisEventBus, and of `eventBus` in the configuration of OSSAEventBus. */
export const DEFAULT_EVENT_BUS_CONFIG: EventBusConfig = deepFreeze({
  redis: { host: 'localhost', port: 6379, keyPrefix: 'ossa:eventbus', db: 0, connectTimeoutMs: 10000, commandTimeoutMs: 5000 },
  performance: { batchSize: 100, batchTimeout: 1000, connectionPoolSize: 10, pipelineSize: 100 },
  monitoring: { enabled: true, metricsInterval: 30000, tracing: true, healthCheckInterval: 15000 },
  defaults: {
    ttl: 3600,
    retry: { maxAttempts: 3, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000, jitter: 'equal' as const },
    priority: EventPriority.NORMAL,
  },
  deadLetterQueue: { enabled: true, retention: 604800 },
  limits: {
    maxPayloadBytes: 1048576,
    maxPendingPublishes: 100000,
    keepAcknowledged: 100000,
    stallTimeoutMs: 120000,
  },
  logLevel: 'warn',
});

/** Defaults of ServiceRegistry. */
export const DEFAULT_SERVICE_REGISTRY_CONFIG: ServiceRegistryConfig = deepFreeze({
  redis: {
    host: 'localhost',
    port: 6379,
    db: 0,
    keyPrefix: 'ossa:services',
    connectTimeoutMs: 10000,
    commandTimeoutMs: 5000,
  },
  healthCheck: { intervalMs: 30000, timeoutMs: 5000, failureThreshold: 3, successThreshold: 2 },
  serviceTtlSeconds: 300,
  http: { deny: [], timeoutMs: 10000, maxResponseBytes: 1048576 },
  logLevel: 'warn',
});

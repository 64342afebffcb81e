/** Entry point of `@bluefly/ossa`; the entries under `services/` export the same. The types are in `index.d.ts`. */
export { createAgent } from './agent';
export { DEFAULT_EVENT_BUS_CONFIG, DEFAULT_SERVICE_REGISTRY_CONFIG } from './defaults';
export { EventBus } from './EventBus';
export { OSSAError } from './errors';
export { EVENT_TYPES } from './eventTypes';
export { createOSSAEventBus, OSSAEventBus } from './OSSAEventBus';
export { RedisEventBus } from './RedisEventBus';
export { ServiceRegistry } from './ServiceRegistry';
export { EventPriority, ServiceHealthStatus } from './types';

// ES module entry: the same objects as `require` gives, by name. Copied to dist/ as it is.
import ossa from './index.js';

export const {
  DEFAULT_EVENT_BUS_CONFIG,
  DEFAULT_SERVICE_REGISTRY_CONFIG,
  EVENT_TYPES,
  EventBus,
  EventPriority,
  OSSAError,
  OSSAEventBus,
  RedisEventBus,
  ServiceHealthStatus,
  ServiceRegistry,
  createAgent,
  createOSSAEventBus,
} = ossa;

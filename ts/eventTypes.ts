/** Names of the built-in events, and the types of their data. */
import type * as api from '../index';

export type {
  AgentFailedEvent,
  AgentSpawnedEvent,
  AgentStartedEvent,
  AgentStoppedEvent,
  AgentTerminatedEvent,
  BottleneckDetectedEvent,
  BuiltInEvents,
  PerformanceMetricsEvent,
  ResourceAllocatedEvent,
  ResourceExhaustedEvent,
  ResourceReleasedEvent,
  ScaleEvent,
  TaskAssignedEvent,
  TaskCancelledEvent,
  TaskCompletedEvent,
  TaskFailedEvent,
  TaskStartedEvent,
  ThresholdBreachedEvent,
} from '../index';

/** Names of the built-in events. */
export const EVENT_TYPES: typeof api.EVENT_TYPES = Object.freeze({
  AGENT: Object.freeze({
    SPAWNED: 'agent.spawned',
    STARTED: 'agent.started',
    STOPPED: 'agent.stopped',
    FAILED: 'agent.failed',
    TERMINATED: 'agent.terminated',
  }),
  TASK: Object.freeze({
    ASSIGNED: 'task.assigned',
    STARTED: 'task.started',
    COMPLETED: 'task.completed',
    FAILED: 'task.failed',
    CANCELLED: 'task.cancelled',
  }),
  RESOURCE: Object.freeze({
    ALLOCATED: 'resource.allocated',
    RELEASED: 'resource.released',
    EXHAUSTED: 'resource.exhausted',
  }),
  PERFORMANCE: Object.freeze({
    METRICS: 'performance.metrics',
    THRESHOLD: 'performance.threshold',
    BOTTLENECK: 'performance.bottleneck',
  }),
  SYSTEM: Object.freeze({
    HEALTH_CHECK: 'system.health_check',
    CONFIGURATION_CHANGED: 'system.configuration_changed',
    SHUTDOWN: 'system.shutdown',
    ERROR: 'system.error',
  }),
  ORCHESTRATION: Object.freeze({
    SCALE_UP: 'orchestration.scale_up',
    SCALE_DOWN: 'orchestration.scale_down',
  }),
});

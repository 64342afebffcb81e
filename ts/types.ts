/**
 * The public types, as the façade's own files name them. They are declared once, in `index.d.ts` at the package root,
 * which users get; only what exists at run time is made here.
 */
import type * as api from '../index';

export type {
  AgentContext,
  AgentTask,
  AgentView,
  AlertEvent,
  Analytics,
  AnyBatchEvent,
  AuditQuery,
  AuditRecord,
  BatchHandlerFn,
  BuiltInEvents,
  CrossProjectEventContract,
  CrossProjectMessage,
  CrossProjectStats,
  DashboardData,
  DeadLetter,
  DeadLetters,
  DeepPartial,
  DeliveryContext,
  EventBusConfig,
  EventBusMetrics,
  EventBusStatus,
  EventExplanation,
  EventHandlerFn,
  EventMap,
  EventMetadata,
  EventPayload,
  EventRetryConfig,
  EventStream,
  GroupView,
  HealthReport,
  LogLevel,
  LogLine,
  MessageRoute,
  MonitoringStats,
  OrchestrationStats,
  OrchestrationTask,
  OSSAErrorCode,
  OSSAEventBusConfig,
  PoolView,
  ProjectConfig,
  ProjectKey,
  PublishOptions,
  ServiceDefinition,
  ServiceDiscoveryFilter,
  ServiceHealth,
  ServiceRegistration,
  ServiceRegistryConfig,
  ServiceRegistryIntegrationStatus,
  ServiceRegistryStats,
  StreamConfig,
  Subscription,
  SubscriptionOptions,
  TaskView,
} from '../index';

/** What a bus, or a registry, logs to, if it is given one. */
export type Logger = NonNullable<api.EventBusConfig['logger']>;

/** Order among waiting events; low ones keep a share. */
export const EventPriority = Object.freeze({
  CRITICAL: 'critical',
  HIGH: 'high',
  NORMAL: 'normal',
  LOW: 'low',
}) as unknown as typeof api.EventPriority;

/** How a service is. */
export const ServiceHealthStatus = Object.freeze({
  HEALTHY: 'healthy',
  UNHEALTHY: 'unhealthy',
  DEGRADED: 'degraded',
  UNKNOWN: 'unknown',
  MAINTENANCE: 'maintenance',
}) as unknown as typeof api.ServiceHealthStatus;

/** `index.d.ts` against the contract: every exported name is there, and can be used wherever the contract's could. */

import type * as api from '../../index.js';
import type * as contract from './contract.js';

/** Compiles only if `Mine` can stand wherever `Theirs` is asked for. */
type Assignable<Mine extends Theirs, Theirs> = Mine;
/** Compiles only if each can stand for the other. */
type Same<Mine extends Theirs, Theirs extends Other, Other = Mine> = [Mine, Other];

// Values: every one the contract declares.
type _Values = Assignable<
  Pick<typeof api, Exclude<keyof typeof contract, 'EventPriority' | 'ServiceHealthStatus'>>,
  Pick<typeof contract, Exclude<keyof typeof contract, 'EventPriority' | 'ServiceHealthStatus'>>
>;
type _Names = Assignable<keyof typeof contract, keyof typeof api>;
// Enums are nominal: their members' texts are compared.
type _Priorities = Same<`${api.EventPriority}`, `${contract.EventPriority}`>;
type _Health = Same<`${api.ServiceHealthStatus}`, `${contract.ServiceHealthStatus}`>;

// Types: every exported one. Those that users write must also be taken from the contract's shape.
type _Types = [
  Assignable<api.EventMap, contract.EventMap>,
  Same<api.EventRetryConfig, contract.EventRetryConfig>,
  Same<api.EventMetadata, contract.EventMetadata>,
  Same<api.EventPayload<1>, contract.EventPayload<1>>,
  Same<api.PublishOptions, contract.PublishOptions>,
  Same<api.SubscriptionOptions, contract.SubscriptionOptions>,
  Same<api.DeliveryContext, contract.DeliveryContext>,
  Same<api.EventHandlerFn<1>, contract.EventHandlerFn<1>>,
  Assignable<api.Subscription, contract.Subscription>,
  Same<api.EventBusConfig, contract.EventBusConfig>,
  Same<api.EventBusMetrics, contract.EventBusMetrics>,
  Same<api.EventBusStatus, contract.EventBusStatus>,
  Same<api.StreamConfig, contract.StreamConfig>,
  Same<api.StreamStats, contract.StreamStats>,
  Same<api.EventStream, contract.EventStream>,
  Same<api.DeadLetter<1>, contract.DeadLetter<1>>,
  Same<api.EventExplanation, contract.EventExplanation>,
  Assignable<api.DeadLetters, contract.DeadLetters>,
  Same<api.OSSAEventBusConfig, contract.OSSAEventBusConfig>,
  Same<api.ProjectConfig, contract.ProjectConfig>,
  Same<api.CrossProjectEventContract, contract.CrossProjectEventContract>,
  Same<api.CrossProjectMessage<1>, contract.CrossProjectMessage<1>>,
  Same<api.MessageRoute, contract.MessageRoute>,
  Same<api.CrossProjectStats, contract.CrossProjectStats>,
  Same<api.AuditOutcome, contract.AuditOutcome>,
  Same<api.AuditRecord, contract.AuditRecord>,
  Same<api.LoadBalancingConfig, contract.LoadBalancingConfig>,
  Same<api.OrchestrationTask, contract.OrchestrationTask>,
  Same<api.OrchestrationStats, contract.OrchestrationStats>,
  Same<api.AgentView, contract.AgentView>,
  Same<api.PoolView, contract.PoolView>,
  Same<api.MonitoringConfig, contract.MonitoringConfig>,
  Same<api.AlertEvent, contract.AlertEvent>,
  Same<api.DashboardData, contract.DashboardData>,
  Same<api.MonitoringStats, contract.MonitoringStats>,
  Same<api.ServiceCapability, contract.ServiceCapability>,
  Same<api.ServiceHealth, contract.ServiceHealth>,
  Same<api.ServiceDefinition, contract.ServiceDefinition>,
  Same<api.ServiceDiscoveryFilter, contract.ServiceDiscoveryFilter>,
  Same<api.ServiceRegistryConfig, contract.ServiceRegistryConfig>,
  Assignable<api.ServiceRegistry, contract.ServiceRegistry>,
  Same<api.OSSAErrorCode, contract.OSSAErrorCode>,
  Assignable<api.OSSAError, contract.OSSAError>,
  Same<api.DeepPartial<{ a: { b: 1 } }>, contract.DeepPartial<{ a: { b: 1 } }>>,
  Assignable<api.EventBus, contract.EventBus>,
  Assignable<api.RedisEventBus, contract.RedisEventBus>,
  Assignable<api.OSSAEventBus, contract.OSSAEventBus>,
];

// What the contract says of methods that take or answer more than it asks for.
type Contract = contract.ServiceRegistry;
type _Registry = [
  Assignable<Parameters<Contract['register']>[0], Parameters<api.ServiceRegistry['register']>[0]>,
  Assignable<Awaited<ReturnType<api.ServiceRegistry['getStats']>>, Awaited<ReturnType<Contract['getStats']>>>,
];

// A bus generic in its map, as the contract lets one write it.
export function generic<E extends api.EventMap, K extends keyof E & string>(bus: api.EventBus<E>, name: K, data: E[K]): void {
  void bus.publish(name, data);
  void bus.subscribe(name, (event) => {
    const same: E[K] = event.data;
    return same;
  });
}

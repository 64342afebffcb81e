/** What the HTTP API tells of, and whom it tells of its own troubles. */
import type * as api from '../../index';

/** The part of an OSSAEventBus that is shown. */
export type Shown = Pick<
  api.OSSAEventBus,
  | 'deadLetters'
  | 'explain'
  | 'exportMetrics'
  | 'getActiveAlerts'
  | 'getAgents'
  | 'getAnalytics'
  | 'getAuditLog'
  | 'getCrossProjectStats'
  | 'getDashboardData'
  | 'getGroups'
  | 'getOrchestrationStats'
  | 'getPools'
  | 'getServiceRegistryIntegration'
  | 'getStatus'
  | 'getTask'
  | 'healthCheck'
>;

/** Where answers come from. */
export interface Source {
  readonly bus: Shown;
  /** The registry that the bus was given; undefined: none, or it is not to be used. */
  readonly registry: Pick<api.ServiceRegistry, 'discover'> | undefined;
  /** What getAnalytics() takes, seconds. */
  windows(): readonly number[];
  /** Whether the bus takes work: it is connected, and nobody began to shut it down. */
  isOpen(): boolean;
  /** For what the log of the process is to say. Never throws. */
  warn(text: string): void;
  /** For errors that no client is told of. Never throws. */
  failed(what: string, error: unknown): void;
}

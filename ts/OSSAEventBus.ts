/** The orchestrating bus: the event bus, and what later versions put around it. */
import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type * as api from '../index';
import { resolveOssaConfig } from './config';
import { BusCore } from './core';
import { CORE, EventBus } from './EventBus';
import { describeThrown, invalidArgument, property } from './errors';
import { notYet } from './later';
import { RedisEventBus, SharedCore } from './RedisEventBus';

const CROSS_PROJECT = 'Until then, let projects share event types by name and keep them apart by source and headers.';
const ORCHESTRATION =
  "Until then, publish 'task.assigned' with the agent as target, or let agents share a group: each task then goes to one of them.";
const MONITORING = 'Until then, use getMetrics(), getStatus() and healthCheck().';

/** The event bus with service registry, cross-project messages, orchestration and monitoring around it. */
export class OSSAEventBus extends EventBus {
  readonly #bus: RedisEventBus;

  /** @throws OSSAError ERR_INVALID_CONFIG with the key's path */
  constructor(serviceRegistry?: api.ServiceRegistry | null, config?: api.DeepPartial<api.OSSAEventBusConfig>) {
    if (serviceRegistry !== undefined && serviceRegistry !== null && typeof property(serviceRegistry, 'discover') !== 'function') {
      throw invalidArgument('serviceRegistry', 'must be a ServiceRegistry, null or left out; the configuration is the second argument');
    }
    const { config: resolved, logger } = resolveOssaConfig(config);
    const core = new BusCore({ config: resolved.eventBus, logger }, { class: 'OSSAEventBus', start: 'initialize()', stop: 'shutdown()' });
    super(core);
    this.#bus = new RedisEventBus(new SharedCore(core) as object);
  }

  /** Connects; idempotent. Every method that needs it says ERR_NOT_INITIALIZED before. */
  initialize(): Promise<void> {
    return this.#bus.connect();
  }

  /** Lets handlers finish for at most drainTimeoutMs (10000), hands back the rest, closes; idempotent. */
  shutdown(options?: { drainTimeoutMs?: number }): Promise<void> {
    return this.#bus.disconnect(options);
  }

  /** How the parts are. */
  async getStatus(): ReturnType<api.OSSAEventBus['getStatus']> {
    return { eventBus: await this.#bus.getStatus() };
  }

  /** How the parts are, in one word each. Never rejects. */
  async healthCheck(): ReturnType<api.OSSAEventBus['healthCheck']> {
    const timestamp = new Date();
    try {
      const { status, ...details } = await this.#bus.getStatus();
      return { status, timestamp, components: { eventBus: { status, details } } };
    } catch (error) {
      const details = { code: property(error, 'code'), error: describeThrown(error) };
      return { status: 'unhealthy', timestamp, components: { eventBus: { status: 'unhealthy', details } } };
    }
  }

  /** Not in this version. */
  async registerProject(_config: api.ProjectConfig): Promise<void> {
    throw this.#later('registerProject()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async unregisterProject(_projectId: string): Promise<boolean> {
    throw this.#later('unregisterProject()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async registerContract(_contract: api.CrossProjectEventContract): Promise<void> {
    throw this.#later('registerContract()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async registerRoute(_route: api.MessageRoute): Promise<void> {
    throw this.#later('registerRoute()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async sendCrossProjectMessage(
    _source: string,
    _target: string | string[],
    _eventType: string,
    _data: unknown,
    _options?: object,
  ): Promise<string> {
    throw this.#later('sendCrossProjectMessage()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async setupCrossProjectHandler(
    _projectId: string,
    _eventType: string,
    _handler: (message: api.CrossProjectMessage, context: api.DeliveryContext) => unknown,
    _options?: { requireSignatureValidation?: boolean } & api.SubscriptionOptions,
  ): Promise<api.Subscription> {
    throw this.#later('setupCrossProjectHandler()', CROSS_PROJECT);
  }

  /** Not in this version. */
  getAvailableContracts(_projectId: string): api.CrossProjectEventContract[] {
    throw this.#later('getAvailableContracts()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async validateProjectSetup(_projectId: string): ReturnType<api.OSSAEventBus['validateProjectSetup']> {
    throw this.#later('validateProjectSetup()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async getCrossProjectStats(_projectId?: string): Promise<api.CrossProjectStats> {
    throw this.#later('getCrossProjectStats()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async getAuditLog(_query?: object): ReturnType<api.OSSAEventBus['getAuditLog']> {
    throw this.#later('getAuditLog()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async verifyAuditLog(): ReturnType<api.OSSAEventBus['verifyAuditLog']> {
    throw this.#later('verifyAuditLog()', CROSS_PROJECT);
  }

  /** Not in this version. */
  async distributeTask(_task: api.OrchestrationTask): Promise<string | null> {
    throw this.#later('distributeTask()', ORCHESTRATION);
  }

  /** Not in this version. */
  getOrchestrationStats(): api.OrchestrationStats {
    throw this.#later('getOrchestrationStats()', ORCHESTRATION);
  }

  /** Not in this version. */
  getAgents(): api.AgentView[] {
    throw this.#later('getAgents()', ORCHESTRATION);
  }

  /** Not in this version. */
  getPools(): api.PoolView[] {
    throw this.#later('getPools()', ORCHESTRATION);
  }

  /** Not in this version. */
  async getDashboardData(): Promise<api.DashboardData> {
    throw this.#later('getDashboardData()', MONITORING);
  }

  /** Not in this version. */
  exportMetrics(): string {
    throw this.#later('exportMetrics()', MONITORING);
  }

  /** Not in this version. */
  httpHandler(_options?: { token?: string; basePath?: string }): (req: IncomingMessage, res: ServerResponse) => void {
    throw this.#later('httpHandler()', MONITORING);
  }

  /** Not in this version. */
  async serve(_options?: { port?: number; host?: string; token?: string }): ReturnType<api.OSSAEventBus['serve']> {
    throw this.#later('serve()', MONITORING);
  }

  /** The event bus inside; both share one connection and one life. */
  getEventBus(): RedisEventBus {
    return this.#bus;
  }

  /** undefined: not in this version. */
  getServiceRegistryIntegration(): object | undefined {
    return undefined;
  }

  /** undefined: not in this version. */
  getCrossProjectCommunication(): object | undefined {
    return undefined;
  }

  /** undefined: not in this version. */
  getOrchestrationOptimizer(): object | undefined {
    return undefined;
  }

  /** undefined: not in this version. */
  getMonitoring(): (EventEmitter & { getMonitoringStats(): api.MonitoringStats }) | undefined {
    return undefined;
  }

  /** shutdown() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }

  /** Before initialize() and after shutdown() that is what is wrong; else that the part is missing. */
  #later(what: string, instead: string): Error {
    this[CORE].native();
    return notYet(what, instead);
  }
}

/** Makes an OSSAEventBus and initialises it. */
export async function createOSSAEventBus(
  serviceRegistry?: api.ServiceRegistry | null,
  config?: api.DeepPartial<api.OSSAEventBusConfig>,
): Promise<OSSAEventBus> {
  const bus = new OSSAEventBus(serviceRegistry, config);
  try {
    await bus.initialize();
  } catch (error) {
    await bus.shutdown().catch(() => undefined);
    throw error;
  }
  return bus;
}

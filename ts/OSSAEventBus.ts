/** The orchestrating bus: the event bus, and what is around it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type * as api from '../index';
import { resolveOssaConfig } from './config';
import { BusCore } from './core';
import { CORE, EventBus } from './EventBus';
import { OSSAError } from './errors';
import { checkHealth, type HealthComponent, type Part } from './health';
import { makeHandler } from './http/handler';
import { exposure, handlerOptions, serveOptions } from './http/options';
import { serve } from './http/server';
import type { Source } from './http/source';
import { Monitoring, processHealth } from './monitoring';
import { OrchestrationOptimizer, orchestrationComponent } from './orchestration';
import { CrossProjectCommunication } from './projects';
import { RedisEventBus, SharedCore } from './RedisEventBus';
import { accessTo } from './registryAccess';
import { registryComponent, ServiceRegistryIntegration } from './services';

/** The event bus with service registry, cross-project messages, orchestration and monitoring around it. */
export class OSSAEventBus extends EventBus {
  readonly #bus: RedisEventBus;
  readonly #projects: CrossProjectCommunication;
  readonly #hasProjects: boolean;
  /** undefined: agents are not to be orchestrated. */
  readonly #optimizer: OrchestrationOptimizer | undefined;
  /** undefined: nothing is measured, and nothing watched. */
  readonly #monitoring: Monitoring | undefined;
  readonly #monitoringConfig: api.MonitoringConfig;
  /** undefined: no registry was given, or it is not to be used. */
  readonly #services: ServiceRegistryIntegration | undefined;
  /** What is shown over HTTP. */
  readonly #shown: Source;

  /** @throws OSSAError ERR_INVALID_CONFIG with the key's path, ERR_INVALID_ARGUMENT for something else than a registry */
  constructor(serviceRegistry?: api.ServiceRegistry | null, config?: api.DeepPartial<api.OSSAEventBusConfig>) {
    const given = serviceRegistry === undefined || serviceRegistry === null ? undefined : accessTo(serviceRegistry);
    const { config: resolved, logger } = resolveOssaConfig(config);
    const access = resolved.serviceRegistry.enabled ? given : undefined;
    const core = new BusCore(
      {
        config: resolved.eventBus,
        crossProject: resolved.crossProject,
        orchestration: resolved.orchestration,
        monitoring: resolved.monitoring,
        ...(access === undefined ? {} : { serviceRegistry: () => ({ ...resolved.serviceRegistry, handle: access.handle() }) }),
        logger,
      },
      { class: 'OSSAEventBus', start: 'initialize()', stop: 'shutdown()' },
    );
    super(core);
    this.#bus = new RedisEventBus(new SharedCore(core) as object);
    this.#projects = new CrossProjectCommunication(core);
    this.#hasProjects = resolved.crossProject.enabled;
    this.#optimizer = resolved.orchestration.enabled ? new OrchestrationOptimizer(core) : undefined;
    const { metrics, alerting } = resolved.monitoring;
    this.#monitoringConfig = resolved.monitoring;
    this.#monitoring = metrics.enabled || alerting.enabled ? new Monitoring(core, () => this.healthCheck()) : undefined;
    this.#services = access === undefined ? undefined : new ServiceRegistryIntegration(core);
    this.#shown = {
      bus: this as unknown as Source['bus'],
      registry: access === undefined ? undefined : (serviceRegistry ?? undefined),
      windows: () => resolved.monitoring.metrics.aggregationWindows,
      isOpen: () => core.isOpen,
      warn: (text) => core.log.write('warn', text),
      failed: (what, error) => core.log.failure(what, error),
    };
  }

  /** Connects; idempotent. Every method that needs it says ERR_NOT_INITIALIZED before. */
  initialize(): Promise<void> {
    return this.#bus.connect();
  }

  /** Lets handlers finish for at most drainTimeoutMs (10000), hands back the rest, closes; idempotent. */
  shutdown(options?: { drainTimeoutMs?: number }): Promise<void> {
    return this.#bus.disconnect(options);
  }

  /** How the parts are; a part that cannot tell is left out. */
  async getStatus(): ReturnType<api.OSSAEventBus['getStatus']> {
    const eventBus = await this.#bus.getStatus();
    // Of a server that is away there are no figures.
    const asked = this.#hasProjects && eventBus.redis.connected ? this.#projects.getCrossProjectStats() : undefined;
    const told = <T>(status: Promise<T> | undefined) => status?.catch(() => undefined);
    const orchestration = async () => this.#optimizer?.getOrchestrationStats();
    const monitoring = async () => this.#monitoring?.getMonitoringStats();
    const [serviceRegistry, crossProject, agents, monitored] = await Promise.all([
      told(this.#services?.getStatus()),
      told(asked),
      told(orchestration()),
      told(monitoring()),
    ]);
    return {
      eventBus,
      ...(serviceRegistry === undefined ? {} : { serviceRegistry }),
      ...(crossProject === undefined ? {} : { crossProject }),
      ...(agents === undefined ? {} : { orchestration: agents }),
      ...(monitored === undefined ? {} : { monitoring: monitored }),
    };
  }

  /** How the parts are. Never rejects. */
  healthCheck(): Promise<api.HealthReport> {
    const status = this.#bus.getStatus();
    const { timeout } = this.#monitoringConfig.healthCheck;
    // Each part says so where it fails.
    status.catch(() => undefined);
    const services = this.#services;
    const optimizer = this.#optimizer;
    const parts: Record<string, Part | undefined> = {
      eventBus: {
        vital: true,
        look: async () => {
          const { status: is, ...details } = await status;
          return { status: is, details };
        },
      },
      redis: {
        vital: true,
        look: async () => {
          const { redis } = await status;
          return { status: redis.connected ? 'healthy' : 'unhealthy', details: redis };
        },
      },
      process: { vital: true, look: () => processComponent(this[CORE]) },
      serviceRegistry: services && { vital: false, look: async () => registryComponent(await services.getStatus()) },
      crossProject: this.#hasProjects ? { vital: false, look: () => this.#crossProjectComponent(status) } : undefined,
      orchestration: optimizer && { vital: false, look: () => orchestrationComponent(optimizer) },
      monitoring: this.#monitoring && { vital: false, look: () => alertsComponent(this.#monitoring as Monitoring) },
    };
    return checkHealth(parts, timeout);
  }

  /** Makes the project known to all processes; this one can send as it from now on. */
  async registerProject(config: api.ProjectConfig): Promise<void> {
    await this.#projects.registerProject(config);
  }

  /** Ends it; resolves with whether it was there. ERR_NOT_PERMITTED unless this process registered it with its secret. */
  async unregisterProject(projectId: string): Promise<boolean> {
    return this.#projects.unregisterProject(projectId);
  }

  /** Makes a contract known to all processes: messages are held against it when they are sent and when they come. */
  async registerContract(contract: api.CrossProjectEventContract): Promise<void> {
    await this.#projects.registerContract(contract);
  }

  /** Makes a route known to all processes; one of the same name is replaced. */
  async registerRoute(route: api.MessageRoute): Promise<void> {
    await this.#projects.registerRoute(route);
  }

  /** Resolves with the message's id once it is stored for all its targets. */
  async sendCrossProjectMessage(
    source: string,
    target: string | string[],
    eventType: string,
    data: unknown,
    options?: object,
  ): Promise<string> {
    return this.#projects.sendCrossProjectMessage(source, target, eventType, data, options);
  }

  /** Calls `handler` for each message of the type, or of all that match the pattern, to the project. */
  async setupCrossProjectHandler(
    projectId: string,
    eventType: string,
    handler: api.CrossProjectHandlerFn | api.CrossProjectBatchHandlerFn,
    options?: { requireSignatureValidation?: boolean } & api.SubscriptionOptions,
  ): Promise<api.Subscription> {
    return this.#projects.setupCrossProjectHandler(projectId, eventType, handler, options);
  }

  /** Contracts that the project sends or receives by, as this process knows them: without asking Redis. */
  getAvailableContracts(projectId: string): api.CrossProjectEventContract[] {
    return this.#projects.getAvailableContracts(projectId);
  }

  /** Whether a project can do its work, and what would make it better. */
  async validateProjectSetup(projectId: string): ReturnType<api.OSSAEventBus['validateProjectSetup']> {
    return this.#projects.validateProjectSetup(projectId);
  }

  /** Public keys of a project, the present one last: what to pin in crossProject.trustedKeys. */
  async getProjectKeys(projectId: string): Promise<api.ProjectKey[]> {
    return this.#projects.getProjectKeys(projectId);
  }

  /** Counted over all processes; with an id, of that project. */
  async getCrossProjectStats(projectId?: string): Promise<api.CrossProjectStats> {
    return this.#projects.getCrossProjectStats(projectId);
  }

  /** A page of audit records, oldest first. */
  async getAuditLog(query?: api.AuditQuery): ReturnType<api.OSSAEventBus['getAuditLog']> {
    return this.#projects.getAuditLog(query);
  }

  /** All audit records that match, each as a line of JSON. */
  exportAuditLog(query?: Omit<api.AuditQuery, 'limit' | 'cursor'>): AsyncGenerator<string, void, void> {
    return this.#projects.exportAuditLog(query);
  }

  /** Whether every audit record is as it was written, and none is missing. */
  async verifyAuditLog(): ReturnType<api.OSSAEventBus['verifyAuditLog']> {
    return this.#projects.verifyAuditLog();
  }

  /** Resolves with the id of the agent that gets the task, or null when it waits for one. Idempotent by the task's id. */
  async distributeTask(task: api.OrchestrationTask): Promise<string | null> {
    return this.#orchestration('distributeTask()').distributeTask(task);
  }

  /** Resolves with whether the task was there to be cancelled: its agent is told, nobody else gets it. */
  async cancelTask(id: string, reason?: string): Promise<boolean> {
    return this.#orchestration('cancelTask()').cancelTask(id, reason);
  }

  /** What is known of a task; null when there is none of that id. */
  async getTask(id: string): Promise<api.TaskView | null> {
    return this.#orchestration('getTask()').getTask(id);
  }

  /** Figures over all agents, as this process knows them: without asking Redis. */
  getOrchestrationStats(): api.OrchestrationStats {
    return this.#orchestration('getOrchestrationStats()').getOrchestrationStats();
  }

  /** Agents, as this process knows them. */
  getAgents(): api.AgentView[] {
    return this.#orchestration('getAgents()').getAgents();
  }

  /** Pools, as this process knows them. */
  getPools(): api.PoolView[] {
    return this.#orchestration('getPools()').getPools();
  }

  /** What the dashboard shows: measured figures only. */
  async getDashboardData(): Promise<api.DashboardData> {
    return this.#measured('getDashboardData()').getDashboardData();
  }

  /** What this process did in the last `windowSeconds`, and before. */
  getAnalytics(windowSeconds?: number): api.Analytics {
    return this.#measured('getAnalytics()').getAnalytics(windowSeconds);
  }

  /** Alerts that are raised now, the oldest first. */
  getActiveAlerts(): api.AlertEvent[] {
    return this.#measured('getActiveAlerts()').getActiveAlerts();
  }

  /** All consumer groups of all event types, as they stand in Redis. */
  getGroups(): Promise<api.GroupView[]> {
    return this[CORE].call('groups', {});
  }

  /** Metrics in the text format 0.0.4 of Prometheus. */
  exportMetrics(): string {
    return this.#measured('exportMetrics()').exportMetrics();
  }

  /** A handler of requests: metrics, health, the HTTP API and the dashboard page, see docs/dashboard.md. It never throws. */
  httpHandler(options?: { token?: string; basePath?: string }): (req: IncomingMessage, res: ServerResponse) => void {
    this[CORE].native();
    return makeHandler(this.#shown, handlerOptions(options));
  }

  /** The same on a server of its own, on 127.0.0.1:3000 unless told otherwise. It ends with the bus. */
  async serve(options?: { port?: number; host?: string; token?: string }): ReturnType<api.OSSAEventBus['serve']> {
    const core = this[CORE];
    core.native();
    const checked = serveOptions(options);
    const { token } = checked;
    const serving = await serve(makeHandler(this.#shown, { basePath: '', ...(token === undefined ? {} : { token }) }), checked);
    const warning = exposure(checked);
    if (warning !== undefined) core.log.write('warn', warning);
    const forget = core.atEnd(() => serving.close());
    // It may have been shut down meanwhile.
    core.native();
    const { port, url } = serving;
    return { port, url, close: () => serving.close().finally(forget) };
  }

  /** The event bus inside; both share one connection and one life. */
  getEventBus(): RedisEventBus {
    return this.#bus;
  }

  /** What this bus does with services, on its own; undefined without a registry and where serviceRegistry.enabled is false. */
  getServiceRegistryIntegration(): api.ServiceRegistryIntegration | undefined {
    return this.#services;
  }

  /** What there is for projects, on its own; undefined where crossProject.enabled is false. */
  getCrossProjectCommunication(): object | undefined {
    return this.#hasProjects ? this.#projects : undefined;
  }

  /** What there is for agents and their tasks, on its own; undefined where orchestration.enabled is false. */
  getOrchestrationOptimizer(): api.OrchestrationOptimizer | undefined {
    return this.#optimizer;
  }

  /** What there is for monitoring, on its own; undefined where metrics and alerting are off. */
  getMonitoring(): api.Monitoring | undefined {
    return this.#monitoring;
  }

  /** shutdown() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }

  async #crossProjectComponent(status: Promise<api.EventBusStatus>): Promise<HealthComponent> {
    // Of a server that is away there are no figures.
    if (!(await status).redis.connected) return { status: 'unhealthy', details: { error: 'Redis is away' } };
    const { projectStats: _, ...details } = await this.#projects.getCrossProjectStats();
    return { status: 'healthy', details };
  }

  /** Before initialize() and after shutdown() that is what is wrong; else that nothing is measured. */
  #measured(what: string): Monitoring {
    this[CORE].native();
    if (this.#monitoring !== undefined) return this.#monitoring;
    throw new OSSAError(`${what} needs monitoring.metrics.enabled, which is false in the configuration of this bus`, {
      code: 'ERR_DISABLED',
      details: { feature: what, path: 'monitoring.metrics.enabled' },
    });
  }

  /** Before initialize() and after shutdown() that is what is wrong; else that agents are not to be orchestrated. */
  #orchestration(what: string): OrchestrationOptimizer {
    this[CORE].native();
    if (this.#optimizer !== undefined) return this.#optimizer;
    throw new OSSAError(`${what} needs orchestration.enabled, which is false in the configuration of this bus`, {
      code: 'ERR_DISABLED',
      details: { feature: what, path: 'orchestration.enabled' },
    });
  }
}

/** Unhealthy where a figure is beyond its critical threshold. */
function processComponent(core: BusCore): HealthComponent {
  const { problems, ...figures } = processHealth(core);
  const details = { ...figures, ...(problems.length === 0 ? {} : { problems }) };
  return { status: problems.length === 0 ? 'healthy' : 'unhealthy', details };
}

/** Degraded while an alert is raised. */
function alertsComponent(monitoring: Monitoring): HealthComponent {
  const activeAlerts = monitoring.getActiveAlerts();
  return { status: activeAlerts.length === 0 ? 'healthy' : 'degraded', details: { activeAlerts } };
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

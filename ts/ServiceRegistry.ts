/** The register of services, shared by all processes that use the same Redis. */
import { addon } from './addon';
import { text } from './arguments';
import { resolveServiceRegistryConfig } from './config';
import {
  type CrossedDefinition,
  type CrossedHealth,
  crossedFilter,
  crossedService,
  crossedUpdates,
  definitionOf,
  healthOf,
} from './definitions';
import { LISTENERS_CHANGED, ObservedEmitter } from './emitter';
import { settingsOf } from './redisClient';
import { REGISTRY_ACCESS, type RegistryAccess } from './registryAccess';
import { RegistryCore } from './registryCore';
import type {
  DeepPartial,
  ServiceDefinition,
  ServiceDiscoveryFilter,
  ServiceHealth,
  ServiceRegistration,
  ServiceRegistryConfig,
  ServiceRegistryStats,
} from './types';

/**
 * Services and how they are. Connects at the first call, or when the first listener for a 'service:…' event comes.
 *
 * Events: 'service:registered' 'service:updated' 'service:unregistered' 'service:expired' 'service:health:changed', whichever process
 * caused them, and 'registry:error'. A listener that throws is logged; 'registry:error' without a listener is logged too and never ends
 * the process.
 *
 * Node is kept alive by a call on its way, by health monitoring, and by a listener for a 'service:…' event; not by services that are
 * registered.
 */
export class ServiceRegistry extends ObservedEmitter {
  readonly #core: RegistryCore;

  /**
   * `redisClient`: an ioredis or node-redis client, taken for its connection settings only; what `config` says wins.
   * @throws OSSAError ERR_INVALID_CONFIG with the key's path, ERR_INVALID_ARGUMENT for something else than a client
   */
  constructor(config?: DeepPartial<ServiceRegistryConfig>, redisClient?: object) {
    super();
    const given = redisClient === undefined || redisClient === null ? config : settingsOf(redisClient, config);
    this.#core = new RegistryCore(resolveServiceRegistryConfig(given));
    this.#core.lifecycle.attach(this);
  }

  /**
   * Makes the service known to all processes, and renews it until it is unregistered, this registry is closed or the process ends; one
   * of the same name is replaced. Resolves with it as it is registered. ERR_SERVICE_INVALID with `details.path`.
   */
  async register(service: ServiceRegistration): Promise<ServiceDefinition> {
    return definitionOf(await this.#core.call<CrossedDefinition>('register', crossedService(service)));
  }

  /** The services for which all of the filter holds; without one, all. */
  async discover(filter?: ServiceDiscoveryFilter): Promise<ServiceDefinition[]> {
    return (await this.#core.call<CrossedDefinition[]>('discover', crossedFilter(filter))).map(definitionOf);
  }

  /** How the service was when last looked at; null when there is none of that name. */
  async health(serviceName: string): Promise<ServiceHealth | null> {
    const health = await this.#core.call<CrossedHealth | null>('health', { name: text('serviceName', serviceName) });
    return health === null ? null : healthOf(health);
  }

  /** Takes the service out, whoever registered it; resolves with whether it was there. */
  async unregister(serviceName: string): Promise<boolean> {
    return this.#core.call<boolean>('unregister', { name: text('serviceName', serviceName) });
  }

  /**
   * Changes what is said of a service: `metadata` key by key, everything else as a whole. Resolves with what is registered then, or null
   * when there is none of that name. ERR_SERVICE_INVALID with `details.path`; a name cannot be changed.
   */
  async updateService(serviceName: string, updates: Partial<ServiceDefinition>): Promise<ServiceDefinition | null> {
    const args = { name: text('serviceName', serviceName), updates: crossedUpdates(updates) };
    const service = await this.#core.call<CrossedDefinition | null>('update', args);
    return service === null ? null : definitionOf(service);
  }

  /** From now on services are looked after in turn by all processes that do so; resolves once that began. */
  startHealthMonitoring(): Promise<void> {
    return this.#core.startMonitoring();
  }

  /** This process looks after them no longer. Never throws. */
  stopHealthMonitoring(): void {
    this.#core.stopMonitoring();
  }

  /** All services. */
  async getAllServices(): Promise<ServiceDefinition[]> {
    return (await this.#core.call<CrossedDefinition[]>('all', {})).map(definitionOf);
  }

  /** How many services there are, and how they are. */
  async getStats(): Promise<ServiceRegistryStats> {
    return this.#core.call<ServiceRegistryStats>('stats', {});
  }

  /** Ends monitoring and renewing, disconnects; idempotent. Later calls are ERR_CLOSED. */
  close(): Promise<void> {
    return this.#core.close();
  }

  /** close() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal For an OSSAEventBus. */
  [REGISTRY_ACCESS](): RegistryAccess {
    // Read now: what is no registry, but has its methods, fails here.
    const core = this.#core;
    return { addon: addon(), handle: () => core.native().handle };
  }

  /** @internal The first listener for services connects. */
  [LISTENERS_CHANGED](): void {
    this.#core.listenersChanged();
  }
}

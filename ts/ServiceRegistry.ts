/** The service registry: in this version it can be made, passed to a bus and closed. */
import { EventEmitter } from 'node:events';
import { resolveServiceRegistryConfig } from './config';
import { closed } from './errors';
import { notYet } from './later';
import { settingsOf } from './redisClient';
import type { DeepPartial, ServiceDefinition, ServiceDiscoveryFilter, ServiceHealth, ServiceRegistryConfig } from './types';

const INSTEAD = 'Until then, subscribe to an event type of your own in which services announce themselves.';

/**
 * Events, once services are kept: 'service:registered' 'service:updated' 'service:unregistered' 'service:expired'
 * 'service:health:changed' 'registry:error'.
 */
export class ServiceRegistry extends EventEmitter {
  #closed = false;

  /**
   * `redisClient`: an ioredis or node-redis client, taken for its connection settings only; what `config` says wins.
   * @throws OSSAError ERR_INVALID_CONFIG with the key's path, ERR_INVALID_ARGUMENT for something else than a client
   */
  constructor(config?: DeepPartial<ServiceRegistryConfig>, redisClient?: object) {
    super();
    resolveServiceRegistryConfig(redisClient === undefined || redisClient === null ? config : settingsOf(redisClient, config));
  }

  /** Not in this version. */
  async register(_service: Omit<ServiceDefinition, 'registeredAt' | 'updatedAt'>): Promise<ServiceDefinition> {
    throw this.#later('register()');
  }

  /** Not in this version. */
  async discover(_filter?: ServiceDiscoveryFilter): Promise<ServiceDefinition[]> {
    throw this.#later('discover()');
  }

  /** Not in this version. */
  async health(_serviceName: string): Promise<ServiceHealth | null> {
    throw this.#later('health()');
  }

  /** Not in this version. */
  async unregister(_serviceName: string): Promise<boolean> {
    throw this.#later('unregister()');
  }

  /** Not in this version. */
  async updateService(_serviceName: string, _updates: Partial<ServiceDefinition>): Promise<ServiceDefinition | null> {
    throw this.#later('updateService()');
  }

  /** Not in this version. */
  async startHealthMonitoring(): Promise<void> {
    throw this.#later('startHealthMonitoring()');
  }

  /** Nothing to stop in this version. */
  stopHealthMonitoring(): void {}

  /** Not in this version. */
  async getAllServices(): Promise<ServiceDefinition[]> {
    throw this.#later('getAllServices()');
  }

  /** Not in this version. */
  async getStats(): Promise<{
    totalServices: number;
    healthyServices: number;
    unhealthyServices: number;
    degradedServices: number;
    unknownServices: number;
  }> {
    throw this.#later('getStats()');
  }

  /** Closes the registry; idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  /** close() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #later(what: string): Error {
    return this.#closed
      ? closed('This ServiceRegistry was closed and stays so: make a new one')
      : notYet(`ServiceRegistry.${what}`, INSTEAD);
  }
}

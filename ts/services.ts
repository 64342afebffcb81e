/** What an OSSAEventBus does with the service registry it was given. */
import { text } from './arguments';
import type { BusCore } from './core';
import type { HealthComponent } from './health';
import type { ServiceRegistryIntegrationStatus } from './types';

/** `getServiceRegistryIntegration()`. */
export class ServiceRegistryIntegration {
  readonly #core: BusCore;

  /** @internal */
  constructor(core: BusCore) {
    this.#core = core;
  }

  /** How the registry and its services are, as this bus sees them. */
  getStatus(): Promise<ServiceRegistryIntegrationStatus> {
    return this.#core.call('services.status', {});
  }

  /** Asks all services now, or the one named, for the contracts they announce, and registers them. */
  async discoverContracts(
    service?: string,
  ): Promise<{ registered: number; refused: Array<{ service: string; contract: string; reason: string }> }> {
    const name = service === undefined || service === null ? undefined : text('service', service);
    return this.#core.call('services.discoverContracts', { name });
  }
}

/**
 * The registry as a part of the bus: unhealthy where its Redis cannot be reached; degraded where a service is unhealthy or degraded, a
 * circuit is not closed, or something else is told as a problem.
 */
export function registryComponent(status: ServiceRegistryIntegrationStatus): HealthComponent {
  const { connected, services, routes, problem } = status;
  if (!connected) return { status: 'unhealthy', details: status };
  const down = services.unhealthyServices + services.degradedServices > 0 || routes.some(({ circuit }) => circuit !== 'closed');
  return { status: down || problem !== undefined ? 'degraded' : 'healthy', details: status };
}

/** The core bus. */
import { resolveEventBusConfig } from './config';
import { BusCore } from './core';
import { CORE, EventBus } from './EventBus';
import { drainTimeout } from './subscription';
import type { DeepPartial, EventBusConfig, EventBusStatus } from './types';

/** In place of a configuration: the core of an OSSAEventBus, which its RedisEventBus shares. */
export class SharedCore {
  constructor(readonly core: BusCore) {}
}

/** Publishes and subscribes over Redis Streams, or within the process with a `memory://` address. */
export class RedisEventBus extends EventBus {
  /** @throws OSSAError ERR_INVALID_CONFIG with the key's path */
  constructor(config?: DeepPartial<EventBusConfig>) {
    super(
      config instanceof SharedCore
        ? config.core
        : new BusCore(resolveEventBusConfig(config), { class: 'RedisEventBus', start: 'connect()', stop: 'disconnect()' }),
    );
  }

  /** Connects; idempotent. Rejects ERR_CONNECTION within connectTimeoutMs when there is no Redis. */
  connect(): Promise<void> {
    return this[CORE].connect();
  }

  /** Lets handlers finish for at most drainTimeoutMs (10000), hands back the rest, closes; idempotent. */
  async disconnect(options?: { drainTimeoutMs?: number }): Promise<void> {
    return this[CORE].disconnect(drainTimeout(options));
  }

  /** How the bus and its Redis are. */
  async getStatus(): Promise<EventBusStatus> {
    const status = await this[CORE].call<Omit<EventBusStatus, 'lastHealthCheck'> & { lastHealthCheck: number }>('status', {});
    return { ...status, lastHealthCheck: new Date(status.lastHealthCheck) };
  }

  /** disconnect() */
  [Symbol.asyncDispose](): Promise<void> {
    return this.disconnect();
  }
}

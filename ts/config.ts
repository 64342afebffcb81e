/** Configuration: the user's object and the environment go to the engine, which knows all keys; what JSON cannot carry is seen to here. */
import { addon } from './addon';
import { fromNative, invalidConfig, property } from './errors';
import { encode } from './json';
import type { NativeAnswer } from './native';
import type { EventBusConfig, Logger, OSSAEventBusConfig, ServiceRegistryConfig } from './types';

/** Environment variables of these families cross; the engine knows which of them count. */
const ENVIRONMENT = /^(REDIS|EVENTBUS|MONITORING|METRICS|HEALTH_CHECK|SERVICE|OSSA)_/;

/** The whole configuration of an event bus, and the user's logger. */
export interface ResolvedEventBus {
  config: EventBusConfig;
  logger: Logger | undefined;
  /** Of an OSSAEventBus. */
  crossProject?: OSSAEventBusConfig['crossProject'];
  /** Of an OSSAEventBus. */
  orchestration?: OSSAEventBusConfig['orchestration'];
  /** Of an OSSAEventBus. */
  monitoring?: OSSAEventBusConfig['monitoring'];
  /** Of an OSSAEventBus that works with a registry: asked when the bus is opened; throws ERR_CLOSED for one that was closed. */
  serviceRegistry?: () => OSSAEventBusConfig['serviceRegistry'] & { handle: number };
}

/**
 * Configuration of a RedisEventBus.
 * @throws OSSAError ERR_INVALID_CONFIG
 */
export function resolveEventBusConfig(argument: unknown): ResolvedEventBus {
  const logger = takeLogger(argument, 'logger');
  return { config: resolve<EventBusConfig>('eventBus', withLoggerMarked(argument, logger)), logger };
}

/**
 * Configuration of an OSSAEventBus.
 * @throws OSSAError ERR_INVALID_CONFIG
 */
export function resolveOssaConfig(argument: unknown): { config: OSSAEventBusConfig; logger: Logger | undefined } {
  const inner = property(argument, 'eventBus');
  const logger = takeLogger(inner, 'eventBus.logger');
  const marked = logger === undefined ? argument : { ...(argument as object), eventBus: withLoggerMarked(inner, logger) };
  return { config: resolve<OSSAEventBusConfig>('ossa', marked), logger };
}

/**
 * Configuration of a ServiceRegistry.
 * @throws OSSAError ERR_INVALID_CONFIG
 */
export function resolveServiceRegistryConfig(argument: unknown): { config: ServiceRegistryConfig; logger: Logger | undefined } {
  const logger = takeLogger(argument, 'logger');
  return { config: resolve<ServiceRegistryConfig>('serviceRegistry', withLoggerMarked(argument, logger)), logger };
}

function resolve<T>(kind: string, argument: unknown): T {
  if (argument !== undefined && (typeof argument !== 'object' || argument === null || Array.isArray(argument))) {
    throw invalidConfig('config', 'must be an object, or left out');
  }
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && ENVIRONMENT.test(name)) environment[name] = value;
  }
  const answer = JSON.parse(addon().resolveConfig(kind, encode(argument ?? {}), JSON.stringify(environment))) as NativeAnswer<T>;
  if ('err' in answer) throw fromNative(answer.err);
  return answer.ok;
}

const LOGGER_FUNCTIONS = ['debug', 'info', 'warn', 'error'] as const;

function takeLogger(config: unknown, path: string): Logger | undefined {
  const logger = property(config, 'logger');
  if (logger === undefined) return undefined;
  for (const name of LOGGER_FUNCTIONS) {
    if (typeof property(logger, name) !== 'function') {
      throw invalidConfig(path, `must have the functions ${LOGGER_FUNCTIONS.join(', ')}; '${name}' is missing`);
    }
  }
  return logger as Logger;
}

function withLoggerMarked(config: unknown, logger: Logger | undefined): unknown {
  return logger === undefined ? config : { ...(config as object), logger: { $logger: true } };
}

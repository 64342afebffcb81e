/** How a bus gets at the registry it was given. */
import { addon } from './addon';
import { invalidArgument, property } from './errors';
import type { NativeAddon } from './native';

/**
 * What a ServiceRegistry answers for. Known to every copy of the package in the process, so that a bus can tell a registry of another
 * copy from something else.
 */
export const REGISTRY_ACCESS: unique symbol = Symbol.for('@bluefly/ossa:registryAccess') as never;

/** The answer. */
export interface RegistryAccess {
  /** Whose registry it is: a handle says nothing to another addon. */
  readonly addon: NativeAddon;
  /** Names the registry, which is made for it but not connected. Throws ERR_CLOSED after close. */
  handle(): number;
}

/**
 * Access to the registry that was given as argument `serviceRegistry`.
 * @throws OSSAError ERR_INVALID_ARGUMENT for something else, or a registry of another copy of the package with another addon
 */
export function accessTo(registry: object): RegistryAccess {
  const access = ask(registry);
  if (typeof property(access, 'handle') !== 'function') {
    throw invalidArgument('serviceRegistry', 'must be a ServiceRegistry, null or left out; the configuration is the second argument');
  }
  if (property(access, 'addon') !== addon()) {
    throw invalidArgument(
      'serviceRegistry',
      'comes from another copy of @bluefly/ossa, with a native part of its own; make it with the ServiceRegistry of the copy that the bus ' +
        "is from ('npm ls @bluefly/ossa' shows them, 'npm dedupe' may leave one)",
    );
  }
  return access as RegistryAccess;
}

function ask(registry: object): unknown {
  const method = property(registry, REGISTRY_ACCESS);
  try {
    return typeof method === 'function' ? Reflect.apply(method, registry, []) : undefined;
  } catch {
    // It has the method of a registry without being one: a prototype, or a proxy.
    return undefined;
  }
}

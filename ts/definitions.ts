/**
 * Services on their way into the engine and back. The engine checks them; here is seen to what cannot cross as it is: times are ms
 * there and Dates here, and what has no JSON form is refused where it stands.
 */
import { types } from 'node:util';
import { keysOf, type Refuse } from './arguments';
import { invalidArgument, OSSAError } from './errors';
import { copied } from './json';
import type { ServiceDefinition, ServiceHealth } from './types';

/** Health as it crosses. */
export interface CrossedHealth extends Omit<ServiceHealth, 'lastCheck'> {
  lastCheck: number;
}

/** A service as it crosses. */
export interface CrossedDefinition extends Omit<ServiceDefinition, 'health' | 'registeredAt' | 'updatedAt'> {
  health: CrossedHealth;
  registeredAt: number;
  updatedAt: number;
}

/** Argument of register(). Times of registration, as a discovered service has them, go along. */
export function crossedService(service: unknown): unknown {
  return crossed('service', service);
}

/** Second argument of updateService(). */
export function crossedUpdates(updates: unknown): unknown {
  return crossed('updates', updates);
}

/** Argument of discover(). */
export function crossedFilter(filter: unknown): unknown {
  if (filter === undefined || filter === null) return {};
  const keys = keysOf('filter', filter);
  if (keys === undefined) throw invalidArgument('filter', 'must be an object, or left out');
  return form('filter', keys, invalidArgument);
}

/** The health that was answered. */
export function healthOf(health: CrossedHealth): ServiceHealth {
  return { ...health, lastCheck: new Date(health.lastCheck) };
}

/** The service that was answered. */
export function definitionOf(service: CrossedDefinition): ServiceDefinition {
  return {
    ...service,
    health: healthOf(service.health),
    registeredAt: new Date(service.registeredAt),
    updatedAt: new Date(service.updatedAt),
  };
}

function crossed(path: string, service: unknown): unknown {
  const keys = keysOf(path, service, invalid);
  if (keys === undefined) throw invalid(path, 'must be an object');
  for (const key of ['registeredAt', 'updatedAt']) toMs(keys, key, path);
  const health = keysOf(`${path}.health`, keys['health'], invalid);
  if (health !== undefined) {
    toMs(health, 'lastCheck', `${path}.health`);
    keys['health'] = health;
  }
  return form(path, keys, invalid);
}

/** A number would cross as well, and be taken for a time: only a Date is one. */
function toMs(object: Record<string, unknown>, key: string, path: string): void {
  const value = object[key];
  if (value === undefined) return;
  if (!types.isDate(value) || Number.isNaN(value.getTime())) throw invalid(`${path}.${key}`, 'must be a valid Date');
  object[key] = value.getTime();
}

function form(path: string, value: unknown, refuse: Refuse): unknown {
  const read = copied(value, path);
  if ('copy' in read) return read.copy;
  throw refuse(read.at, `must have a JSON form, got ${read.what}`);
}

function invalid(path: string, problem: string): OSSAError {
  return new OSSAError(`${path}: ${problem}`, { code: 'ERR_SERVICE_INVALID', details: { path } });
}

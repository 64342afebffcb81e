/** The classes as they are written (`ts/`) against the types that users get (`index.d.ts`). */
import type * as api from '../../index.js';
import * as facade from '../../ts/index.js';

// EventBus is abstract, and made by its two subclasses only: its instances are compared, not its constructor.
type Values = Omit<typeof api, 'EventBus'>;
export const all: { [Name in keyof Values]: Values[Name] } = facade;
export const base: api.EventBus = null as unknown as facade.EventBus;

// Nothing is exported at run time that the types do not know.
export const known: keyof typeof api = null as unknown as keyof typeof facade;

// Built-in events: each name of EVENT_TYPES has a type for its data, and the other way round.
type Leaf<T> = { [Group in keyof T]: T[Group][keyof T[Group]] }[keyof T];
export const typed: keyof api.BuiltInEvents = null as unknown as Leaf<typeof api.EVENT_TYPES>;
export const named: Leaf<typeof api.EVENT_TYPES> = null as unknown as keyof api.BuiltInEvents;

/** Answers of the HTTP API, as JSON has them: the types of the contract with times as ISO 8601 and numbers that may be missing. */
import type * as api from '../../index';

/** `T` after JSON. */
export type Wire<T> = T extends Date
  ? string
  : T extends (infer Item)[]
    ? Wire<Item>[]
    : T extends object
      ? { [K in keyof T]: Wire<T[K]> }
      : T;

export type Alert = Wire<api.AlertEvent>;
export type Analytics = Wire<api.Analytics> & { windows: number[] };
export type AuditRecord = Wire<api.AuditRecord>;
export type Agent = Wire<api.AgentView>;
export type Dashboard = Wire<api.DashboardData>;
export type DeadLetter = Wire<api.DeadLetter>;
/** A letter of the list, without the event's data. */
export type BriefLetter = Omit<DeadLetter, 'event'> & { event: Pick<DeadLetter['event'], 'metadata'>; preview: string; dataBytes: number };
export type Explanation = Wire<api.EventExplanation>;
export type Group = Wire<api.GroupView>;
export type Health = Wire<Awaited<ReturnType<api.OSSAEventBus['healthCheck']>>>;
export type LetterIds = { ids: string[]; cursor?: string; scanned: number };
export type LetterPage = { items: BriefLetter[]; cursor?: string; scanned: number };
export type Orchestration = Wire<api.OrchestrationStats>;
export type Pool = Wire<api.PoolView>;
export type Projects = Wire<api.CrossProjectStats>;
export type Refusals = { items: AuditRecord[]; from: string; complete: boolean; missing?: 'older' | 'newer' };
export type Services = { services: Wire<api.ServiceDefinition>[]; status: Wire<api.ServiceRegistryIntegrationStatus> };
export type Task = Wire<api.TaskView>;

/** Messages between projects: calls to the engine, and what it answers as users know it. */
import { types } from 'node:util';
import type { AuditOutcome } from '../index';
import type { BusCore } from './core';
import { fromNative, invalidArgument } from './errors';
import type { NativeAnswer } from './native';
import { type CrossedMetadata, parseMetadata, toMetadata } from './payload';
import { dateMs } from './publishOptions';
import type {
  AuditQuery,
  AuditRecord,
  CrossProjectEventContract,
  CrossProjectMessage,
  CrossProjectStats,
  EventRetryConfig,
  MessageRoute,
  ProjectConfig,
  Subscription,
} from './types';

/** Times cross as ms. */
type Crossed<T> = { [K in keyof T]: T[K] extends Date ? number : T[K] };
type CrossedContract = Omit<CrossProjectEventContract, 'metadata'> & { metadata: Crossed<CrossProjectEventContract['metadata']> };

/** Records of one page of an export. */
const EXPORT_PAGE = 500;

/** `getCrossProjectCommunication()`: what an OSSAEventBus offers for projects, on its own. */
export class CrossProjectCommunication {
  readonly #core: BusCore;

  /** @internal */
  constructor(core: BusCore) {
    this.#core = core;
  }

  /** Makes the project known to all processes. */
  async registerProject(config: ProjectConfig): Promise<void> {
    await this.#core.call('projects.register', config);
  }

  /** Ends it; resolves with whether it was there. */
  unregisterProject(projectId: string): Promise<boolean> {
    return this.#core.call<boolean>('projects.unregister', { projectId: text('projectId', projectId) });
  }

  /** Makes a contract known to all processes. */
  async registerContract(contract: CrossProjectEventContract): Promise<void> {
    await this.#core.call('projects.registerContract', withTimes(contract));
  }

  /** Makes a route known to all processes; one of the same name is replaced. */
  async registerRoute(route: MessageRoute): Promise<void> {
    await this.#core.call('projects.registerRoute', route);
  }

  /** Resolves with the message's id once it is stored for all its targets. */
  sendCrossProjectMessage(source: string, target: string | string[], eventType: string, data: unknown, options?: object): Promise<string> {
    return this.#core.publisher.send(source, target, eventType, data, options);
  }

  /** Calls `handler` for each message of the type, or of all that match the pattern, to the project. */
  async setupCrossProjectHandler(
    projectId: string,
    eventType: string,
    handler: (...args: any[]) => unknown,
    options?: object,
  ): Promise<Subscription> {
    const project = text('projectId', projectId);
    if (typeof handler !== 'function') throw invalidArgument('handler', 'must be a function');
    return this.#core.subscribe(eventType, handler, options, project);
  }

  /** Contracts that the project sends or receives by, as this process knows them. */
  getAvailableContracts(projectId: string): CrossProjectEventContract[] {
    const answer = JSON.parse(this.#core.native().contracts(text('projectId', projectId))) as NativeAnswer<CrossedContract[]>;
    if ('err' in answer) throw fromNative(answer.err);
    return answer.ok.map(({ metadata, ...contract }) => ({
      ...contract,
      metadata: { ...metadata, createdAt: new Date(metadata.createdAt), updatedAt: new Date(metadata.updatedAt) },
    }));
  }

  /** Whether a project can do its work, and what would make it better. */
  validateProjectSetup(projectId: string): Promise<{ isValid: boolean; errors: string[]; warnings: string[]; recommendations: string[] }> {
    return this.#core.call('projects.validate', { projectId: text('projectId', projectId) });
  }

  /** Counted over all processes; with an id, of that project. */
  async getCrossProjectStats(projectId?: string): Promise<CrossProjectStats> {
    const id = projectId === undefined || projectId === null ? undefined : text('projectId', projectId);
    const { projectStats, ...stats } = await this.#core.call<
      Omit<CrossProjectStats, 'projectStats'> & { projectStats: Array<Crossed<NonNullable<CrossProjectStats['projectStats']>[number]>> }
    >('projects.stats', { projectId: id });
    return { ...stats, projectStats: projectStats.map((each) => ({ ...each, lastActivity: new Date(each.lastActivity) })) };
  }

  /** A page of audit records, oldest first; `cursor` asks for the next page. A page may be short and have more behind it. */
  async getAuditLog(query?: AuditQuery): Promise<{ items: AuditRecord[]; cursor?: string }> {
    return this.#page(auditQuery(query));
  }

  /** All audit records that match, each as a line of JSON. */
  async *exportAuditLog(query?: Omit<AuditQuery, 'limit' | 'cursor'>): AsyncGenerator<string, void, void> {
    const asked = auditQuery(query);
    let cursor: string | undefined;
    do {
      const page: { items: AuditRecord[]; cursor?: string } = await this.#page({
        ...asked,
        limit: EXPORT_PAGE,
        ...(cursor === undefined ? {} : { cursor }),
      });
      for (const record of page.items) yield `${JSON.stringify(record)}\n`;
      cursor = page.cursor;
    } while (cursor !== undefined);
  }

  /** Whether every record is as it was written, and none is missing. */
  verifyAuditLog(): Promise<{ ok: boolean; checked: number; firstBroken?: string }> {
    return this.#core.call('projects.verifyAudit', {});
  }

  async #page(query: Record<string, unknown>): Promise<{ items: AuditRecord[]; cursor?: string }> {
    const { items, cursor } = await this.#core.call<{ items: Array<Crossed<AuditRecord>>; cursor?: string }>('projects.audit', query);
    const records = items.map((item) => ({ ...item, at: new Date(item.at) }) as AuditRecord);
    return cursor === undefined ? { items: records } : { items: records, cursor };
  }
}

/** A message to a project, from the JSON texts of its delivery. Throws where one is not JSON. */
export function toMessage(
  meta: string,
  data: string,
  stream: string,
  attempt: number,
  retryDefaults: EventRetryConfig,
): CrossProjectMessage {
  const crossed: CrossedMetadata = parseMetadata(meta);
  const about = crossed.message;
  const metadata = toMetadata(crossed, stream.slice(stream.indexOf('/') + 1), attempt, retryDefaults);
  const message: CrossProjectMessage = {
    source: { projectId: crossed.source, namespace: about?.from ?? '', version: crossed.version },
    target: { projectId: crossed.target ?? '', namespace: about?.to ?? '' },
    payload: { metadata, data: JSON.parse(data) as unknown },
    security: { signature: crossed.sig ?? '', timestamp: crossed.timestamp, nonce: crossed.id },
  };
  if (about?.keyId !== undefined) message.security.keyId = about.keyId;
  if (about?.contracts !== undefined) message.contracts = about.contracts;
  if (about?.route !== undefined) message.route = about.route;
  return message;
}

function text(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidArgument(name, 'must be a string');
  return value;
}

/** The contract with its times as ms; everything else is the engine's to check. */
function withTimes(contract: unknown): unknown {
  const metadata = (contract as { metadata?: unknown } | null | undefined)?.metadata;
  if (typeof contract !== 'object' || contract === null || typeof metadata !== 'object' || metadata === null) return contract;
  const times = Object.entries(metadata).map(([key, value]): [string, unknown] => [
    key,
    types.isDate(value) ? dateMs(`contract.metadata.${key}`, value) : value,
  ]);
  return { ...contract, metadata: Object.fromEntries(times) };
}

const OUTCOMES: readonly AuditOutcome[] = ['sent', 'delivered', 'failed', 'denied', 'rate-limited', 'invalid', 'forged', 'replayed'];
const AUDIT_KEYS = ['projectId', 'from', 'to', 'outcome', 'limit', 'cursor'];
const LIMIT_MAX = 1000;

function auditQuery(query: unknown): Record<string, unknown> {
  if (query === undefined || query === null) return {};
  if (typeof query !== 'object' || Array.isArray(query)) throw invalidArgument('query', 'must be an object');
  const asked = { ...query } as Record<string, unknown>;
  for (const [key, value] of Object.entries(asked)) {
    if (!AUDIT_KEYS.includes(key)) throw invalidArgument(`query.${key}`, `is not known here; known are ${AUDIT_KEYS.join(', ')}`);
    if (value === undefined) delete asked[key];
    else if (key === 'from' || key === 'to') asked[key] = dateMs(`query.${key}`, value);
    else if (key === 'limit') {
      if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > LIMIT_MAX)
        throw invalidArgument('query.limit', `must be a whole number from 1 to ${LIMIT_MAX}`);
    } else if (key === 'outcome' && !OUTCOMES.includes(value as AuditOutcome)) {
      throw invalidArgument('query.outcome', `must be one of ${OUTCOMES.join(', ')}`);
    } else text(`query.${key}`, value);
  }
  return asked;
}

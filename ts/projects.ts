/** Messages between projects: calls to the engine, and what it answers as users know it. */
import { types } from 'node:util';
import type { AuditOutcome } from '../index';
import { keysOf, type Refuse, text } from './arguments';
import type { BusCore } from './core';
import { fromNative, invalidArgument, OSSAError } from './errors';
import { withoutJsonForm } from './json';
import type { NativeAnswer } from './native';
import { type CrossedMetadata, type Head, parseMetadata, toMetadata } from './payload';
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
  ProjectKey,
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
    await this.#core.call('projects.register', config ?? null);
  }

  /** Ends it; resolves with whether it was there. */
  unregisterProject(projectId: string): Promise<boolean> {
    return this.#core.call<boolean>('projects.unregister', { projectId: text('projectId', projectId) });
  }

  /** Makes a contract known to all processes. */
  async registerContract(contract: CrossProjectEventContract): Promise<void> {
    await this.#core.call('projects.registerContract', crossedContract(contract));
  }

  /** Makes a route known to all processes; one of the same name is replaced. */
  async registerRoute(route: MessageRoute): Promise<void> {
    await this.#core.call('projects.registerRoute', crossedRoute(route));
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

  /** Public keys of a project, the present one last: what to pin in crossProject.trustedKeys. */
  async getProjectKeys(projectId: string): Promise<ProjectKey[]> {
    const keys = await this.#core.call<Array<Crossed<Omit<ProjectKey, 'until'>> & { until?: number }>>('projects.keys', {
      projectId: text('projectId', projectId),
    });
    return keys.map(({ from, until, ...key }) => ({
      ...key,
      from: new Date(from),
      ...(until === undefined ? {} : { until: new Date(until) }),
    }));
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
    const asked = auditQuery(query, EXPORT_KEYS);
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

/** A message to a project, from what crossed of it. Throws where a text is not JSON. */
export function toMessage(
  meta: Head | string,
  data: string,
  stream: string,
  attempt: number,
  retryDefaults: EventRetryConfig,
): CrossProjectMessage {
  const crossed: CrossedMetadata = parseMetadata(meta);
  const about = crossed.message;
  const metadata = toMetadata(crossed, stream, attempt, retryDefaults);
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

function invalidContract(path: string, problem: string): OSSAError {
  return new OSSAError(`${path}: ${problem}`, { code: 'ERR_CONTRACT_INVALID', details: { path } });
}

/** The contract with its times as ms; everything else is the engine's to check. */
function crossedContract(contract: unknown): unknown {
  const keys = keysOf('contract', contract, invalidContract);
  if (keys === undefined) return contract ?? null;
  checkSchema('contract.schema', keys['schema'], invalidContract);
  const metadata = keysOf('contract.metadata', keys['metadata'], invalidContract);
  if (metadata === undefined) return keys;
  for (const [key, value] of Object.entries(metadata)) {
    if (!types.isDate(value)) continue;
    if (Number.isNaN(value.getTime())) throw invalidContract(`contract.metadata.${key}`, 'must be a valid Date');
    metadata[key] = value.getTime();
  }
  return { ...keys, metadata };
}

/** The route, which the engine checks but for what it cannot tell in a schema. */
function crossedRoute(route: unknown): unknown {
  const keys = keysOf('route', route);
  const match = keysOf('route.match', keys?.['match']);
  checkSchema('route.match.where', match?.['where'], invalidArgument);
  return keys === undefined ? (route ?? null) : match === undefined ? keys : { ...keys, match };
}

/** Refuses a schema that would cross as another one. */
function checkSchema(path: string, schema: unknown, refuse: Refuse): void {
  const found = withoutJsonForm(schema);
  if (found !== undefined) throw refuse(path + found.at, `must have a JSON form, got ${found.what}`);
}

const OUTCOMES: readonly AuditOutcome[] = ['sent', 'delivered', 'failed', 'denied', 'rate-limited', 'invalid', 'forged', 'replayed'];
const EXPORT_KEYS = ['projectId', 'from', 'to', 'outcome'];
const AUDIT_KEYS = [...EXPORT_KEYS, 'limit', 'cursor'];
const LIMIT_MAX = 1000;

function auditQuery(query: unknown, known: readonly string[] = AUDIT_KEYS): Record<string, unknown> {
  if (query === undefined || query === null) return {};
  const asked = keysOf('query', query);
  if (asked === undefined) throw invalidArgument('query', 'must be an object');
  for (const [key, value] of Object.entries(asked)) {
    if (!known.includes(key)) throw invalidArgument(`query.${key}`, `is not known here; known are ${known.join(', ')}`);
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

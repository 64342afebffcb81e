/** What there is at which address. */
import type { IncomingMessage } from 'node:http';
import { invalidArgument, OSSAError } from '../errors';
import { isRecord } from '../json';
import { type Answer, json, Refusal } from './answers';
import { letterOf, searchLetters } from './letters';
import { given, Query } from './query';
import { lastRefusals } from './refusals';
import { forget, shared } from './shared';
import type { Source } from './source';

/** One request, let in and taken apart. */
export interface Call {
  readonly source: Source;
  readonly request: IncomingMessage;
  readonly query: URLSearchParams;
  /** The parts of the path that the route leaves open, decoded. */
  readonly parts: readonly string[];
  /** The JSON that was sent. */
  body(): Promise<unknown>;
}

/** Answers a request. */
export type Responder = (call: Call) => Answer | Promise<Answer>;

/** An address and the methods it takes; a GET is a HEAD, too. */
export interface Route {
  readonly path: string;
  readonly get?: Responder;
  readonly post?: Responder;
}

/** One page of letters, or of audit records. */
const PAGE_DEFAULT = 50;
const PAGE_MAX = 100;
/** One page of ids of letters. */
const IDS_MAX = 2000;
const AUDIT_PAGE_MAX = 1000;

/** A GET without parameters that answers what the bus says. */
const plain = (path: string, look: (source: Source) => unknown): Route => ({
  path,
  get: async ({ source, query }) => {
    new Query(query, []);
    return json(await look(source));
  },
});

/** The same of what the page asks for all the time. */
const often = (path: string, look: (source: Source) => Promise<unknown>): Route => ({
  path,
  get: async ({ source, query }) => {
    new Query(query, []);
    return lately(source, path, () => look(source));
  },
});

/** As {@link shared}, while the bus is open. */
async function lately(source: Source, key: string, look: () => Promise<unknown>): Promise<Answer> {
  if (!source.isOpen()) return json(await look());
  return shared(source.bus, key, async () => json(await look()));
}

/** A POST that does something with dead letters and answers how many it were. */
const lettersRoute = (name: 'redrive' | 'purge', done: string): Route => ({
  path: `/api/dead-letters/${name}`,
  post: async ({ source, query, body }) => {
    new Query(query, []);
    const wanted = await body();
    if (!isRecord(wanted)) throw new Refusal(400, 'ERR_BAD_REQUEST', 'The body must be an object with ids, eventType or group');
    try {
      return json({ [done]: await source.bus.deadLetters[name](wanted) });
    } finally {
      forget(source.bus);
    }
  },
});

/** All but the page, liveness and readiness, which are for everybody. */
export const ROUTES: readonly Route[] = [
  {
    path: '/metrics',
    get: ({ source }) => ({
      status: 200,
      headers: { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' },
      body: source.bus.exportMetrics(),
    }),
  },
  often('/api/dashboard', ({ bus }) => bus.getDashboardData()),
  plain('/api/status', ({ bus }) => bus.getStatus()),
  often('/api/health', ({ bus }) => bus.healthCheck()),
  often('/api/groups', ({ bus }) => bus.getGroups()),
  plain('/api/alerts', ({ bus }) => bus.getActiveAlerts()),
  plain('/api/agents', ({ bus }) => bus.getAgents()),
  plain('/api/pools', ({ bus }) => bus.getPools()),
  plain('/api/orchestration', ({ bus }) => bus.getOrchestrationStats()),
  plain('/api/projects', ({ bus }) => bus.getCrossProjectStats()),
  plain('/api/services', services),
  {
    path: '/api/analytics',
    get: ({ source, query }) => {
      const window = new Query(query, ['window']).whole('window', 1, Number.MAX_SAFE_INTEGER);
      return json({ ...source.bus.getAnalytics(window), windows: source.windows() });
    },
  },
  {
    path: '/api/dead-letters',
    get: async ({ source, query }) => {
      const asked = new Query(query, ['eventType', 'group', 'from', 'to', 'text', 'limit', 'cursor', 'full', 'ids']);
      const isIds = asked.flag('ids');
      if (isIds && asked.flag('full')) throw invalidArgument('full', 'is not for ids=1');
      const { items, ...page } = await searchLetters(source.bus.deadLetters, {
        eventType: asked.text('eventType'),
        group: asked.text('group'),
        from: asked.time('from'),
        to: asked.time('to'),
        text: asked.text('text'),
        limit: asked.whole('limit', 1, isIds ? IDS_MAX : PAGE_MAX) ?? (isIds ? IDS_MAX : PAGE_DEFAULT),
        cursor: asked.text('cursor'),
        form: isIds ? 'id' : asked.flag('full') ? 'full' : 'brief',
      });
      return json(isIds ? { ids: items, ...page } : { items, ...page });
    },
  },
  {
    path: '/api/dead-letters/count',
    get: async ({ source, query }) => {
      const asked = new Query(query, ['eventType', 'group']);
      const filter = given({ eventType: asked.text('eventType'), group: asked.text('group') });
      const look = async () => ({ count: await source.bus.deadLetters.count(filter) });
      return lately(source, `count ${JSON.stringify(filter)}`, look);
    },
  },
  lettersRoute('redrive', 'redriven'),
  lettersRoute('purge', 'purged'),
  {
    path: '/api/dead-letters/:id',
    get: async ({ source, query, parts: [id] }) => {
      const asked = new Query(query, ['eventType', 'group']);
      const filter = { eventType: asked.text('eventType'), group: asked.text('group') };
      return found(await letterOf(source.bus.deadLetters, id as string, filter), `There is no dead letter '${id}'`);
    },
  },
  {
    path: '/api/events/:type/:id',
    get: async ({ source, query, parts: [type, id] }) => {
      new Query(query, []);
      return found(await source.bus.explain(type as string, id as string), `There is no event '${id}' of type '${type}' around its time`);
    },
  },
  {
    path: '/api/tasks/:id',
    get: async ({ source, query, parts: [id] }) => {
      new Query(query, []);
      return found(await source.bus.getTask(id as string), `There is no task '${id}', or it ended long ago`);
    },
  },
  {
    path: '/api/audit',
    get: async ({ source, query }) => {
      const asked = new Query(query, ['outcome', 'only', 'projectId', 'from', 'to', 'limit', 'cursor']);
      const [outcome, projectId] = [asked.text('outcome'), asked.text('projectId')];
      const limit = asked.whole('limit', 1, AUDIT_PAGE_MAX) ?? PAGE_DEFAULT;
      if (outcome === 'refused') {
        new Query(query, ['outcome', 'only', 'projectId', 'limit']);
        return json(await lastRefusals(source.bus, limit, projectId, asked.text('only')));
      }
      if (asked.text('only') !== undefined) throw invalidArgument('only', 'is for outcome=refused');
      const [from, to, cursor] = [asked.time('from'), asked.time('to'), asked.text('cursor')];
      return json(await source.bus.getAuditLog(given({ outcome, projectId, from, to, limit, cursor }) as object));
    },
  },
];

async function services({ bus, registry }: Source): Promise<unknown> {
  const integration = bus.getServiceRegistryIntegration();
  if (registry === undefined || integration === undefined) {
    throw new OSSAError('This bus was given no service registry, or serviceRegistry.enabled is false in its configuration', {
      code: 'ERR_DISABLED',
      details: { path: 'serviceRegistry.enabled' },
    });
  }
  const [services, status] = await Promise.all([registry.discover(), integration.getStatus()]);
  return { services, status };
}

function found(value: unknown, otherwise: string): Answer {
  if (value === null) throw new Refusal(404, 'ERR_NOT_FOUND', otherwise);
  return json(value);
}

/** The handler of requests: finds the route, asks the guard, and answers whatever happens. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { invalidArgument } from '../errors';
import { type Answer, errorAnswer, internalAnswer, json, Refusal, send } from './answers';
import { asset } from './assets';
import { readJson } from './body';
import { Guard } from './guard';
import type { HandlerOptions } from './options';
import { type Call, type Responder, ROUTES, type Route } from './routes';
import type { Source } from './source';
import { notHere, type Target, targetOf } from './target';

/** What node:http calls. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** Longest time that the body of a request may take. */
const BODY_TIMEOUT_MS = 10_000;

/** A handler that never throws and leaves no rejection behind. */
export function makeHandler(source: Source, options: HandlerOptions, bodyTimeoutMs = BODY_TIMEOUT_MS): Handler {
  const api = new HttpApi(source, options, bodyTimeoutMs);
  return (request, response) => {
    // A connection that breaks is nobody's error.
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    void api.answer(request).then(
      (answer) => send(request, response, answer),
      (error: unknown) => send(request, response, api.refusal(error)),
    );
  };
}

class HttpApi {
  readonly #source: Source;
  readonly #guard: Guard;
  readonly #basePath: string;
  readonly #bodyTimeoutMs: number;
  /** Everybody may ask whether the bus is ready: those who ask meanwhile share one look. */
  #health: ReturnType<Source['bus']['healthCheck']> | undefined;

  constructor(source: Source, { token, basePath }: HandlerOptions, bodyTimeoutMs: number) {
    this.#source = source;
    this.#guard = new Guard(token, (text) => source.warn(text));
    this.#basePath = basePath;
    this.#bodyTimeoutMs = bodyTimeoutMs;
  }

  async answer(request: IncomingMessage): Promise<Answer> {
    const target = targetOf(request, this.#basePath);
    if (target.path === '/healthz') return only('GET', request, json({ status: 'ok' }));
    if (target.path === '/readyz') return only('GET', request, await this.#ready(request));
    this.#guard.enter(request);
    const file = this.#file(request, target);
    if (file !== undefined) return only('GET', request, file);
    return this.#route(request, target);
  }

  refusal(error: unknown): Answer {
    const answer = errorAnswer(error);
    if (answer === undefined || answer.status === 500) this.#source.failed('A request over HTTP failed', error);
    return answer ?? internalAnswer();
  }

  /**
   * Whether the bus takes work: it is open and Redis is there. A process whose handlers fail is unhealthy and ready: without it others
   * would fail instead. How it is in full is for those only who may see the rest.
   */
  async #ready(request: IncomingMessage): Promise<Answer> {
    const health = await (this.#health ??= this.#source.bus.healthCheck().finally(() => (this.#health = undefined)));
    const isReady = this.#source.isOpen() && health.components['redis']?.status !== 'unhealthy';
    const status = this.#source.isOpen() ? health.status : 'unhealthy';
    return json(this.#guard.knows(request) ? { ...health, status } : { status }, isReady ? 200 : 503);
  }

  /** The page, and what belongs to it. */
  #file(request: IncomingMessage, { path, redirect }: Target): Answer | undefined {
    const tag = request.headers['if-none-match'];
    if (path === '/') return redirect === undefined ? asset('index.html', tag) : { status: 308, headers: { Location: redirect } };
    return path.startsWith('/assets/') ? asset(path.slice(1), tag) : undefined;
  }

  async #route(request: IncomingMessage, { path, query }: Target): Promise<Answer> {
    const [route, parts] = find(path);
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    const respond: Responder | undefined = method === 'GET' ? route.get : method === 'POST' ? route.post : undefined;
    if (respond === undefined) throw notAllowed([...(route.get ? ['GET', 'HEAD'] : []), ...(route.post ? ['POST'] : [])]);
    this.#guard.look(request);
    if (method === 'POST') this.#guard.change(request);
    const call: Call = { source: this.#source, request, query, parts, body: () => readJson(request, this.#bodyTimeoutMs) };
    return respond(call);
  }
}

/** The route of a path, and what stands where it leaves a part open. */
function find(path: string): [Route, string[]] {
  const segments = path.split('/');
  for (const route of ROUTES) {
    const pattern = route.path.split('/');
    if (pattern.length !== segments.length) continue;
    if (!pattern.every((part, at) => (part.startsWith(':') ? segments[at] !== '' : part === segments[at]))) continue;
    return [route, segments.filter((_, at) => pattern[at]?.startsWith(':')).map(decoded)];
  }
  throw notHere();
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw invalidArgument('path', 'has a percent sign without two hexadecimal digits of UTF-8 behind it');
  }
}

function only(method: 'GET', request: IncomingMessage, answer: Answer): Answer {
  if (request.method !== method && request.method !== 'HEAD') throw notAllowed([method, 'HEAD']);
  return answer;
}

function notAllowed(methods: string[]): Refusal {
  const allow = methods.join(', ');
  return new Refusal(405, 'ERR_METHOD_NOT_ALLOWED', `This address takes ${allow}`, { Allow: allow });
}

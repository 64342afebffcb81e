/**
 * The addon's side of the crossing (ts/native.ts), played by the test: it records what crosses and says what the test
 * wants it to say. Load it through OSSA_ADDON, see ./bus.js.
 */
'use strict';

const { setImmediate: later } = require('node:timers');

const DEFAULTS = {
  redis: { host: 'localhost', port: 6379, keyPrefix: 'ossa:eventbus' },
  defaults: {
    ttl: 3600,
    priority: 'normal',
    retry: { maxAttempts: 3, initialDelay: 1000, backoffMultiplier: 2, maxDelay: 30000, jitter: 'equal' },
  },
  limits: { maxPayloadBytes: 1048576 },
  monitoring: { enabled: true, metricsInterval: 30000, tracing: true, healthCheckInterval: 15000 },
};

const CROSS_PROJECT = { enabled: true, securityEnabled: true, rateLimitingEnabled: true };
const ORCHESTRATION = { enabled: true, config: {} };
const MONITORING = {
  metrics: { enabled: true, collectionInterval: 10_000 },
  alerting: { enabled: true },
  healthCheck: { enabled: true, timeout: 5000 },
};
const SERVICE_REGISTRY = { enabled: true, autoRegister: true, healthMonitoring: true };

const buses = [];
const registries = [];
const resolved = [];

/** What a bus and a registry share: calls, and what is told. */
class Native {
  constructor(config, listener) {
    this.config = JSON.parse(config);
    this.onLifecycle = (events) => listener(3, new Uint32Array(), [], events);
    this.onAnswer = (id, answer) => listener(4, Uint32Array.of(id), [], answer);
    /** every call, in order: [method, args] */
    this.calls = [];
    /** method → what to answer: a value, or a function of the arguments (a promise is awaited; a throw is an error) */
    this.answers = {};
  }

  call(id, method, args) {
    // Closed, it tells nothing more.
    void this.#answer(method, JSON.parse(args)).then((answer) => this.closed || this.onAnswer(id, answer));
  }

  async #answer(method, parsed) {
    this.calls.push([method, parsed]);
    const answer = this.answers[method];
    try {
      const ok = await (typeof answer === 'function' ? answer(parsed) : answer);
      return JSON.stringify(
        ok === undefined ? { err: { code: 'ERR_DISABLED', message: `${method} is not there`, retryable: false } } : { ok },
      );
    } catch (err) {
      return JSON.stringify({ err });
    }
  }

  close() {
    this.closed = true;
  }
}

class NativeRegistry extends Native {
  constructor(config, listener) {
    super(config, listener);
    this.answers = { open: {}, close: {}, monitor: {}, discover: [], all: [] };
    this.handle = registries.push(this);
  }

  /** Tells lifecycle events. */
  tell(...events) {
    this.onLifecycle(JSON.stringify(events));
  }
}

/** config: { eventBus, crossProject?, serviceRegistry? } */
class NativeBus extends Native {
  constructor(config, listener) {
    super(config, listener);
    this.onPublished = (tokens, texts, failed) => {
      if (tokens.length > 0) listener(0, tokens, texts, '');
      if (failed !== '') listener(7, new Uint32Array(), [], failed);
    };
    this.onStored = (tokens, ids) => listener(0, tokens, [], ids);
    this.onDeliveries = (text, rows, types) => listener(1, rows, types, text);
    this.onSettled = (confirmations, failed) => listener(2, confirmations, [], failed);
    this.onPosted = (text) => listener(6, new Uint32Array(), [], text);
    this.answers = {
      subscribe: () => ({ group: 'default', consumer: 'me' }),
      unsubscribe: () => ({}),
      pause: () => ({}),
      resume: () => ({}),
      connect: () => ({}),
      disconnect: () => ({}),
      'agents.listen': { inbox: 'inbox-1' },
      'projects.stats': { totalProjects: 0, projectStats: [] },
      'monitoring.alerts': [],
      'monitoring.stats': { metricsCollected: 0 },
      'monitoring.process': { problems: [], errorRate: 0, checks: [{ at: 7, status: 'healthy' }] },
      'orchestration.agents': [],
      'orchestration.pools': [],
      'orchestration.stats': { totalAgents: 0, queueDepth: 0 },
    };
    /** every crossing: { firstToken, text } */
    this.published = [];
    this.cancelled = [];
    /** every crossing: { done, failed, confirm } */
    this.settled = [];
    this.masks = [];
    /** whether publishes and confirmations are answered by themselves */
    this.auto = true;
    /** (type, data) → what a publish fails with, if it does; or [id] for another answer than its id */
    this.refuse = () => undefined;
    this.nextToken = 1;
    buses.push(this);
  }

  publish(firstToken, text) {
    this.published.push({ firstToken, text });
    if (this.auto) later(() => this.#answerAll(firstToken, text.split('\n').slice(0, -1)));
  }

  #answerAll(firstToken, records) {
    const ids = [];
    const tokens = [];
    const failed = [];
    for (const [i, record] of records.entries()) {
      const token = firstToken + i;
      const [type, , data] = record.split('\t');
      const verdict = this.refuse(type, JSON.parse(data));
      if (verdict !== undefined && !Array.isArray(verdict)) {
        failed.push([token, verdict]);
      } else {
        tokens.push(token);
        ids.push(verdict === undefined ? `id-${token}` : verdict[0]);
      }
    }
    this.onPublished(Uint32Array.from(tokens), ids, failed.length === 0 ? '' : JSON.stringify(failed));
  }

  cancel(token) {
    this.cancelled.push(token);
  }

  settle(done, failed, confirm) {
    this.settled.push({ done: [...done], failed: failed === '' ? [] : JSON.parse(failed), confirm });
    if (this.auto && confirm !== 0) later(() => this.onSettled(Uint32Array.of(confirm), ''));
  }

  listen(mask) {
    this.masks.push(mask);
  }

  contracts(projectId) {
    return this.#told('contracts', projectId);
  }

  prometheus() {
    return this.#told('prometheus');
  }

  /** Answers at once, as `answers` says. */
  #told(method, argument) {
    this.calls.push([method, argument]);
    const ok = this.answers[method];
    return JSON.stringify(
      ok === undefined ? { err: { code: 'ERR_DISABLED', message: `${method} is not there`, retryable: false } } : { ok },
    );
  }

  vitals(...figures) {
    (this.measured ??= []).push(figures);
  }

  monitoring(what, windowSeconds) {
    return this.#told(`monitoring.${what}`, windowSeconds);
  }

  orchestration(what) {
    return this.#told(`orchestration.${what}`);
  }

  metrics() {
    return JSON.stringify({ eventsPublished: 7 });
  }

  // What follows is for tests.

  /** Records of all publishes so far: [type, options, data] */
  get records() {
    return this.published.flatMap(({ text }) =>
      text
        .split('\n')
        .slice(0, -1)
        .map((line) => line.split('\t')),
    );
  }

  /** Data of the publishes of a type so far. */
  of(type) {
    return this.records.filter(([name]) => name === type).map(([, , data]) => JSON.parse(data));
  }

  /** Tells agents something: posts as in ts/native.ts. */
  post(...posts) {
    this.onPosted(JSON.stringify(posts));
  }

  /** All settlements so far, as { done, failed } */
  get outcome() {
    return { done: this.settled.flatMap((s) => s.done), failed: this.settled.flatMap((s) => s.failed) };
  }

  /** Answers `count` publishes: the id of token t is `id-<t>` */
  answer(firstToken, count) {
    const tokens = Uint32Array.from({ length: count }, (_, i) => firstToken + i);
    this.onPublished(
      tokens,
      [...tokens].map((token) => `id-${token}`),
      '',
    );
  }

  /** Delivers events to the subscription `id`, in one crossing; returns their tokens. */
  deliver(id, ...events) {
    let text = '';
    const rows = [];
    const texts = [''];
    const ids = [];
    const indexOf = (it) => {
      if (!texts.includes(it)) texts.push(it);
      return texts.indexOf(it);
    };
    const tokens = [];
    for (const {
      type = 'a',
      data = null,
      text: raw,
      meta = {},
      attempt = 1,
      flags = 0,
      ms = 1700000000123,
      seq = 0,
      subscription = id,
      apart = false,
    } of events) {
      const metaText = JSON.stringify({
        v: 1,
        id: `e${this.nextToken}`,
        timestamp: 1700000000123,
        source: 's',
        version: '1.0.0',
        priority: 'normal',
        dttl: 3600,
        ...meta,
      });
      const dataText = raw ?? JSON.stringify(data);
      const token = this.nextToken++;
      tokens.push(token);
      rows.push(
        subscription,
        token,
        attempt,
        flags,
        Math.floor(ms / 2 ** 32),
        ms % 2 ** 32,
        seq,
        indexOf(type),
        apart ? 0 : metaText.length,
        dataText.length,
      );
      if (apart) {
        const { v: _, id: eventId, timestamp, ...tail } = JSON.parse(metaText);
        ids.push(eventId);
        rows.push(indexOf(`,${JSON.stringify(tail).slice(1)}`), Math.floor(timestamp / 2 ** 32), timestamp % 2 ** 32);
        text += dataText;
      } else {
        rows.push(0, 0, 0);
        text += metaText + dataText;
      }
    }
    if (ids.length > 0) texts[0] = JSON.stringify(ids);
    this.onDeliveries(text, Uint32Array.from(rows), texts);
    return tokens;
  }
}

function merged(base, over) {
  if (typeof base !== 'object' || base === null || typeof over !== 'object' || over === null) return over ?? base;
  const out = { ...base };
  for (const [key, value] of Object.entries(over)) out[key] = merged(base[key], value);
  return out;
}

function resolveConfig(kind, argument, env) {
  const parsed = JSON.parse(argument);
  resolved.push({ kind, argument: parsed, env: JSON.parse(env) });
  if ('nope' in parsed)
    return JSON.stringify({
      err: { code: 'ERR_INVALID_CONFIG', message: 'nope: is unknown', retryable: false, details: { path: 'nope' } },
    });
  if (kind === 'serviceRegistry') return JSON.stringify({ ok: parsed });
  if (kind !== 'ossa') return JSON.stringify({ ok: merged(DEFAULTS, parsed) });
  return JSON.stringify({
    ok: {
      ...parsed,
      eventBus: merged(DEFAULTS, parsed.eventBus),
      crossProject: merged(CROSS_PROJECT, parsed.crossProject),
      orchestration: merged(ORCHESTRATION, parsed.orchestration),
      monitoring: merged(MONITORING, parsed.monitoring),
      serviceRegistry: merged(SERVICE_REGISTRY, parsed.serviceRegistry),
    },
  });
}

function checkName(kind, name) {
  if (/^[\w.:/-]{1,256}$/.test(name)) return '';
  return JSON.stringify({ code: 'ERR_INVALID_ARGUMENT', message: `${kind}: not valid`, retryable: false, details: { argument: kind } });
}

module.exports = {
  NativeBus,
  NativeRegistry,
  resolveConfig,
  checkName,
  defaultConfig: () => JSON.stringify(DEFAULTS),
  buses,
  registries,
  resolved,
};

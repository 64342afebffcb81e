/** Monitoring of an OSSAEventBus: what the engine measured, as users know it, and what only this side can measure. */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { BusCore } from './core';
import { LISTENERS_CHANGED, ObservedEmitter } from './emitter';
import { fromNative, invalidArgument } from './errors';
import type { NativeAnswer, NativeBus } from './native';
import type { AlertEvent, Analytics, DashboardData, GroupView, HealthReport, MonitoringStats } from './types';
import { memoryLimit } from './vitals';

/** How often the event loop's lateness is looked at. It is late by what it needs beyond that. */
const LAG_RESOLUTION_MS = 20;

type CrossedSpan = Omit<Analytics['history'][number], 'from' | 'to'> & { from: number; to: number };
type Crossed<T extends { from: Date; to: Date }> = Omit<T, 'from' | 'to' | 'history'> & {
  from: number;
  to: number;
  history: CrossedSpan[];
};
type CrossedAlert = Omit<AlertEvent, 'timestamp'> & { timestamp: number };
type CrossedDashboard = Omit<DashboardData, 'realtime' | 'activeAlerts'> & {
  realtime: Omit<DashboardData['realtime'], 'timestamp'> & { timestamp: number[] };
  activeAlerts: CrossedAlert[];
};

/** `getMonitoring()`: what an OSSAEventBus offers for monitoring, on its own. */
export class Monitoring extends ObservedEmitter {
  readonly #core: BusCore;
  readonly #checkHealth: () => Promise<HealthReport>;

  /** @internal */
  constructor(core: BusCore, checkHealth: () => Promise<HealthReport>) {
    super();
    this.#core = core;
    this.#checkHealth = checkHealth;
    core.lifecycle.attach(this);
  }

  /** @internal */
  [LISTENERS_CHANGED](): void {
    this.#core.lifecycle.listenersChanged();
  }

  /** Figures of the monitoring itself. */
  getMonitoringStats(): MonitoringStats {
    return this.#look<MonitoringStats>('stats');
  }

  /** What this process did in the last `windowSeconds`, and before. */
  getAnalytics(windowSeconds?: number): Analytics {
    if (windowSeconds !== undefined && windowSeconds !== null && typeof windowSeconds !== 'number')
      throw invalidArgument('windowSeconds', 'must be a number of seconds, one of monitoring.metrics.aggregationWindows, or left out');
    const { from, to, history, ...rest } = this.#look<Crossed<Analytics>>('analytics', windowSeconds);
    const withDates = history.map((span) => ({ ...span, from: new Date(span.from), to: new Date(span.to) }));
    return { ...rest, from: new Date(from), to: new Date(to), history: withDates };
  }

  /** Alerts that are raised now, the oldest first. */
  getActiveAlerts(): AlertEvent[] {
    return this.#look<CrossedAlert[]>('alerts').map(alertOf);
  }

  /** All consumer groups of all event types. */
  getGroups(): Promise<GroupView[]> {
    return this.#core.call('groups', {});
  }

  /** What the dashboard shows. */
  async getDashboardData(): Promise<DashboardData> {
    const { overview, realtime, topMetrics, activeAlerts } = await this.#core.call<CrossedDashboard>('dashboard', {});
    return {
      overview,
      realtime: { ...realtime, timestamp: realtime.timestamp.map((at) => new Date(at)) },
      topMetrics,
      activeAlerts: activeAlerts.map(alertOf),
    };
  }

  /** Metrics in the text format 0.0.4 of Prometheus. */
  exportMetrics(): string {
    return answered(JSON.parse(this.#core.native().prometheus()) as NativeAnswer<string>);
  }

  /** How the parts are. Never rejects. */
  healthCheck(): Promise<HealthReport> {
    return this.#checkHealth();
  }

  #look<T>(what: string, windowSeconds?: number): T {
    return answered(JSON.parse(this.#core.native().monitoring(what, windowSeconds)) as NativeAnswer<T>);
  }
}

/** How the process is: figures, and what is beyond its critical threshold. */
export interface ProcessHealth {
  problems: string[];
  errorRate: number;
  latencyMs: number;
  memoryPercent: number | null;
  cpuPercent: number | null;
  eventLoopLagMs: number | null;
  /** Periodic checks that are remembered, the oldest first. */
  checks: Array<{ at: Date; status: HealthReport['status'] }>;
}

/** What the engine knows of the process. */
export function processHealth(core: BusCore): ProcessHealth {
  type Crossed = Omit<ProcessHealth, 'checks'> & { checks: Array<{ at: number; status: HealthReport['status'] }> };
  const { checks, ...figures } = answered(JSON.parse(core.native().monitoring('process')) as NativeAnswer<Crossed>);
  return { ...figures, checks: checks.map(({ at, status }) => ({ at: new Date(at), status })) };
}

function alertOf({ timestamp, ...rest }: CrossedAlert): AlertEvent {
  return { ...rest, timestamp: new Date(timestamp) };
}

function answered<T>(answer: NativeAnswer<T>): T {
  if ('err' in answer) throw fromNative(answer.err);
  return answer.ok;
}

/** Tells the engine how the process is, as often as it collects. */
export class Sampler {
  readonly #native: WeakRef<NativeBus>;
  readonly #lag: IntervalHistogram = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  readonly #timer: NodeJS.Timeout;
  #at = performance.now();
  #cpu = process.cpuUsage();

  /** Until {@link stop}, or until nobody else has the bus. Keeps nothing alive. */
  constructor(native: NativeBus, everyMs: number) {
    this.#native = new WeakRef(native);
    this.#lag.enable();
    this.#timer = setInterval(() => this.#sample(), everyMs).unref();
    this.#sample();
  }

  /** No more. */
  stop(): void {
    clearInterval(this.#timer);
    this.#lag.disable();
  }

  #sample(): void {
    const native = this.#native.deref();
    if (native === undefined) {
      this.stop();
      return;
    }
    const now = performance.now();
    const elapsedMs = now - this.#at;
    const { user, system } = process.cpuUsage(this.#cpu);
    this.#cpu = process.cpuUsage();
    this.#at = now;
    const cpuPercent = elapsedMs > 1 ? (user + system) / 10 / elapsedMs : 0;
    const lateNs = this.#lag.count > 0 ? this.#lag.percentile(99) - LAG_RESOLUTION_MS * 1e6 : 0;
    this.#lag.reset();
    native.vitals(cpuPercent, process.memoryUsage.rss(), memoryLimit(), Math.max(lateNs, 0) / 1e9);
  }
}

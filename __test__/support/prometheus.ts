/** A Prometheus of a test's own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { yaml } from './deployment';
import { freePort } from './server';
import { until } from './wait';

/** An alert as /api/v1/alerts has it. */
export interface Alert {
  labels: { [name: string]: string };
  annotations: { [name: string]: string };
  state: 'pending' | 'firing';
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** The alert rules of deploy/prometheus, with seconds for their minutes: what they ask is the same. */
function quickRules(): object {
  const { groups } = yaml('deploy/prometheus/rules.yml');
  for (const group of groups) {
    group.interval = '1s';
    for (const rule of group.rules) {
      rule.expr = rule.expr.replace(/\[\d+m\]/g, '[10s]');
      if (rule.for !== undefined) rule.for = '2s';
    }
  }
  return { groups };
}

/** It scrapes one process each second, and looks at the rules as often. */
export class Prometheus {
  private constructor(
    private readonly child: ChildProcess,
    private readonly url: string,
    private readonly folder: string,
  ) {}

  /** Starts it; resolves when it is ready. `target`: the URL of the process. */
  static async start(target: string, token: string): Promise<Prometheus> {
    const folder = mkdtempSync(join(tmpdir(), 'ossa-prometheus-'));
    const job = {
      job_name: 'ossa-event-bus',
      authorization: { type: 'Bearer', credentials: token },
      static_configs: [{ targets: [new URL(target).host] }],
    };
    const config = { global: { scrape_interval: '1s', evaluation_interval: '1s' }, rule_files: ['rules.yml'], scrape_configs: [job] };
    writeFileSync(join(folder, 'prometheus.yml'), stringify(config));
    writeFileSync(join(folder, 'rules.yml'), stringify(quickRules()));
    const port = await freePort();
    const child = spawn(
      'prometheus',
      [
        ...[`--config.file=${join(folder, 'prometheus.yml')}`, `--storage.tsdb.path=${join(folder, 'data')}`],
        ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=warn'],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    running.add(child);
    let said = '';
    child.stderr!.on('data', (data) => {
      said += data;
    });
    const prometheus = new Prometheus(child, `http://127.0.0.1:${port}`, folder);
    try {
      await until(
        async () => {
          if (child.exitCode !== null) throw new Error(`prometheus ended with ${child.exitCode}: ${said}`);
          const ready = await fetch(`${prometheus.url}/-/ready`).catch(() => undefined);
          return ready?.ok;
        },
        { show: () => said },
      );
    } catch (error) {
      await prometheus.stop();
      throw error;
    }
    return prometheus;
  }

  /** The value of a query with one result; undefined where it has none. */
  async query(query: string): Promise<number | undefined> {
    const { result } = await this.#ask(`query?query=${encodeURIComponent(query)}`);
    if (result.length > 1) throw new Error(`${query} has ${result.length} results`);
    return result.length === 0 ? undefined : Number(result[0].value[1]);
  }

  /** Alerts that are pending or fire. */
  async alerts(): Promise<Alert[]> {
    return (await this.#ask('alerts')).alerts;
  }

  /** Whether it fires. */
  async fires(alertname: string): Promise<boolean> {
    return (await this.alerts()).some(({ labels, state }) => labels['alertname'] === alertname && state === 'firing');
  }

  /** Names of all metrics that it ever saw. */
  async names(): Promise<string[]> {
    return this.#ask('label/__name__/values');
  }

  /** Ends it, and takes away what it kept. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('close', resolve));
    if (this.child.exitCode === null && this.child.signalCode === null) {
      this.child.kill('SIGKILL');
      await ended;
    }
    running.delete(this.child);
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #ask(path: string): Promise<any> {
    const answer: any = await (await fetch(`${this.url}/api/v1/${path}`)).json();
    if (answer.status !== 'success') throw new Error(`Prometheus: ${answer.error}`);
    return answer.data;
  }
}

/** Scrape configuration and alert rules: what promtool says of them, and that they speak of metrics and runbooks that are there. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { anchors, asked, documentedMetrics, needing, ROOT, read, sampleNames, yaml } from '../support/deployment';

const FOLDER = join(ROOT, 'deploy/prometheus');

/** What promtool says, and whether it is content. */
function promtool(args: string[], cwd = FOLDER): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd, encoding: 'utf8' });
  return { status, said: `${stdout}${stderr}` };
}

interface Rule {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook: string };
}
const rules: Rule[] = yaml('deploy/prometheus/rules.yml').groups.flatMap((group: { rules: Rule[] }) => group.rules);

/** The configuration in docs/deployment.md for pods that are found by annotations. */
function byAnnotations(): string {
  const section = read('docs/deployment.md').split('### Prometheus that finds pods by annotations')[1] ?? '';
  return /```yaml\n([\s\S]*?)```/.exec(section)?.[1] ?? '';
}

describe('promtool', () => {
  const withPromtool = needing('promtool');

  withPromtool('takes the rules', () => {
    expect(promtool(['check', 'rules', 'rules.yml'])).toMatchObject({
      status: 0,
      said: expect.stringContaining(`${rules.length} rules found`),
    });
  });

  withPromtool('takes the configuration, with the rules it names and a file with the token', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ossa-prometheus-'));
    try {
      const token = join(folder, 'token');
      writeFileSync(token, 'x');
      writeFileSync(
        join(folder, 'prometheus.yml'),
        read('deploy/prometheus/prometheus.yml').replace('/run/secrets/ossa_http_token', token),
      );
      copyFileSync(join(FOLDER, 'rules.yml'), join(folder, 'rules.yml'));
      const { status, said } = promtool(['check', 'config', 'prometheus.yml'], folder);
      expect([status, said]).toEqual([0, expect.stringContaining('1 rule files found')]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  withPromtool('takes the configuration of the documents for pods that are found by annotations', () => {
    const folder = mkdtempSync(join(tmpdir(), 'ossa-prometheus-'));
    try {
      const token = join(folder, 'token');
      writeFileSync(token, 'x');
      copyFileSync(join(FOLDER, 'rules.yml'), join(folder, 'rules.yml'));
      const check = (text: string) => {
        writeFileSync(join(folder, 'prometheus.yml'), text);
        return promtool(['check', 'config', 'prometheus.yml'], folder);
      };
      const text = byAnnotations().replace('/etc/prometheus/secrets/ossa-event-bus/http-token', token);
      let { status, said } = check(text);
      // Debian builds Prometheus without Kubernetes: then the rest is checked.
      if (said.includes('field kubernetes_sd_configs not found')) {
        ({ status, said } = check(text.replace(/kubernetes_sd_configs:[\s\S]*?(?= {4}relabel_configs:)/, 'static_configs: []\n')));
      }
      expect([status, said]).toEqual([0, expect.stringContaining('1 rule files found')]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  withPromtool('finds that every rule fires when it should, and not when it should not', () => {
    expect(promtool(['test', 'rules', 'rules.test.yml'])).toMatchObject({ status: 0, said: expect.stringContaining('SUCCESS') });
  });
});

test('there is a rule for each of the five conditions, and for what an operator needs besides', () => {
  expect(rules.map(({ alert }) => alert)).toEqual(
    expect.arrayContaining([
      ...['OSSAHighErrorRate', 'OSSAHighLatency', 'OSSAQueueDepth', 'OSSAHighMemory', 'OSSAConnectionPoolExhausted'],
      ...['OSSAInstanceDown', 'OSSARedisDisconnected', 'OSSADeadLettersGrowing', 'OSSAEventLoopLag', 'OSSASpansDropped'],
    ]),
  );
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
});

test('every rule has a test in which it fires and one in which it does not', () => {
  const tests: Array<{ alert_rule_test: Array<{ alertname: string; exp_alerts: unknown[] }> }> =
    yaml('deploy/prometheus/rules.test.yml').tests;
  const looks = tests.flatMap((test) => test.alert_rule_test);
  const fires = new Set(looks.filter(({ exp_alerts }) => exp_alerts.length > 0).map(({ alertname }) => alertname));
  expect([...fires].sort()).toEqual(rules.map(({ alert }) => alert).sort());
  // Beside a series that is above the limit there is one that is not, or it is looked at before or after.
  const quiet = new Set(looks.filter(({ exp_alerts }) => exp_alerts.length === 0).map(({ alertname }) => alertname));
  const fiveRules = ['OSSAHighErrorRate', 'OSSAHighLatency', 'OSSAQueueDepth', 'OSSAHighMemory', 'OSSAConnectionPoolExhausted'];
  expect([...quiet]).toEqual(expect.arrayContaining(fiveRules));
});

describe.each(rules)('$alert', ({ alert, expr, labels, annotations, for: duration }) => {
  test('asks for metrics that are exported, by labels that they have', () => {
    const metrics = documentedMetrics();
    const names = sampleNames(metrics);
    const { metrics: wanted, labels: by } = asked(expr);
    expect(wanted.filter((name) => !names.has(name))).toEqual([]);
    const known = new Set(['job', 'instance', ...metrics.flatMap((metric) => metric.labels)]);
    expect(by.filter((label) => !known.has(label))).toEqual([]);
  });

  test('says how bad it is, what it means, and what to do', () => {
    expect(['critical', 'warning', 'info']).toContain(labels.severity);
    expect(annotations.summary).toMatch(/\S/);
    expect(annotations.description).toMatch(/\.$/);
    expect(annotations.runbook).toBe(`docs/runbook.md#${alert.toLowerCase()}`);
    expect(anchors(read('docs/runbook.md'))).toContain(alert.toLowerCase());
  });

  test('waits before it fires, unless events are lost', () => {
    if (alert === 'OSSADataLoss') expect(duration).toBeUndefined();
    else expect(duration).toMatch(/^\d+m$/);
  });
});

test('the runbook speaks of alerts that there are, and of no others', () => {
  const told = [...anchors(read('docs/runbook.md'))].filter((anchor) => anchor.startsWith('ossa'));
  expect(told.sort()).toEqual(rules.map(({ alert }) => alert.toLowerCase()).sort());
});

test('the job is called as the rules have it, and the compose file has the processes that are scraped', () => {
  const { scrape_configs: jobs } = yaml('deploy/prometheus/prometheus.yml');
  const job = jobs.find(({ job_name: name }: { job_name: string }) => name === 'ossa-event-bus');
  const { services } = yaml('deploy/compose/docker-compose.yml');
  for (const target of job.static_configs[0].targets) expect(Object.keys(services)).toContain(target.split(':')[0]);
  expect(job.metrics_path ?? '/metrics').toBe('/metrics');
});

test('the job that finds pods by annotations is called so too, and keeps the pods of the deployment', () => {
  const [job] = parse(byAnnotations()).scrape_configs;
  expect(job.job_name).toBe('ossa-event-bus');
  expect(job.kubernetes_sd_configs).toEqual([{ role: 'pod', namespaces: { names: ['default'] } }]);
  const { labels, annotations } = yaml('deploy/kubernetes/deployment.yaml').spec.template.metadata;
  const meta = (kind: string, of: object) =>
    Object.entries(of).map(([name, value]) => [`__meta_kubernetes_pod_${kind}_${name.replace(/\W/g, '_')}`, value]);
  const pod = Object.fromEntries([
    ...meta('label', labels),
    ...meta('annotation', annotations),
    ['__meta_kubernetes_pod_ip', '10.0.0.7'],
    ['__meta_kubernetes_pod_name', 'ossa-event-bus-0'],
    ['__meta_kubernetes_pod_phase', 'Running'],
  ]);
  // As Prometheus does it: values joined by ';', a pattern for all of it.
  for (const {
    source_labels: sources,
    regex = '(.*)',
    action = 'replace',
    target_label: target,
    replacement = '$1',
  } of job.relabel_configs) {
    const found = new RegExp(`^(?:${regex})$`).exec(sources.map((name: string) => pod[name] ?? '').join(';'));
    if (action === 'replace' && found !== null) pod[target] = replacement.replace(/\$(\d)/g, (_: string, at: number) => found[at] ?? '');
    if (action === 'keep') expect([sources, found]).not.toEqual([sources, null]);
    if (action === 'drop') expect([sources, found]).toEqual([sources, null]);
  }
  expect(pod).toMatchObject({ __address__: '10.0.0.7:3000', __metrics_path__: '/metrics', app: 'ossa-event-bus' });
});

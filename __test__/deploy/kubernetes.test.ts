/** The Kubernetes manifests: checked against the API's schemas, and against each other. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import { Deployment } from 'kubernetes-models/apps/v1';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { Service } from 'kubernetes-models/v1';
import ts from 'typescript';
import { ROOT, read, yaml } from '../support/deployment';
import { OSSAEventBus } from '../support/package';

const FOLDER = 'deploy/kubernetes';

/** Each kind of manifest: its model, which validates, and where the type of it is. */
const MODELS = {
  Deployment: [Deployment, 'kubernetes-models/apps/v1'],
  Service: [Service, 'kubernetes-models/v1'],
  PodDisruptionBudget: [PodDisruptionBudget, 'kubernetes-models/policy/v1'],
  NetworkPolicy: [NetworkPolicy, 'kubernetes-models/networking.k8s.io/v1'],
  ServiceMonitor: [ServiceMonitor, '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1'],
} as const;

type Kind = keyof typeof MODELS;
const kustomization = yaml(`${FOLDER}/kustomization.yaml`);
const files = readdirSync(join(ROOT, FOLDER));
const manifests = files
  .filter((file) => file.endsWith('.yaml') && file !== 'kustomization.yaml')
  .map((file) => [file, yaml(`${FOLDER}/${file}`)] as const);
const of = (kind: Kind) => manifests.find(([, manifest]) => manifest.kind === kind)?.[1];

const deployment = of('Deployment');
const pod = deployment.spec.template.spec;
const [container] = pod.containers;

describe.each(manifests)('%s', (_, manifest) => {
  test('is what the API takes', () => {
    const [Model] = MODELS[manifest.kind as Kind];
    const model = new Model(manifest);
    model.validate();
    expect([model.apiVersion, model.kind]).toEqual([manifest.apiVersion, manifest.kind]);
  });
});

test('a wrong manifest is found', () => {
  const wrong = structuredClone(deployment);
  wrong.spec.replicas = 'three';
  expect(() => new Deployment(wrong).validate()).toThrow('replicas must be integer');
});

/** What the compiler says of manifests as values of their types: of keys that do not exist, too, which the schemas let pass. */
function misspelt(checked: Array<readonly [string, any]>): string[] {
  const folder = mkdtempSync(join(ROOT, 'node_modules', '.ossa-manifests-'));
  try {
    const program = join(folder, 'manifests.ts');
    const lines = checked.map(([, manifest], n) => {
      const [, from] = MODELS[manifest.kind as Kind];
      return `import type { I${manifest.kind} as Kind${n} } from '${from}';\nexport const manifest${n}: Kind${n} = ${JSON.stringify(manifest)};\n`;
    });
    writeFileSync(program, lines.join(''));
    const options = {
      noEmit: true,
      strict: true,
      skipLibCheck: true,
      types: [],
      module: ts.ModuleKind.Node16,
      moduleResolution: ts.ModuleResolutionKind.Node16,
    };
    return ts
      .getPreEmitDiagnostics(ts.createProgram([program], options))
      .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('they have no key that the API does not know', () => {
  expect(misspelt(manifests)).toEqual([]);
  const wrong = structuredClone(deployment);
  wrong.spec.template.spec.containers[0].readinesProbe = {};
  expect(misspelt([['', wrong]])).toEqual([expect.stringContaining('readinesProbe')]);
}, 60_000);

test('the kustomization names files that are there; the one it leaves out is said to be optional', () => {
  const named = [
    ...kustomization.resources,
    ...kustomization.configMapGenerator.flatMap(({ envs = [], files = [] }: { envs?: string[]; files?: string[] }) => [...envs, ...files]),
  ];
  for (const file of named) expect([file, existsSync(join(ROOT, FOLDER, file))]).toEqual([file, true]);
  const left = files.filter((file) => file !== 'kustomization.yaml' && !named.includes(file));
  expect(left).toEqual(['servicemonitor.yaml']);
  expect(read(`${FOLDER}/kustomization.yaml`)).toContain('servicemonitor.yaml is for');
});

describe('the Deployment', () => {
  test('has three replicas, and keeps them while it rolls and while nodes are drained', () => {
    expect(deployment.spec.replicas).toBe(3);
    expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxUnavailable: 0, maxSurge: 1 });
    expect(of('PodDisruptionBudget').spec.minAvailable).toBeLessThan(deployment.spec.replicas);
    expect(pod.topologySpreadConstraints.map(({ topologyKey }: { topologyKey: string }) => topologyKey)).toEqual([
      'kubernetes.io/hostname',
      'topology.kubernetes.io/zone',
    ]);
  });

  test('is selected by all that are for it', () => {
    const { labels } = deployment.spec.template.metadata;
    expect(labels).toMatchObject(deployment.spec.selector.matchLabels);
    expect(labels).toMatchObject(of('Service').spec.selector);
    expect(labels).toMatchObject(of('PodDisruptionBudget').spec.selector.matchLabels);
    expect(labels).toMatchObject(of('NetworkPolicy').spec.podSelector.matchLabels);
    for (const { labelSelector } of pod.topologySpreadConstraints) expect(labels).toMatchObject(labelSelector.matchLabels);
    expect(of('Service').metadata.labels).toMatchObject(of('ServiceMonitor').spec.selector.matchLabels);
  });

  test('asks /healthz whether it lives, /readyz whether it is ready, on the port of the program', () => {
    expect(container.livenessProbe.httpGet).toEqual({ path: '/healthz', port: 'http' });
    expect(container.startupProbe.httpGet).toEqual({ path: '/healthz', port: 'http' });
    expect(container.readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'http' });
    const port = container.ports.find(({ name }: { name: string }) => name === 'http').containerPort;
    const env = new Map(container.env.map(({ name, value }: { name: string; value?: string }) => [name, value]));
    expect([env.get('PORT'), env.get('HOST')]).toEqual([String(port), '0.0.0.0']);
    expect(of('Service').spec.ports[0].targetPort).toBe('http');
    const { annotations } = deployment.spec.template.metadata;
    expect(annotations).toEqual({ 'prometheus.io/scrape': 'true', 'prometheus.io/port': String(port), 'prometheus.io/path': '/metrics' });
    // As long as the check of health may take (monitoring.healthCheck.timeout).
    expect(container.readinessProbe.timeoutSeconds).toBeGreaterThan(5);
  });

  test('has limits, and time to drain', () => {
    expect(Object.keys(container.resources.limits).sort()).toEqual(['cpu', 'memory']);
    expect(Object.keys(container.resources.requests).sort()).toEqual(['cpu', 'memory']);
    const [, drainMs] = /^DRAIN_TIMEOUT_MS=(\d+)$/m.exec(read(`${FOLDER}/ossa.env`)) ?? [];
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(Number(drainMs) / 1000 + 10);
  });

  test('runs with no rights that it does not need', () => {
    expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
    expect(pod.automountServiceAccountToken).toBe(false);
  });

  test('takes secrets from a Secret, which the document says how to make', () => {
    const secrets = container.env.flatMap(({ name, valueFrom }: any) => (valueFrom === undefined ? [] : [[name, valueFrom.secretKeyRef]]));
    expect(secrets).toEqual([
      ['REDIS_PASSWORD', { name: 'ossa-event-bus', key: 'redis-password' }],
      ['OSSA_HTTP_TOKEN', { name: 'ossa-event-bus', key: 'http-token' }],
    ]);
    const { credentials } = of('ServiceMonitor').spec.endpoints[0].authorization;
    expect(credentials).toEqual({ name: 'ossa-event-bus', key: 'http-token' });
    const told = read('docs/deployment.md');
    expect(told).toContain('create secret generic ossa-event-bus');
    for (const [, { key }] of secrets) expect(told).toContain(`--from-literal=${key}=`);
  });

  test('takes its configuration from maps that are generated, of variables and keys that there are', () => {
    const generated = kustomization.configMapGenerator.map(({ name }: { name: string }) => name);
    expect(generated).toContain(container.envFrom[0].configMapRef.name);
    expect(generated).toContain(pod.volumes[0].configMap.name);
    const mount = container.volumeMounts.find(({ name }: { name: string }) => name === pod.volumes[0].name);
    const { value } = container.env.find(({ name }: { name: string }) => name === 'OSSA_CONFIG');
    expect(value).toBe(`${mount.mountPath}/ossa.json`);
    // The bus refuses what it does not know.
    expect(() => new OSSAEventBus(null, JSON.parse(read(`${FOLDER}/ossa.json`)))).not.toThrow();
  });
});

test('DNS, Redis and services may be reached, and the program by others of its namespace and by Prometheus', () => {
  const { spec } = of('NetworkPolicy');
  expect(spec.policyTypes).toEqual(['Ingress', 'Egress']);
  expect(spec.ingress[0].ports).toEqual([{ port: 'http' }]);
  expect(spec.egress[0].ports.map(({ protocol }: { protocol: string }) => protocol)).toEqual(['UDP', 'TCP']);
});

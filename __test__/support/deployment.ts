/** The files of deploy/ and the documents that go with them, as the tests read them. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LRParser } from '@lezer/lr';
import { parse } from 'yaml';

// Its types are those of an ES module, which it is not for `require`.
const { parser } = require('@prometheus-io/lezer-promql') as { parser: LRParser };

/** Of the repository. */
export const ROOT = join(__dirname, '..', '..');

/** A file of the repository. */
export const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** A YAML file of the repository. With merge keys, as compose has them. */
export const yaml = (path: string): any => parse(read(path), { merge: true });

/** A row of the table in docs/monitoring.md, which lists every metric that is exported. */
export interface Metric {
  name: string;
  type: 'counter' | 'gauge' | 'histogram';
  labels: string[];
  unit: string;
  meaning: string;
}

/** All metrics, as docs/monitoring.md has them. */
export function documentedMetrics(): Metric[] {
  const rows = [...read('docs/monitoring.md').matchAll(/^\| `(ossa_\w+)` \| (\w+) \|([^|]*)\|([^|]*)\| (.*) \|$/gm)];
  return rows.map(([, name, type, labels, unit, meaning]) => ({
    name: name as string,
    type: type as Metric['type'],
    labels: [...(labels as string).matchAll(/`(\w+)`/g)].map(([, label]) => label as string),
    unit: (unit as string).trim(),
    meaning: (meaning as string).trim(),
  }));
}

/** Every name under which Prometheus stores samples of these metrics. */
export function sampleNames(metrics: Metric[]): Set<string> {
  const names = metrics.flatMap(({ name, type }) => (type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]));
  // What Prometheus makes itself.
  return new Set([...names, 'up', 'ALERTS']);
}

/** What a query asks for: metrics, and labels that it selects or groups by. */
export interface Asked {
  metrics: string[];
  labels: string[];
}

/** Takes a PromQL query apart; throws where it is none. Variables of Grafana are to be replaced before. */
export function asked(query: string): Asked {
  const tree = parser.parse(query);
  const found: Asked = { metrics: [], labels: [] };
  tree.iterate({
    enter: (node) => {
      const text = query.slice(node.from, node.to);
      if (node.type.isError) throw new Error(`no PromQL at ${node.from} ("${text}"): ${query}`);
      // The name of a metric is an identifier directly below its selector; others are of functions and labels.
      if (node.name === 'Identifier' && node.node.parent?.name === 'VectorSelector') found.metrics.push(text);
      if (node.name === 'LabelName') found.labels.push(text);
    },
  });
  if (found.metrics.length === 0) throw new Error(`asks for no metric: ${query}`);
  return found;
}

/** The anchor of a heading, as it is linked to. */
export function anchors(markdown: string): Set<string> {
  const headings = [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading as string);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replace(/\s/g, '-'),
    ),
  );
}

/** Whether `program` is here. */
export const isHere = (program: string): boolean => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

/** `test`, or a skipped one whose name says why where `program` is missing. */
export function needing(program: string): (name: string, body: jest.ProvidesCallback) => void {
  if (isHere(program)) return (name, body) => test(name, body);
  return (name, body) => test.skip(`${name} (skipped: ${program} is not installed; it comes with the Debian package prometheus)`, body);
}

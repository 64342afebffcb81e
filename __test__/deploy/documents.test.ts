/** The documents: variables, links and boxes, held against what there is. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { anchors, ROOT, read } from '../support/deployment';

const DOCUMENTS = ['docs/deployment.md', 'docs/monitoring.md', 'docs/production-checklist.md', 'docs/runbook.md'];

test('every environment variable that counts is in the table', () => {
  const ofBus = [...read('src/engine/config/env.rs').matchAll(/pub const (\w+): &str = "\1"/g)].map(([, name]) => name as string);
  const ofProgram = [...read('ts/server/settings.ts').matchAll(/(?:text|env\[)\(?'(\w+)'/g)].map(([, name]) => name as string);
  expect(ofBus.length).toBeGreaterThan(10);
  expect(ofProgram).toEqual(expect.arrayContaining(['PORT', 'HOST', 'OSSA_HTTP_TOKEN', 'OSSA_CONFIG', 'DRAIN_TIMEOUT_MS', 'OSSA_LOG']));
  const table = [...read('docs/deployment.md').matchAll(/^\| `([A-Z_]+)` \|/gm)].map(([, name]) => name as string);
  expect([...table].sort()).toEqual([...new Set([...ofBus, ...ofProgram])].sort());
});

test.each(DOCUMENTS)('links of %s lead somewhere', (document) => {
  const links = [...read(document).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link]) => link as string)
    .filter((link) => !link.startsWith('http'));
  for (const link of links) {
    const [path, anchor] = link.split('#');
    const target = path === '' ? document : join(dirname(document), path as string);
    expect([link, existsSync(join(ROOT, target))]).toEqual([link, true]);
    if (anchor !== undefined) expect([link, anchors(read(target)).has(anchor)]).toEqual([link, true]);
  }
});

test('the checklist has nine boxes, each with commands that show whether it is so', () => {
  const boxes = read('docs/production-checklist.md')
    .split(/^- \[ \] /m)
    .slice(1);
  expect(boxes).toHaveLength(9);
  for (const box of boxes) expect(box).toMatch(/^\*\*[^*]+\.\*\*[\s\S]+```bash\n[\s\S]+```/);
});

test('variables in the files of deploy/ are known', () => {
  const known = [...read('docs/deployment.md').matchAll(/^\| `([A-Z_]+)` \|/gm)].map(([, name]) => name as string);
  const used = [...read('deploy/kubernetes/ossa.env').matchAll(/^(\w+)=/gm)].map(([, name]) => name as string);
  expect(used.length).toBeGreaterThan(0);
  expect(used.filter((name) => !known.includes(name))).toEqual([]);
});

test('what verifies a webhook takes the example of Standard Webhooks, and nothing that was changed', () => {
  const [, code] = /```js\n([\s\S]*?)```/.exec(read('docs/monitoring.md').split('### Webhook')[1] ?? '') ?? [];
  type Verify = (headers: Record<string, string>, body: string, secret: string) => boolean;
  const at = 1_614_265_330;
  const now = (seconds: number) => ({ now: () => seconds * 1000 });
  const load = (clock: { now(): number }) => new Function('require', 'Date', `${code}; return isGenuine;`)(require, clock) as Verify;
  const headers = {
    'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    'webhook-timestamp': String(at),
    'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  };
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const body = '{"test": 2432232314}';
  const verify = load(now(at + 10));
  expect(verify(headers, body, secret)).toBe(true);
  expect(verify({ ...headers, 'webhook-signature': `v1,AAAA ${headers['webhook-signature']}` }, body, secret)).toBe(true);
  expect(verify(headers, `${body} `, secret)).toBe(false);
  expect(verify({ ...headers, 'webhook-id': 'msg_other' }, body, secret)).toBe(false);
  expect(verify({ ...headers, 'webhook-signature': '' }, body, secret)).toBe(false);
  expect(load(now(at + 301))(headers, body, secret)).toBe(false);
});

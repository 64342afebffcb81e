/**
 * The samples of README.md run. A block marked `js runnable` is a program of its own with a connected `bus` on memory://;
 * it must print what its comments `// → …` say, and end well. The block marked `js jest` is a test file as users write it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DEFAULT_EVENT_BUS_CONFIG } from '@bluefly/ossa';

const root = join(__dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** Blocks of the language and mark, with the heading above each. */
function blocks(fence: string): Array<{ heading: string; code: string }> {
  const found: Array<{ heading: string; code: string }> = [];
  for (const part of readme.split(/^(?=#+ )/m)) {
    const heading = part.slice(0, part.indexOf('\n')).replace(/^#+ /, '');
    for (const [, mark, code] of part.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)) {
      if (mark === fence) found.push({ heading, code: code ?? '' });
    }
  }
  return found;
}

/** The text under a heading of the second level. */
function section(heading: string): string {
  const start = readme.indexOf(`\n${heading}\n`);
  expect(start).toBeGreaterThan(0);
  return readme.slice(start, readme.indexOf('\n## ', start + 4));
}

/** Its default depends on another key. */
const KEY_PATTERN = 'deadLetterQueue.keyPattern';

const BEFORE = `
import { RedisEventBus } from '@bluefly/ossa';
const bus = new RedisEventBus({ redis: { url: 'memory://' } });
await bus.connect();
`;
// The handlers are done when stdin ends.
const AFTER = `
for await (const _ of process.stdin);
await bus.disconnect();
`;

/** Runs a program, ends its stdin once it has printed all `expected`, and answers its exit code and what it printed. */
async function run(program: string, expected: string[]): Promise<{ code: unknown; output: string }> {
  const args = ['--input-type=module', '--unhandled-rejections=strict', '--eval', program];
  const env = { PATH: process.env['PATH'] };
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['pipe', 'pipe', 'pipe'], timeout: 20_000 });
  let output = '';
  const look = (chunk: string) => {
    output += chunk;
    if (expected.every((text) => output.includes(text))) child.stdin.end();
  };
  child.stdout.setEncoding('utf8').on('data', look);
  child.stderr.setEncoding('utf8').on('data', look);
  look('');
  const [code] = await once(child, 'close');
  return { code, output };
}

describe('README.md', () => {
  const runnable = blocks('js runnable');

  it('has samples to run', () => expect(runnable.length).toBeGreaterThan(5));

  it.each(runnable.map(({ heading, code }, index) => [`${index + 1}, ${heading}`, code]))('sample %s', async (_, code) => {
    const expected = [...code.matchAll(/\/\/ → (.*)$/gm)].map(([, text]) => (text ?? '').trim());
    const { code: exitCode, output } = await run(BEFORE + code + AFTER, expected);
    for (const text of expected) expect(output).toContain(text);
    expect({ exitCode, output }).toMatchObject({ exitCode: 0 });
  });

  it('the quick start runs', async () => {
    const [quickStart] = blocks('typescript');
    const place = "{ host: 'localhost', port: 6379 }";
    expect(quickStart?.code).toContain(place);
    const { code, output } = await run((quickStart?.code ?? '').replace(place, "{ url: 'memory://' }"), []);
    expect({ code, output }).toMatchObject({ code: 0 });
  });

  it('names error codes that exist', () => {
    const known = readFileSync(join(root, 'index.d.ts'), 'utf8');
    const pages = readme + readFileSync(join(root, 'docs/reliability.md'), 'utf8');
    for (const [code] of pages.matchAll(/ERR_[A-Z_]+/g)) expect(known).toContain(`'${code}'`);
  });

  it('gives the defaults that are in force', () => {
    const table = section('## Configuration');
    const rows = [...table.matchAll(/^\| `([\w.]+)` \| (\S+) \|/gm)];
    expect(rows.length).toBeGreaterThan(10);
    for (const [, path, shown] of rows) {
      const value = path?.split('.').reduce<unknown>((config, key) => Reflect.get(config as object, key), DEFAULT_EVENT_BUS_CONFIG);
      expect({ path, shown: shown?.replaceAll('`', '') }).toEqual({
        path,
        shown: path === KEY_PATTERN ? '<keyPrefix>:dlq' : String(value),
      });
    }
  });
});

describe('README.md, the jest example', () => {
  const [example] = blocks('js jest');
  new Function('require', 'describe', 'test', 'expect', 'beforeEach', 'afterEach', example?.code ?? "throw new Error('no example')")(
    require,
    describe,
    test,
    expect,
    beforeEach,
    afterEach,
  );
});

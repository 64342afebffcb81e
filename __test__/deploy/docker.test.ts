/** The image, without an engine that could build it: what the Dockerfile says, and that what it copies is there and enough. */
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { promisify } from 'node:util';
import { DockerfileParser, type Instruction } from 'dockerfile-ast';
import { ModifiableInstruction } from 'dockerfile-ast/lib/modifiableInstruction';
import { ROOT, read } from '../support/deployment';

const file = DockerfileParser.parse(read('deploy/docker/Dockerfile'));

/** Instructions of each stage, the first of which is FROM. */
const stages: Instruction[][] = [];
for (const instruction of file.getInstructions()) {
  if (instruction.getKeyword() === 'FROM') stages.push([]);
  stages.at(-1)?.push(instruction);
}
const runtime = stages.at(-1) as Instruction[];
const builder = stages.at(-2) as Instruction[];
/** What is said with that keyword, flags first. */
const said = (stage: Instruction[], keyword: string) =>
  stage
    .filter((instruction) => instruction.getKeyword() === keyword)
    .map((instruction) => {
      const flags = instruction instanceof ModifiableInstruction ? instruction.getFlags() : [];
      return [...flags.map((flag) => `--${flag.getName()}=${flag.getValue()}`), instruction.getArgumentsContent() ?? ''].join(' ');
    });

/** What .dockerignore lets through: everything is kept out, but for these. */
const context = read('.dockerignore')
  .split('\n')
  .filter((line) => line.startsWith('!'))
  .map((line) => line.slice(1));

test('it is built in stages, and what runs has neither compiler nor sources', () => {
  expect(said(builder, 'FROM')).toEqual([expect.stringMatching(/^rust:[\d.]+-bookworm AS builder$/)]);
  expect(said(runtime, 'FROM')).toEqual(['node:20-bookworm-slim']);
  expect(said(runtime, 'COPY')).toEqual(['--from=builder /app /app']);
  expect(said(runtime, 'RUN')).toEqual([]);
});

test('Rust is that of Cargo.toml, Node.js that of package.json', () => {
  const [, rust] = /^rust-version = "(.+)"$/m.exec(read('Cargo.toml')) ?? [];
  expect(said(builder, 'FROM')[0]).toContain(`rust:${rust}-`);
  const [, node] = />=(\d+)/.exec(JSON.parse(read('package.json')).engines.node) ?? [];
  expect(said(runtime, 'FROM')[0]).toContain(`node:${node}-`);
});

test('it runs as somebody who is not root, and owns nothing of what it runs', () => {
  expect(said(runtime, 'USER')).toEqual(['1000:1000']);
  expect(said(runtime, 'COPY').join()).not.toContain('--chown');
});

test('it starts the server program, on a port that is told, where others reach it', () => {
  expect(JSON.parse(said(runtime, 'CMD')[0] as string)).toEqual(['node', 'dist/server/app.js']);
  expect(said(runtime, 'WORKDIR')).toEqual(['/app/node_modules/@bluefly/ossa']);
  expect(said(runtime, 'EXPOSE')).toEqual(['3000']);
  expect(said(runtime, 'ENV').join(' ').split(' ')).toEqual(expect.arrayContaining(['NODE_ENV=production', 'HOST=0.0.0.0', 'PORT=3000']));
  expect(said(runtime, 'STOPSIGNAL')).toEqual(['SIGTERM']);
  // The last stage is what is run: a program before CMD would be another one.
  expect(said(runtime, 'ENTRYPOINT')).toEqual([]);
});

test('its health check asks /healthz, and tells a good answer from a bad one', async () => {
  const [check] = said(runtime, 'HEALTHCHECK');
  const [node, , program] = JSON.parse(/CMD (\[.*\])$/s.exec(check ?? '')?.[1] ?? '[]') as string[];
  expect(node).toBe('node');
  expect(program).toContain('/healthz');
  const answers = async (status: number) => {
    const server = createServer((request, response) => response.writeHead(request.url === '/healthz' ? status : 404).end());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const PORT = String((server.address() as AddressInfo).port);
    const check = promisify(execFile)(process.execPath, ['-e', program as string], { env: { PORT } });
    const healthy = await check.then(
      () => true,
      () => false,
    );
    await new Promise((resolve) => server.close(resolve));
    return healthy;
  };
  expect(await answers(200)).toBe(true);
  expect(await answers(503)).toBe(false);
});

test('every file that it copies is there, and is let through to it', () => {
  const copied = said(builder, 'COPY')
    .filter((args) => !args.startsWith('--from'))
    .flatMap((args) => args.split(/\s+/).slice(0, -1));
  expect(copied).toEqual(['package.json', 'package-lock.json', '.']);
  for (const name of [...copied, ...context]) expect([name, existsSync(join(ROOT, name))]).toEqual([name, true]);
  expect(context).toEqual(expect.arrayContaining(copied.filter((name) => name !== '.')));
  expect(read('.dockerignore')).toMatch(/^\*$/m);
});

/** Whether .dockerignore lets that file, or one above it, through: the last line that speaks of it counts. */
function isLetThrough(path: string): boolean {
  const parts = path.split('/');
  const above = parts.map((_, at) => parts.slice(0, at + 1).join('/'));
  let isOut = false;
  for (const line of read('.dockerignore').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const pattern = line
      .replace(/^!/, '')
      .replace(/[.+^$()|[\]{}]/g, '\\$&')
      .replace(/\*\*\/|\*/g, (stars) => (stars === '*' ? '[^/]*' : '(?:.*/)?'));
    if (above.some((name) => new RegExp(`^${pattern}$`).test(name))) isOut = !line.startsWith('!');
  }
  return !isOut;
}

/** All files of the repository. */
const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' }).split('\0');
const literals = (text: string) => [...text.matchAll(/(['"])((?:(?!\1)[^\\\n])+)\1/g)].map(([, , literal]) => literal as string);

/** What the crate takes in when it is compiled. */
function included(): string[] {
  const found: string[] = [];
  for (const file of ['build.rs', ...tracked.filter((name) => /^src\/.*\.rs$/.test(name))]) {
    const text = read(file);
    for (const [whole, argument] of text.matchAll(/\binclude(?:_str|_bytes)?!\(((?:[^()]|\([^()]*\))*)\)/g)) {
      const [, literal] = /^\s*"([^"]+)"\s*$/.exec(argument as string) ?? [];
      // A macro that is given names of files, and puts the folder before them.
      const [, folder] = /^\s*concat!\("([^"]+)", \$\w+\)\s*$/.exec(argument as string) ?? [];
      if (literal === undefined && folder === undefined) throw new Error(`${file}: ${whole} is not understood`);
      const names = literal === undefined ? literals(text).filter((name) => /^\w+\.\w+$/.test(name)) : [literal];
      found.push(...names.map((name) => posix.join(dirname(file), folder ?? '', name)));
    }
  }
  return found;
}

/** What scripts of the build name, `npm run package` and what it imports: files of the repository, and folders of it. */
function named(script = 'scripts/package.mjs', seen = new Set<string>()): string[] {
  if (seen.has(script)) return [];
  seen.add(script);
  const text = read(script);
  const imports = [...text.matchAll(/from '(\.[^']+)'/g)].map(([, path]) => posix.join(dirname(script), path as string));
  const known = new Set(tracked.flatMap((name) => [name, dirname(name)]));
  const paths = literals(text)
    .map((path) => posix.normalize(path))
    .filter((path) => path !== '.' && known.has(path));
  return [script, ...paths, ...imports.flatMap((path) => named(path, seen))];
}

test('what the crate includes, and what scripts of the build name, is let through', () => {
  const [crate, scripts] = [included(), named()];
  expect(crate).toContain('src/engine/store/redis/lua/append.lua');
  expect(crate.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
  expect(scripts).toEqual(expect.arrayContaining(['scripts/lib/tarballs.mjs', 'ts/tsconfig.json', 'scripts/types.mjs']));
  expect([...crate, ...scripts].filter((path) => !isLetThrough(path))).toEqual([]);
  // The same look sees what stays out.
  expect(['docs/reliability.md', 'src/x.node', 'target/debug'].filter(isLetThrough)).toEqual([]);
});

test('stages that it copies from are there', () => {
  const names = stages.map((stage) => / AS (\w+)$/.exec(said(stage, 'FROM')[0] as string)?.[1]);
  const from = stages.flatMap((stage) => said(stage, 'COPY')).flatMap((args) => /^--from=(\w+)/.exec(args)?.[1] ?? []);
  expect(names).toEqual(expect.arrayContaining(from));
});

test('what is let through is enough: the package has all it needs, the façade is built from it, and cargo finds the crate', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ossa-context-'));
  try {
    for (const name of context) {
      cpSync(join(ROOT, name), join(folder, name), { recursive: true, filter: (path) => !path.endsWith('.node') });
    }
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    execFileSync(process.execPath, ['scripts/build.mjs', 'facade'], { cwd: folder, stdio: 'pipe' });
    expect(existsSync(join(folder, 'dist/server/app.js'))).toBe(true);
    const packed = [...JSON.parse(read('package.json')).files, 'README.md', 'LICENSE'];
    for (const name of packed) expect([name, existsSync(join(folder, name))]).toEqual([name, true]);
    execFileSync('cargo', ['metadata', '--no-deps', '--offline', '--format-version', '1'], { cwd: folder, stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 180_000);

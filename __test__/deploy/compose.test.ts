/** The compose file: checked against the schema of the Compose specification, against itself, and its cluster is really made. */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Redis from 'ioredis';
import { ROOT, read, yaml } from '../support/deployment';
import { OSSAEventBus } from '../support/package';
import { TestServer } from '../support/server';
import { endServers, ServerProgram } from '../support/serverProgram';
import { until } from '../support/wait';

jest.setTimeout(120_000);
afterEach(endServers);

const FOLDER = join(ROOT, 'deploy/compose');
const FILE = 'deploy/compose/docker-compose.yml';
const compose = yaml(FILE);
const services: [string, any][] = Object.entries(compose.services);
/** What each node of the cluster is told, behind the shell and its script. */
const nodeSettings: string[] = compose.services['redis-1'].command.slice(2);
const named = (prefix: string) => services.filter(([name]) => name.startsWith(prefix));

/** What the linter says, which checks the schema first: errors only. */
const lint = (path: string) =>
  spawnSync(process.execPath, [join(ROOT, 'node_modules/dclint/bin/dclint.cjs'), '-q', path], { encoding: 'utf8' });

test('it is a compose file', () => {
  const { status, stdout } = lint(FILE);
  expect([status, stdout.trim()]).toEqual([0, '']);
});

test('a compose file that is none is found', () => {
  const path = join(FOLDER, `wrong.${process.pid}.yml`);
  try {
    writeFileSync(path, read(FILE).replace('cap_drop:', 'cap_dorp:'));
    expect(lint(path)).toMatchObject({ status: 1, stdout: expect.stringContaining('must NOT have additional properties') });
  } finally {
    rmSync(path);
  }
});

test('what services name is there: files, volumes, networks, secrets, and services to wait for', () => {
  for (const [name, service] of services) {
    for (const mount of service.volumes ?? []) {
      const [source] = mount.split(':');
      const exists = source.startsWith('.') ? existsSync(join(FOLDER, source)) : source in compose.volumes;
      expect([name, source, exists]).toEqual([name, source, true]);
    }
    const networks = Array.isArray(service.networks) ? service.networks : Object.keys(service.networks);
    for (const network of networks) expect(Object.keys(compose.networks)).toContain(network);
    for (const secret of service.secrets ?? []) expect(Object.keys(compose.secrets)).toContain(secret);
    const awaited = Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {});
    for (const other of awaited) expect(Object.keys(compose.services)).toContain(other);
  }
  expect(
    Object.keys(compose.volumes).filter((name) => !services.some(([, { volumes = [] }]) => volumes.join().includes(`${name}:`))),
  ).toEqual([]);
  expect(existsSync(join(FOLDER, compose.services['bus-1'].build.context, compose.services['bus-1'].build.dockerfile))).toBe(true);
});

test('what has to be filled in is in .env.example, and has no value that would be taken over', () => {
  const wanted = new Set([...read(FILE).matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name));
  const example = [...read('deploy/compose/.env.example').matchAll(/^(\w+)=(.*)$/gm)];
  expect(new Set(example.map(([, name]) => name))).toEqual(wanted);
  expect(example.map(([, , value]) => value)).toEqual(example.map(() => ''));
  // No other variable is taken from who starts it.
  expect(
    read(FILE)
      .match(/\$\{?\w+/g)
      ?.filter((use) => !wanted.has(use.replace(/\W/g, ''))),
  ).toEqual([]);
});

test('six nodes of a cluster keep what they are told, and refuse rather than forget', () => {
  const nodes = named('redis-').filter(([name]) => /\d$/.test(name));
  expect(nodes).toHaveLength(6);
  for (const [, node] of nodes) {
    const setting = (name: string) => node.command[node.command.indexOf(name) + 1];
    expect(setting('--cluster-enabled')).toBe('yes');
    expect(setting('--appendonly')).toBe('yes');
    expect(setting('--maxmemory-policy')).toBe('noeviction');
  }
  const addresses = nodes.map(([, node]) => node.networks.ossa.ipv4_address);
  expect(new Set(addresses).size).toBe(6);
  expect(compose.services['redis-cluster'].environment.NODES).toBe(addresses.map((address) => `${address}:6379`).join(' '));
  const seeds = JSON.parse(read('deploy/compose/ossa.json')).eventBus.redis.cluster.nodes;
  for (const { host, port } of seeds) expect(addresses.map((address) => `${address}:6379`)).toContain(`${host}:${port}`);
});

test('no process is given a secret as an argument', () => {
  for (const [name, { command = [], healthcheck }] of services) {
    expect([name, JSON.stringify([command, healthcheck ?? null])]).toEqual([name, expect.not.stringContaining('${')]);
  }
  for (const [, node] of named('redis-')) expect(node.secrets).toEqual(['redis_password']);
});

test('a node takes its password, whatever is in it, from the secret and not from its arguments', async () => {
  const password = 'a "quoted\\ one\' $HOME #';
  const folder = mkdtempSync(join(tmpdir(), 'ossa-compose-'));
  writeFileSync(join(folder, 'secret'), `${password}\n`);
  // The image's entrypoint, which changes the user.
  writeFileSync(join(folder, 'docker-entrypoint.sh'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  const socket = join(folder, 'redis.sock');
  const [shell, , ...settings] = compose.services['redis-1'].command as string[];
  const args = [join(FOLDER, 'redis-node.sh'), ...settings, '--port', '0', '--cluster-port', '1', '--unixsocket', socket, '--dir', folder];
  const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}`, REDIS_PASSWORD_FILE: join(folder, 'secret') };
  const node = spawn(shell as string, args, { env, stdio: 'ignore' });
  const ended = new Promise((resolve) => node.once('close', resolve));
  try {
    await until(() => existsSync(socket));
    const client = new Redis({ path: socket, password, enableReadyCheck: false });
    try {
      expect(await client.ping()).toBe('PONG');
      expect(await client.config('GET', 'masterauth')).toEqual(['masterauth', password]);
    } finally {
      client.disconnect();
    }
    const stranger = new Redis({ path: socket, enableReadyCheck: false });
    stranger.on('error', () => undefined);
    await expect(stranger.ping()).rejects.toThrow('NOAUTH');
    stranger.disconnect();
    // It is that process itself, so that it gets the signals of the container.
    const commandLine = readFileSync(`/proc/${node.pid}/cmdline`, 'utf8');
    expect(commandLine).toContain('redis-server');
    expect(commandLine).not.toContain('quoted');
  } finally {
    node.kill('SIGKILL');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
});

test('three buses are told what the server program knows, have limits, and no rights that they do not need', () => {
  const buses = named('bus-');
  expect(buses).toHaveLength(3);
  const known = read('docs/deployment.md');
  for (const [, bus] of buses) {
    for (const name of Object.keys(bus.environment)) expect(known).toContain(`| \`${name}\` |`);
    expect(bus).toMatchObject({ read_only: true, cap_drop: ['ALL'], mem_limit: '512m', security_opt: ['no-new-privileges:true'] });
    expect(Number.parseInt(bus.stop_grace_period, 10)).toBeGreaterThan(10 + 10);
  }
  expect(() => new OSSAEventBus(null, JSON.parse(read('deploy/compose/ossa.json')))).not.toThrow();
});

test('nothing is reachable from other machines', () => {
  for (const [, { ports = [] }] of services) for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
});

test('Prometheus and Grafana find what they are given', () => {
  const { prometheus, grafana } = compose.services;
  const target = (service: any, source: string) => service.volumes.find((mount: string) => mount.startsWith(source))?.split(':')[1];
  const rules = target(prometheus, '../prometheus/rules.yml');
  expect(target(prometheus, '../prometheus/prometheus.yml')).toBe('/etc/prometheus/prometheus.yml');
  expect(rules).toBe(`/etc/prometheus/${yaml('deploy/prometheus/prometheus.yml').rule_files[0]}`);
  const token = yaml('deploy/prometheus/prometheus.yml').scrape_configs[0].authorization.credentials_file;
  expect(token).toBe(`/run/secrets/${prometheus.secrets[0]}`);
  expect(compose.secrets[prometheus.secrets[0]]).toEqual({ environment: 'OSSA_HTTP_TOKEN' });
  const [provider] = yaml('deploy/grafana/provisioning/dashboards/ossa.yml').providers;
  expect(target(grafana, '../grafana/ossa-event-bus.json')).toBe(`${provider.options.path}/ossa-event-bus.json`);
  expect(target(grafana, '../grafana/provisioning')).toBe('/etc/grafana/provisioning');
});

describe('the job that makes the cluster', () => {
  const password = 'secret-of-the-test';
  const settings = [...nodeSettings, '--masterauth', password];
  let servers: TestServer[] = [];
  afterEach(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    servers = [];
  });

  const job = async (nodes: string) => {
    const secret = servers[0]?.path('secret') as string;
    writeFileSync(secret, password);
    const env = { ...process.env, NODES: nodes, REDIS_PASSWORD_FILE: secret };
    return (await promisify(execFile)('sh', [join(FOLDER, 'create-cluster.sh')], { env })).stdout;
  };

  test('makes one of such nodes, leaves it alone after that, and the server program works on it', async () => {
    for (let n = 0; n < 6; n++) servers.push(await TestServer.start(settings, { password }));
    const nodes = servers.map(({ port }) => `127.0.0.1:${port}`).join(' ');
    expect(await job(nodes)).toMatch(/All 16384 slots covered[\s\S]*The cluster is ready\./);
    const masters = async () => String(await servers[0].call('CLUSTER', 'NODES')).match(/ (myself,)?master - .* connected \d+-\d+$/gm);
    await until(async () => (await masters())?.length === 3);
    expect(await job(nodes)).toBe('The nodes are a cluster already.\nThe cluster is ready.\n');

    const config = servers[0].path('ossa.json');
    const seeds = servers.slice(0, 3).map(({ port }) => ({ host: '127.0.0.1', port }));
    writeFileSync(config, JSON.stringify({ eventBus: { redis: { cluster: { nodes: seeds } } } }));
    const program = new ServerProgram({ OSSA_CONFIG: config, REDIS_PASSWORD: password });
    await program.logged(/^Connected to Redis$/);
    expect((await program.get('/readyz')).status).toBe(200);
    program.kill('SIGTERM');
    expect(await program.ended).toEqual({ code: 0, signal: null });
  });
});

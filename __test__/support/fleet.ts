/** Processes that share a register of services, each with what it is told. */
import { listen } from '../integration/programs/telling.cjs';
import { type Line, type Program, start } from './children';
import { type DeepPartial, ServiceRegistry, type ServiceRegistryConfig } from './package';
import type { TestServer } from './server';
import { until } from './wait';
import { freshPrefix } from './world';

/** An event in short, `registered <name>` or `<name> healthy -> unhealthy`, and when it was told, ms since 1970. */
export interface Told {
  told: string;
  at: number;
}

/** A registry, in a process of its own or in this one. */
export class Member {
  readonly told: Told[] = [];
  /** What its 'registry:error' said. */
  readonly failed: string[] = [];
  /** So many of `told` were looked at. */
  read = 0;

  constructor(
    readonly name: string,
    /** None: it is in this process. */
    readonly program: Program | undefined,
    private readonly registry: ServiceRegistry | undefined,
  ) {}

  hear({ told, at, failed }: Line): void {
    if (told !== undefined) this.told.push({ told, at });
    if (failed !== undefined) this.failed.push(failed);
  }

  /** Calls a method of its registry. */
  async call(method: keyof ServiceRegistry, ...args: unknown[]): Promise<any> {
    return this.program === undefined ? (this.registry as any)[method](...args) : this.program.ask({ call: method, args });
  }

  /** Has it register all of them, some at a time. */
  register(services: object[], width = 10): Promise<unknown> {
    return this.program!.ask({ register: services, width });
  }

  /** Ends it, without a word where it is a process. */
  async end(): Promise<void> {
    this.program?.kill('SIGKILL');
    await (this.program?.ended ?? this.registry?.close());
  }

  /** What it was told and was not looked at yet. */
  get news(): string[] {
    return this.told.slice(this.read).map(({ told }) => told);
  }
}

/** The name of the service that an event is about. */
const subject = (told: string) => told.split(' ')[told.includes('->') ? 0 : 1];

function bySubject(news: string[]): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const told of news) (found[subject(told)] ??= []).push(told);
  return found;
}

const fleets = new Set<Fleet>();

/** Ends all members of all fleets. */
export async function endFleets(): Promise<void> {
  await Promise.all([...fleets].map((fleet) => fleet.end()));
}

/** All of them. */
export class Fleet {
  readonly members: Member[] = [];
  readonly #prefix = freshPrefix();

  constructor(
    readonly server: TestServer,
    private readonly settings: DeepPartial<ServiceRegistryConfig>,
  ) {
    fleets.add(this);
  }

  get #config() {
    // That a server is lost is what these tests do to it: no news for the console.
    return { logLevel: 'error' as const, ...this.settings, redis: { url: this.server.url, keyPrefix: this.#prefix } };
  }

  /** One more in a process of its own; it listens. */
  async join(name: string): Promise<Member> {
    let member: Member | undefined;
    const program = start('registry.cjs', { config: this.#config }, { asked: true, onLine: (line) => member?.hear(line) });
    member = new Member(name, program, undefined);
    await until(() => program.lines.some((line) => line.ready), { show: () => program.stderr() });
    this.members.push(member);
    return member;
  }

  /** One in this process; it listens. */
  async joinHere(name: string): Promise<Member> {
    const registry = new ServiceRegistry(this.#config);
    const member = new Member(name, undefined, registry);
    listen(registry, (line) => member.hear(line));
    await registry.getStats();
    this.members.push(member);
    return member;
  }

  /** It is there no longer. */
  forget(member: Member): void {
    this.members.splice(this.members.indexOf(member), 1);
  }

  /**
   * Waits until each of `members` was told something so often, and fails unless it is exactly this, whatever service comes first, and of
   * each service in the same order in all of them. Answers of each event when it was told last.
   */
  async expectNews(expected: string[], members = this.members, timeoutMs = 20_000): Promise<Map<string, number>> {
    const missing = ({ name, news }: Member) => [name, ...expected.filter((told) => !news.includes(told))];
    await until(() => members.every(({ news }) => news.length >= expected.length), { timeoutMs, show: () => members.map(missing) });
    const sorted = [...expected].sort();
    expect(Object.fromEntries(members.map(({ name, news }) => [name, news.sort()]))).toEqual(
      Object.fromEntries(members.map(({ name }) => [name, sorted])),
    );
    const order = bySubject(members[0].news);
    for (const { news } of members) expect(bySubject(news)).toEqual(order);
    const last = new Map<string, number>();
    for (const member of members) {
      for (const { told, at } of member.told.slice(member.read)) last.set(told, Math.max(at, last.get(told) ?? 0));
      member.read = member.told.length;
    }
    return last;
  }

  /** The names that are listed, as a registry sees them that knows nothing but what is in Redis. */
  async listedAsSeenByANewOne(): Promise<string[]> {
    const registry = new ServiceRegistry(this.#config);
    try {
      return (await registry.getAllServices()).map(({ name }) => name);
    } finally {
      await registry.close();
    }
  }

  /** Ends all members. */
  async end(): Promise<void> {
    fleets.delete(this);
    await Promise.all(this.members.splice(0).map((member) => member.end()));
  }
}

/** How often the server ran each command, those in scripts included. */
export async function commandCounts(server: TestServer): Promise<Map<string, number>> {
  const text = String(await server.call('INFO', 'commandstats'));
  return new Map([...text.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, calls]) => [name, Number(calls)]));
}

/** The commands that ran meanwhile, and how often. */
export async function commandsDuring(server: TestServer, meanwhile: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = await commandCounts(server);
  await meanwhile();
  const after = await commandCounts(server);
  const more = [...after].map(([name, calls]) => [name, calls - (before.get(name) ?? 0)] as const);
  return Object.fromEntries(more.filter(([, calls]) => calls > 0));
}

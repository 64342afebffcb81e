/** Fifty services, three processes that register and watch them, and two that listen: what happens is told once to each. */
import { rmSync } from 'node:fs';
import { endAll, type Program, start } from '../support/children';
import { endFleets, Fleet, type Member } from '../support/fleet';
import { freePort, TestServer } from '../support/server';
import { pause, until } from '../support/wait';

jest.setTimeout(60_000);

const COUNT = 50;
const TTL_MS = 4000;
const INTERVAL_MS = 400;
const TIMEOUT_MS = 500;
const THRESHOLD = 2;
/** An interval is up to a tenth longer or shorter. */
const [SHORTEST_MS, LONGEST_MS] = [0.9 * INTERVAL_MS, 1.1 * INTERVAL_MS];
/** The longest until a change is found: each of the probes that it takes is due, and takes as long as it may. */
const FOUND_MS = THRESHOLD * (LONGEST_MS + TIMEOUT_MS);
/** An announcement that is lost is made up for within a second; the rest is the machine's. */
const TOLD_MS = 1500;
/** How much longer than it may take a probe is that of the process that began it. */
const LEASE_BESIDE_MS = 5000;

const names = Array.from({ length: COUNT }, (_, n) => `s${String(n).padStart(2, '0')}`);
/** Of services n % 3 is registered by registrar n % 3. */
const ofRegistrar = (r: number) => names.filter((_, n) => n % 3 === r);

const settings = {
  serviceTtlSeconds: TTL_MS / 1000,
  healthCheck: { intervalMs: INTERVAL_MS, timeoutMs: TIMEOUT_MS, failureThreshold: THRESHOLD, successThreshold: THRESHOLD },
};

let ports: number[];
let server: TestServer;
let services: Program;
let fleet: Fleet;
let registrars: Member[];
let here: Member;

const registration = (name: string) => {
  const n = names.indexOf(name);
  return {
    name,
    endpoint: `http://127.0.0.1:${ports[n]}`,
    version: `1.${n % 5}.0`,
    capabilities: [{ name: n % 2 === 0 ? 'even' : 'odd', version: '1.0.0' }],
    metadata: { tags: [`tag-${n % 4}`], environment: n < 25 ? 'production' : 'test' },
  };
};

/** From now on those services behave so; answers when that began. */
const behave = async (behaviours: Record<number, string>) => {
  await services.ask({ behave: behaviours });
  return Date.now();
};
const probes = (): Promise<{ times: number[][]; together: number[]; trapped: number; beside: number }> => services.ask({ probes: true });
const all = (numbers: number[], behaviour: string) => Object.fromEntries(numbers.map((n) => [n, behaviour]));
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

/** Every member knows all services that `expected` names, as it says that they are. */
const expectStatuses = async (expected: Map<string, string>, members = fleet.members) => {
  for (const member of members) {
    const found: any[] = await member.call('getAllServices');
    expect(Object.fromEntries(found.map(({ name, health }) => [name, health.status]))).toEqual(Object.fromEntries(expected));
  }
};
const healthy = (except: string[] = []) => new Map(names.filter((name) => !except.includes(name)).map((name) => [name, 'healthy']));

beforeAll(async () => {
  ports = [];
  for (let n = 0; n < COUNT; n++) ports.push(await freePort());
  [server, services] = await Promise.all([TestServer.start(), start('services.cjs', { ports }, { asked: true })]);
  await until(() => services.lines.some((line) => line.ready), { show: () => services.stderr() });
  fleet = new Fleet(server, settings);
  registrars = await Promise.all(['one', 'two', 'three'].map((name) => fleet.join(name)));
  await Promise.all([fleet.join('listening'), fleet.joinHere('here').then((member) => (here = member))]);
});

afterAll(async () => {
  await endFleets();
  await endAll();
  await server?.stop();
});

test('fifty services of three processes are told once to each of five', async () => {
  await Promise.all(registrars.map((registrar, r) => registrar.register(ofRegistrar(r).map(registration))));
  await fleet.expectNews(names.map((name) => `registered ${name}`));
  await expectStatuses(new Map(names.map((name) => [name, 'unknown'])));
});

test('watched by three, each is found healthy once', async () => {
  await Promise.all(registrars.map((registrar) => registrar.call('startHealthMonitoring')));
  await fleet.expectNews(names.map((name) => `${name} unknown -> healthy`));
  await expectStatuses(healthy());
});

const numbered = (passes: (n: number) => boolean) => names.filter((_, n) => passes(n));
test.each<[object, string[]]>([
  [{}, names],
  [{ namePattern: 's1?' }, numbered((n) => n >= 10 && n < 20)],
  [{ capability: 'odd' }, numbered((n) => n % 2 === 1)],
  [{ tags: ['tag-1', 'tag-3'] }, numbered((n) => n % 4 === 1 || n % 4 === 3)],
  [{ version: '>=1.3' }, numbered((n) => n % 5 >= 3)],
  [{ environment: 'test' }, numbered((n) => n >= 25)],
  [{ healthStatus: 'healthy', capability: 'even', environment: 'production' }, numbered((n) => n % 2 === 0 && n < 25)],
  [{ healthStatus: 'unhealthy' }, []],
])('all find by %j the same', async (filter, expected) => {
  for (const member of fleet.members) {
    const found: any[] = await member.call('discover', filter);
    expect([member.name, found.map(({ name }) => name)]).toEqual([member.name, expected]);
  }
});

describe('when they behave otherwise', () => {
  const unhealthy = {
    500: range(0, 5),
    hang: range(5, 10),
    refuse: range(10, 15),
    garbage: range(30, 33),
    redirect: range(35, 38),
    endless: range(38, 41),
  };
  const failing = Object.values(unhealthy).flat();
  const degraded = range(25, 30);
  const [slow, flapping, unreadable] = [range(15, 20), range(20, 25), range(33, 35)];
  const statusOf = (n: number) => (failing.includes(n) ? 'unhealthy' : degraded.includes(n) ? 'degraded' : 'healthy');
  const changed = [...failing, ...degraded];

  test('exactly those that fail or say so are found out, in time, and all processes agree', async () => {
    const began = await behave({
      ...Object.assign({}, ...Object.entries(unhealthy).map(([behaviour, numbers]) => all(numbers, behaviour))),
      ...all(degraded, 'degraded'),
      ...all(slow, 'slow'),
      ...all(flapping, 'flap'),
      ...all(unreadable, 'unreadable'),
    });
    const last = await fleet.expectNews(changed.map((n) => `${names[n]} healthy -> ${statusOf(n)}`));
    const took = (n: number) => last.get(`${names[n]} healthy -> ${statusOf(n)}`)! - began;
    expect(Math.max(...changed.map(took))).toBeLessThan(FOUND_MS + TOLD_MS);

    // Those that flap are asked often enough to be found out, if one failure counted.
    const { times: before } = await probes();
    await until(async () => (await probes()).times.every((times, n) => !flapping.includes(n) || times.length >= before[n].length + 6));
    await fleet.expectNews([]);
    expect((await probes()).trapped).toBe(0);

    await expectStatuses(new Map(names.map((name, n) => [name, statusOf(n)])));
    const of = (status: string) => names.filter((_, n) => statusOf(n) === status);
    for (const member of fleet.members) {
      for (const status of ['healthy', 'degraded', 'unhealthy', 'unknown']) {
        const found: any[] = await member.call('discover', { healthStatus: status });
        expect(found.map(({ name }) => name)).toEqual(of(status));
      }
      expect(await member.call('getStats')).toEqual({
        totalServices: COUNT,
        healthyServices: of('healthy').length,
        unhealthyServices: failing.length,
        degradedServices: degraded.length,
        unknownServices: 0,
        maintenanceServices: 0,
      });
    }
    for (const [n, name] of names.entries()) {
      const health = await here.call('health', name);
      expect(health.status).toBe(statusOf(n));
      if (failing.includes(n)) expect(health.error).toEqual(expect.any(String));
      else if (!flapping.includes(n)) expect(health.error).toBeUndefined();
      // Of the others there may be no answer that took a time.
      if (statusOf(n) !== 'unhealthy' && !flapping.includes(n)) expect(health.responseTime).toBeGreaterThan(slow.includes(n) ? 149 : 0);
    }
  });

  test('they are better again once each', async () => {
    const began = await behave(all(range(0, COUNT), 'ok'));
    const last = await fleet.expectNews(changed.map((n) => `${names[n]} ${statusOf(n)} -> healthy`));
    expect(Math.max(...last.values()) - began).toBeLessThan(FOUND_MS + TOLD_MS);
    await expectStatuses(healthy());
  });
});

describe('probes', () => {
  const WINDOW_MS = 5000;
  /** How often each was asked in a window. */
  const counted = async () => {
    const from = (await probes()).times.map((times) => times.length);
    await pause(WINDOW_MS);
    return (await probes()).times.map((times, n) => times.length - from[n]);
  };
  const expectOnceAnInterval = (counts: number[]) => {
    // An interval begins when the last probe is over, and ends when somebody looks.
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(Math.floor(WINDOW_MS / (LONGEST_MS + 50)) - 1);
    expect(Math.max(...counts)).toBeLessThanOrEqual(Math.ceil(WINDOW_MS / SHORTEST_MS) + 1);
  };
  const mean = (counts: number[]) => counts.reduce((sum, count) => sum + count, 0) / counts.length;

  test('are as many by one process as by three, once an interval, and never two at once', async () => {
    const byThree = await counted();
    const others = registrars.slice(1);
    const call = (method: 'startHealthMonitoring' | 'stopHealthMonitoring') => Promise.all(others.map((other) => other.call(method)));
    // One that stops leaves nothing that it took and did not do.
    for (let times = 0; times < 20; times++) {
      await call('stopHealthMonitoring');
      await call('startHealthMonitoring');
    }
    await call('stopHealthMonitoring');
    const byOne = await counted();
    await call('startHealthMonitoring');
    expectOnceAnInterval(byThree);
    expectOnceAnInterval(byOne);
    expect(Math.abs(mean(byThree) / mean(byOne) - 1)).toBeLessThan(0.1);
    expect(Math.max(...(await probes()).together)).toBe(1);
    await fleet.expectNews([]);
  });

  test('of a service that is alone are as many', async () => {
    const alone = new Fleet(server, settings);
    const member = await alone.joinHere('alone');
    await member.call('register', { ...registration(names[0]), metadata: { healthPath: '/beside' } });
    const before = (await probes()).beside;
    await member.call('startHealthMonitoring');
    await pause(WINDOW_MS);
    const count = (await probes()).beside - before;
    await alone.end();
    expectOnceAnInterval([count]);
  });
});

describe('another process than the one that registered it', () => {
  test('changes and takes out a service: told once, and it stays so', async () => {
    const [changed, removed] = [names[3], names[6]];
    await here.call('updateService', changed, { version: '2.0.0', metadata: { environment: 'moved' } });
    expect(await here.call('unregister', removed)).toBe(true);
    await fleet.expectNews([`updated ${changed}`, `unregistered ${removed}`]);
    const asked = async () => (await probes()).times[6].length;
    // What is on its way may still come.
    let last = -1;
    await until(async () => last === (last = await asked()), { everyMs: LONGEST_MS + TIMEOUT_MS });
    // Long enough for its process to renew it, and for what is not renewed to end.
    await pause(TTL_MS + 1000);
    expect(await asked()).toBe(last);
    for (const member of fleet.members) {
      const found: any[] = await member.call('getAllServices');
      expect(found.map(({ name }) => name)).toEqual(names.filter((name) => name !== removed));
      expect(found.find(({ name }) => name === changed)).toMatchObject({
        version: '2.0.0',
        metadata: { environment: 'moved', tags: registration(changed).metadata.tags },
      });
    }
    await registrars[0].call('register', registration(removed));
    await registrars[0].call('register', registration(changed));
    await fleet.expectNews([`registered ${removed}`, `${removed} unknown -> healthy`, `updated ${changed}`]);
  });
});

describe('when Redis', () => {
  /** Longer than the pauses between looks, so that each process finds out; shorter than what is listed lives. */
  const OUTAGE_MS = 1200;
  /**
   * Goes through an outage that `away` makes, after which `listed` are listed, and `expectOver` says what is told of it. Then everything
   * goes on as before.
   */
  const goThrough = async (away: () => Promise<unknown>, expectOver: () => Promise<unknown>, listed = names) => {
    const before = fleet.members.map(({ failed }) => failed.length);
    await away();
    await server.start();
    await until(async () => (await fleet.listedAsSeenByANewOne()).length === listed.length);
    await expectOver();
    const errors = fleet.members.map(({ failed }, i) => failed.length - before[i]);
    expect(Math.min(...errors)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...errors)).toBeLessThanOrEqual(3);
    // What is told comes in order: what else came of the outage would be told before this.
    await behave({ 7: '500' });
    await fleet.expectNews([`${names[7]} healthy -> unhealthy`]);
    await behave({ 7: 'ok' });
    await fleet.expectNews([`${names[7]} unhealthy -> healthy`]);
    for (const member of fleet.members) {
      const found: any[] = await member.call('discover', { healthStatus: 'healthy' });
      expect(found.map(({ name }) => name)).toEqual(listed);
    }
  };
  const nothing = () => fleet.expectNews([]);

  test('is restarted with its data, nothing is told but of the outage', () =>
    goThrough(async () => {
      await server.call('SAVE');
      await server.kill();
      await pause(OUTAGE_MS);
    }, nothing));

  test('is restarted with data from before a service was registered, its process registers it again', async () => {
    const late = { ...registration(names[0]), name: 't00' };
    await goThrough(
      async () => {
        await server.call('SAVE');
        await registrars[0].call('register', late);
        await fleet.expectNews(['registered t00', 't00 unknown -> healthy']);
        await server.kill();
        await pause(OUTAGE_MS);
      },
      nothing,
      [...names, 't00'],
    );
    await here.call('unregister', 't00');
    await fleet.expectNews(['unregistered t00']);
  });

  test('is restarted empty, nothing is told but of the outage', () =>
    goThrough(async () => {
      await server.kill();
      rmSync(server.path('dump.rdb'), { force: true });
      await pause(OUTAGE_MS);
    }, nothing));

  test('is away for longer than services live, those that ended are registered again', () =>
    goThrough(
      async () => {
        await server.call('SAVE');
        await server.kill();
        await pause(TTL_MS + OUTAGE_MS);
      },
      async () => {
        const answers = (member: Member) => member.call('getStats').then(Boolean, () => false);
        await until(async () => (await Promise.all(fleet.members.map(answers))).every(Boolean));
        await until(() => new Set(fleet.members.map(({ news }) => news.length)).size === 1);
        // Whether a process renews what it registered before another one ends it is chance; but it is the same for all.
        const ended = names.filter((name) => here.news.includes(`expired ${name}`));
        await fleet.expectNews([...ended.map((name) => `expired ${name}`), ...ended.map((name) => `registered ${name}`)]);
      },
    ));
});

describe('a registrar', () => {
  const slow = () => behave(all(range(0, COUNT), 'slow'));
  const ENDED_MS = TTL_MS + 1500;

  test('that stands still for longer than its services live registers them again', async () => {
    const stopped = registrars[1];
    const others = fleet.members.filter((member) => member !== stopped);
    const expired = ofRegistrar(1).map((name) => `expired ${name}`);
    const again = ofRegistrar(1).map((name) => `registered ${name}`);
    // So that it stops in the midst of probes.
    await slow();
    const began = Date.now();
    stopped.program!.kill('SIGSTOP');
    const ends = await fleet.expectNews(expired, others);
    expect(Math.max(...ends.values()) - began).toBeLessThan(ENDED_MS);
    await expectStatuses(healthy(ofRegistrar(1)), others);
    stopped.program!.kill('SIGCONT');
    await fleet.expectNews(again, others);
    await fleet.expectNews([...expired, ...again], [stopped]);
    await expectStatuses(healthy());
  });

  test('that stood still says nothing of the probes it was at', async () => {
    const strict = new Fleet(server, { healthCheck: { ...settings.healthCheck, failureThreshold: 1 } });
    const watching = await strict.join('watching');
    await strict.joinHere('beside');
    await slow();
    await watching.register([{ ...registration(names[0]), metadata: { healthPath: '/beside' } }]);
    const asked = async () => (await probes()).beside;
    await watching.call('startHealthMonitoring');
    await strict.expectNews([`registered ${names[0]}`, `${names[0]} unknown -> healthy`]);
    const before = await asked();
    await until(async () => (await asked()) > before);
    watching.program!.kill('SIGSTOP');
    await pause(3 * TIMEOUT_MS);
    watching.program!.kill('SIGCONT');
    const then = await asked();
    await until(async () => (await asked()) >= then + 3);
    await strict.expectNews([]);
    await strict.end();
  });

  test('that is killed: its services expire once each, the others are watched on', async () => {
    const killed = registrars[2];
    await slow();
    const began = Date.now();
    killed.program!.kill('SIGKILL');
    fleet.forget(killed);
    const ends = await fleet.expectNews(ofRegistrar(2).map((name) => `expired ${name}`));
    expect(Math.max(...ends.values()) - began).toBeLessThan(ENDED_MS);
    await expectStatuses(healthy(ofRegistrar(2)));

    const left = range(0, COUNT).filter((n) => n % 3 !== 2);
    const silences = async () => {
      const { times } = await probes();
      const seen = left.map((n) => [began, ...times[n].filter((at) => at > began)]);
      return seen.map((at) => at.slice(1).map((time, i) => time - at[i]));
    };
    await until(async () => (await silences()).every((pauses) => pauses.length > 0));
    const longest = (await silences()).map((pauses) => Math.max(...pauses));
    expect(Math.max(...longest)).toBeLessThan(TIMEOUT_MS + LEASE_BESIDE_MS + LONGEST_MS + 1000);
    expect(Math.max(...(await probes()).together)).toBe(1);
    // What is gone is not asked.
    const gone = async () => (await probes()).times.reduce((sum, times, n) => (n % 3 === 2 ? sum + times.length : sum), 0);
    const after = await gone();
    await pause(2 * LONGEST_MS);
    expect(await gone()).toBe(after);
    await fleet.expectNews([]);
  });
});

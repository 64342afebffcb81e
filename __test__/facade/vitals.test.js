'use strict';
const { totalmem } = require('node:os');
const { memoryLimit, ProcessMeter, processMeter, Tally } = require('../../dist/vitals');

/** A clock that is turned by hand. */
function turned() {
  const clock = { ms: 5_000, now: () => clock.ms };
  return clock;
}

describe('the process', () => {
  test('is measured once for all who ask within half a second', () => {
    const clock = turned();
    const meter = new ProcessMeter(clock);
    clock.ms += 1000;
    const first = meter.read();
    clock.ms += 499;
    expect(meter.read()).toBe(first);
    clock.ms += 1;
    expect(meter.read()).not.toBe(first);
    expect(processMeter()).toBe(processMeter());
  });

  test('cpu is that of the time since the measurement before, of one core at most', () => {
    const clock = turned();
    const usage = jest.spyOn(process, 'cpuUsage');
    const used = { user: 0, system: 0 };
    usage.mockImplementation((before) =>
      before === undefined ? { ...used } : { user: used.user - before.user, system: used.system - before.system },
    );
    try {
      const meter = new ProcessMeter(clock);
      const cpuAfter = (ms, user, system) => {
        clock.ms += ms;
        used.user += user * 1000;
        used.system += system * 1000;
        return meter.read().cpu;
      };
      expect([cpuAfter(1000, 200, 50), cpuAfter(2000, 0, 0), cpuAfter(1000, 3000, 0)]).toEqual([25, 0, 100]);
      expect(new ProcessMeter(clock).read().cpu).toBe(0);
    } finally {
      usage.mockRestore();
    }
  });

  test('memory is that of the machine, or of the container where that has less', () => {
    expect([memoryLimit(undefined), memoryLimit(0), memoryLimit(2 ** 63), memoryLimit(1024)]).toEqual([
      totalmem(),
      totalmem(),
      totalmem(),
      1024,
    ]);
    const rss = jest.spyOn(process.memoryUsage, 'rss').mockReturnValue(memoryLimit() / 4);
    expect(new ProcessMeter(turned()).read().memory).toBe(25);
    rss.mockRestore();
  });
});

describe('tasks', () => {
  test('since the report before', () => {
    const tally = new Tally(turned());
    for (const [ms, completed] of [
      [10, true],
      [20, false],
      [30, true],
      [40, true],
    ])
      tally.ended(ms, completed);
    const { figures, taken } = tally.take();
    expect(figures).toEqual({ responseTime: 25, throughput: 3, errorRate: 25 });
    expect(tally.take().figures).toEqual({ responseTime: 0, throughput: 3, errorRate: 0 });
    tally.ended(100, true);
    tally.giveBack(taken);
    expect(tally.take().figures).toEqual({ responseTime: 40, throughput: 4, errorRate: 20 });
  });

  test('of the last minute, however long nobody looks', () => {
    const clock = turned();
    const tally = new Tally(clock);
    tally.ended(1, true);
    clock.ms += 30_000;
    tally.ended(1, true);
    const throughput = () => tally.take().figures.throughput;
    expect(throughput()).toBe(2);
    clock.ms += 29_000;
    expect(throughput()).toBe(2);
    clock.ms += 1_000;
    expect(throughput()).toBe(1);
    clock.ms += 1_000_000_000;
    expect(throughput()).toBe(0);
    tally.ended(1, true);
    expect(throughput()).toBe(1);
  });
});

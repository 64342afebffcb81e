/** A real Prometheus watches a program under load: what it counts is what the program counted, and the alert rules fire and end. */
import { endAll, start } from '../support/children';
import { needing } from '../support/deployment';
import { Prometheus } from '../support/prometheus';
import { until } from '../support/wait';
import { redisUrl, useWorld } from '../support/world';

jest.setTimeout(180_000);
afterEach(endAll);

const world = useWorld('redis');
const TOKEN = 'token-of-the-test';
/** A rate over ten seconds, two seconds of patience, and a machine with other things to do. */
const PATIENCE = { timeoutMs: 60_000, everyMs: 200 };

needing('prometheus')(
  'its counters are right within 1 %, the error rate alert fires and ends, and so does that of a process that ended',
  async () => {
    const program = start('monitored.cjs', { redis: { url: redisUrl(), keyPrefix: world.prefix }, token: TOKEN }, { asked: true });
    const { url } = (await until(() => program.lines.find((line) => line.url !== undefined), { show: program.stderr }))!;
    const prometheus = await Prometheus.start(url, TOKEN);
    const show = { ...PATIENCE, show: () => program.stderr() };
    const errors = '100 * sum(rate(ossa_eventbus_events_failed_total[10s])) / sum(rate(ossa_eventbus_events_published_total[10s]))';
    try {
      await until(async () => (await prometheus.query('up{job="ossa-event-bus"}')) === 1, show);

      await program.ask({ load: { failEvery: 0 } });
      await until(async () => ((await prometheus.query('sum(rate(ossa_eventbus_events_consumed_total[10s]))')) ?? 0) > 20, show);
      expect(await prometheus.alerts()).toEqual([]);

      await program.ask({ load: { failEvery: 4 } });
      await until(() => prometheus.fires('OSSAHighErrorRate'), show);
      const alert = (await prometheus.alerts()).find(({ labels }) => labels['alertname'] === 'OSSAHighErrorRate');
      expect(alert).toMatchObject({ labels: { severity: 'critical', job: 'ossa-event-bus' } });
      await until(async () => ((await prometheus.query(errors)) ?? 0) > 20, show);
      await until(() => prometheus.fires('OSSADeadLettersGrowing'), show);

      await program.ask({ load: { failEvery: 0 } });
      await until(async () => !(await prometheus.fires('OSSAHighErrorRate')), show);

      // What the program counted when it came to rest, and what Prometheus has of it once it looked again.
      const counted: { published: number; handled: number; failed: number } = await program.ask({ rest: true });
      expect(counted.published).toBeGreaterThan(1000);
      expect(counted.failed).toBeGreaterThan(50);
      const figures = [
        ['published', 'sum(ossa_eventbus_events_published_total{event_type="load.event"})', counted.published],
        ['consumed', 'sum(ossa_eventbus_events_consumed_total{event_type="load.event"})', counted.handled],
        ['failed', 'sum(ossa_eventbus_events_failed_total{event_type="load.event"})', counted.failed],
        ['dead-lettered', 'sum(ossa_eventbus_events_dead_lettered_total)', counted.failed],
        ['publish times', 'sum(ossa_eventbus_publish_seconds_count{event_type="load.event"})', counted.published],
        ['end-to-end times', 'sum(ossa_eventbus_end_to_end_seconds_count{event_type="load.event"})', counted.published],
        ['times of handlers', 'sum(ossa_eventbus_processing_seconds_count{event_type="load.event"})', counted.published],
        ['dead letters kept', 'max(ossa_eventbus_dead_letters)', counted.failed],
      ] as const;
      for (const [what, query, own] of figures) {
        let seen: number | undefined;
        const isNear = async () => {
          seen = await prometheus.query(query);
          return seen !== undefined && Math.abs(seen - own) <= own / 100;
        };
        await until(isNear, { ...PATIENCE, timeoutMs: 15_000, show: () => ({ what, own, seen }) });
      }
      expect(await prometheus.query('ossa_eventbus_queue_depth')).toBe(0);

      program.kill('SIGTERM');
      await program.ended;
      await until(() => prometheus.fires('OSSAInstanceDown'), show);
    } finally {
      await prometheus.stop();
    }
  },
);

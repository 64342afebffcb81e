/**
 * One end of a trace. The argument is JSON: { redis, endpoint, role } with role
 * - 'publish': publishes one event of type `t` under a trace that begins there, prints its id and shuts down
 * - 'consume': handles events of type `t`, fails the first delivery, and shuts down on SIGTERM
 */
const { createOSSAEventBus } = require('@bluefly/ossa');

const { redis, endpoint, role } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

(async () => {
  const bus = await createOSSAEventBus(null, {
    eventBus: { redis, defaults: { retry: { initialDelay: 10, maxDelay: 10 } } },
    orchestration: { enabled: false },
    monitoring: { tracing: { samplingRate: 1, serviceName: role, otlpEndpoint: endpoint } },
  });
  if (role === 'publish') {
    print({ id: await bus.publish('t', { n: 1 }) });
    return bus.shutdown();
  }
  await bus.subscribe(
    't',
    ({ metadata }) => {
      print({ attempt: metadata.attempt, headers: metadata.headers });
      if (metadata.attempt === 1) throw new Error('not yet');
    },
    { group: 'g' },
  );
  process.on('SIGTERM', () => void bus.shutdown());
  print({ ready: true });
})();

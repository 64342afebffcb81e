/**
 * A process with a registry of services. The argument is JSON: { config }. It prints a line for each event: { told, at }, and
 * { failed } for each 'registry:error'. Messages:
 * - { id, call: <method>, args }: answers what the method resolves with
 * - { id, register: [<service>, …], width }: registers all, so many at a time
 */
const { ServiceRegistry } = require('@bluefly/ossa/services/ServiceRegistry');
const { listen } = require('./telling.cjs');

const { config } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const registry = new ServiceRegistry(config);
listen(registry, print);

async function registerAll(services, width) {
  let next = 0;
  const one = async () => {
    while (next < services.length) await registry.register(services[next++]);
  };
  await Promise.all(Array.from({ length: width }, one));
}

process.on('message', async ({ id, call, args = [], register, width }) => {
  try {
    const value = register ? await registerAll(register, width) : await registry[call](...args);
    print({ answer: id, value: value ?? null });
  } catch (error) {
    print({ answer: id, error: `${error.code} ${error.message}` });
  }
});

// It listens once it is connected.
registry.getStats().then(() => print({ ready: true }));

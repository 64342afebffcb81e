/**
 * Who sends what to whom in the test of many projects: the same in every process and in the test, which counts by it what
 * has to arrive.
 */
const PROJECTS = 40;
const PROCESSES = 8;
const MESSAGES = 100;
const CONTRACTS = 100;
/** Projects that have two versions of one contract. */
const VERSIONED = ['p03', 'p30'];
const TYPES = ['work.asked', 'work.done', 'work.refused'];

const ids = Array.from({ length: PROJECTS }, (_, n) => `p${String(n).padStart(2, '0')}`);
const projectsOf = (process) => ids.filter((_, n) => n % PROCESSES === process);

const credentialsOf = (id) => ({ apiKey: `classified-api-key-of-${id}`, secret: `classified-secret-of-${id}` });

const configOf = (id) => ({
  projectId: id,
  name: `the project ${id}`,
  namespace: `namespace.${id}`,
  allowedEventTypes: ['work.*'],
  allowedTargets: ['*'],
  credentials: credentialsOf(id),
  rateLimiting: { eventsPerSecond: 10_000, burstLimit: 10_000 },
});

/** Version 1 asks for a `note`, version 2 for `notes`. */
function contract(id, type, version) {
  const noted = version === '1.0.0' ? { note: { type: 'string' } } : { notes: { type: 'array', items: { type: 'string' } } };
  return {
    name: `${type}-of-${id}`,
    version,
    sourceProject: id,
    targetProjects: ['*'],
    eventTypes: [type],
    schema: {
      type: 'object',
      required: ['from', 'n', ...Object.keys(noted)],
      additionalProperties: false,
      properties: { from: { const: id }, n: { type: 'integer', minimum: 0 }, ...noted },
    },
    metadata: { description: `${type} as ${id} sends it`, author: id },
  };
}

/** Two contracts a project, a third one for enough of them that there are {@link CONTRACTS} in all. */
function contractsOf(id) {
  const n = ids.indexOf(id);
  const contracts = [contract(id, TYPES[0], '1.0.0'), contract(id, TYPES[1], '1.0.0')];
  if (VERSIONED.includes(id)) contracts.push(contract(id, TYPES[0], '2.0.0'));
  else if (n < 19) contracts.push(contract(id, TYPES[2], '1.0.0'));
  return contracts;
}

/** What one project sends: most to one other, some to three, a few to all. */
function messagesOf(id) {
  const own = ids.indexOf(id);
  const other = (by) => ids[(own + 1 + (by % (PROJECTS - 1))) % PROJECTS];
  return Array.from({ length: MESSAGES }, (_, n) => {
    const target = n % 50 === 0 ? '*' : n % 10 === 0 ? [other(n), other(n + 7), other(n + 23)] : other(n * 5);
    const type = TYPES[n % 3];
    const version = VERSIONED.includes(id) && type === TYPES[0] && n % 2 === 1 ? '2.0.0' : '1.0.0';
    const noted = version === '1.0.0' ? { note: `note ${n}` } : { notes: [`note ${n}`] };
    const covered = contractsOf(id).some((known) => known.eventTypes[0] === type);
    return { target, type, data: { from: id, n, ...noted }, contracts: covered ? [`${type}-of-${id}@${version}`] : undefined };
  });
}

const targetsOf = (id, { target }) => (target === '*' ? ids.filter((other) => other !== id) : [target].flat());

module.exports = { CONTRACTS, PROCESSES, PROJECTS, ids, projectsOf, configOf, contractsOf, messagesOf, targetsOf };

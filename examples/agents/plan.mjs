// What is to be done, by whom, and how it is shown in the end. Nothing here knows of a bus.

/** Capabilities of the agents of a type. */
export const SKILLS = { fetcher: ['fetch'], painter: ['resize', 'bind'] };

/** Worker processes: the agents of the second are three times as slow. */
export const WORKERS = [
  { name: 'fast', msPerEffort: 20, types: ['fetcher', 'painter', 'painter'] },
  { name: 'slow', msPerEffort: 60, types: ['fetcher', 'painter'] },
];

/** Tasks of an album: each photo is fetched, then made small; when all are, they are bound. */
export function tasksOf(album, photos) {
  const task = (name, skill, effort, dependencies, data) => ({
    id: `${album}-${name}`,
    type: skill,
    priority: 5,
    requiredCapabilities: [skill],
    dependencies: dependencies.map((other) => `${album}-${other}`),
    data: { ...data, effort },
    timeoutMs: 10_000,
  });
  const numbers = Array.from({ length: photos }, (_, i) => i + 1);
  return [
    task(
      'bind',
      'bind',
      2,
      numbers.map((photo) => `resize-${photo}`),
      { photos },
    ),
    ...numbers.map((photo) => task(`resize-${photo}`, 'resize', 3, [`fetch-${photo}`], { photo })),
    ...numbers.map((photo) => task(`fetch-${photo}`, 'fetch', 1, [], { photo })),
  ];
}

/** Who did what, the first to begin first: lines of text. */
export function tableOf(views) {
  const ended = [...views].sort((a, b) => timeOf(a.startedAt) - timeOf(b.startedAt));
  const start = Math.min(...ended.map(({ submittedAt }) => submittedAt.getTime()));
  const at = (time) => (time === undefined ? '' : `${time.getTime() - start}`);
  const rows = ended.map(({ id, status, agentId, attempts, startedAt, endedAt }) => [
    id,
    status,
    agentId ?? '',
    `${attempts}`,
    at(startedAt),
    at(endedAt),
  ]);
  const all = [['task', 'status', 'agent', 'attempts', 'began, ms', 'ended, ms'], ...rows];
  const widths = all[0].map((_, column) => Math.max(...all.map((row) => row[column].length)));
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
}

function timeOf(date) {
  return date === undefined ? Infinity : date.getTime();
}

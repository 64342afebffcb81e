/** What is looked at every few seconds. */
import histogram from './histogram.cjs';

const added = 'issued published expected calls handled again refused wrong failed errors deadLettered expired lost disconnected'.split(' ');
const sized = ['rss', 'heapTotal', 'heapUsed', 'external', 'arrayBuffers', 'files'];

/** `previous` is the sample before, for the rates between the two; `at` is in seconds. */
export async function takeSample(all, redis, previous, at) {
  const workers = await all('sample');
  const sum = (name) => workers.reduce((total, worker) => total + worker[name], 0);
  const totals = Object.fromEntries([...added, ...sized].map((name) => [name, sum(name)]));
  if (workers.some(({ files }) => files === null)) totals.files = Number.NaN;
  const seconds = at - (previous?.at ?? 0);
  const latencies = histogram.sum(workers.map(({ latencies: counts }) => counts));
  return {
    ...{ at, ...totals, ...(await redis.sample()) },
    rssOf: workers.map(({ rss }) => rss),
    heapOf: workers.map(({ heapUsed }) => heapUsed),
    filesOf: workers.map(({ files }) => files),
    /** What is neither JavaScript's nor a buffer of it: the engine, its allocator, threads, the program itself. */
    native: totals.rss - totals.heapTotal - totals.external,
    undelivered: totals.expected - totals.handled,
    publishedRate: (totals.published - (previous?.published ?? 0)) / seconds,
    handledRate: (totals.handled - (previous?.handled ?? 0)) / seconds,
    p50: histogram.quantile(latencies, 0.5),
    p99: histogram.quantile(latencies, 0.99),
  };
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

/** A sample in a line. */
export const line = (sample) =>
  [
    `${sample.at.toFixed(0)} s`,
    `published ${sample.published} (${sample.publishedRate.toFixed(0)}/s)`,
    `handled ${sample.handled} (${sample.handledRate.toFixed(0)}/s)`,
    `pending ${sample.pending}, lag ${sample.lag}`,
    `p50 ${sample.p50.toFixed(1)} ms, p99 ${sample.p99.toFixed(0)} ms`,
    `RSS ${mebibytes(sample.rss)} MiB, heap ${mebibytes(sample.heapUsed)} MiB`,
    `files ${sample.files}`,
    `Redis ${mebibytes(sample.usedMemory)} MiB, ${sample.connectedClients} clients`,
  ].join(' · ');

/** How long a phase took, and what the servers did in it. */
export const phaseLine = ({ name, seconds, commands, sent, cpu, own }) =>
  `${name}: ${seconds.toFixed(1)} s, ${commands} commands to Redis, which sent ${mebibytes(sent)} MiB; CPU: Redis ${cpu.toFixed(1)} s, processes ${own.toFixed(1)} s`;

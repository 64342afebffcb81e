/** Runs named steps one after the other, all of them whatever comes out, and says at the end how each went. */

/** A step resolves with this when it could not be done here; it does not fail the run. */
export const skipped = (reason) => ({ skipped: reason });

/**
 * `run` of a step resolves with its exit code, with nothing when all went well, or with {@link skipped}; rejecting is
 * failing. Resolves with whether no step failed.
 */
export async function runSteps(steps) {
  const results = [];
  for (const { name, run } of steps) {
    console.log(`\n── ${name}`);
    const start = Date.now();
    const outcome = await Promise.resolve()
      .then(run)
      .catch((error) => {
        console.error(error.message);
        return 1;
      });
    const seconds = ((Date.now() - start) / 1000).toFixed(1);
    results.push({ name, outcome: outcome ?? 0, seconds });
  }
  console.log('\n── Summary');
  for (const { name, outcome, seconds } of results) console.log(`${verdict(outcome)}  ${name} (${seconds} s)`);
  if (results.length === 0) console.log('nothing to run');
  return results.every(({ outcome }) => outcome === 0 || outcome.skipped);
}

function verdict(outcome) {
  if (outcome === 0) return 'ok    ';
  return outcome.skipped ? `skip   [${outcome.skipped}]` : 'FAILED';
}

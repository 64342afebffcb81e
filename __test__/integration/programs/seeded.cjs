/** Which deliveries fail: about a tenth at their first attempt, and every hundredth event always. */
const spread = (n) => ((n * 2_654_435_761) >>> 0) % 1000;

const failsAlways = (n) => spread(n) < 10;
const fails = (n, attempt) => failsAlways(n) || (attempt === 1 && spread(n) < 100);

module.exports = { fails, failsAlways };

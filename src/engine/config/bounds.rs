//! What numbers may be: every range of the configuration, in one table.

use std::fmt;

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
    /// Without a fraction.
    pub whole: bool,
    /// What is counted, with a blank before it, and what special values mean.
    pub unit: &'static str,
}

impl Range {
    const fn whole(min: u64, max: u64, unit: &'static str) -> Self {
        #[allow(clippy::cast_precision_loss)] // all bounds are far below 2^53
        Self { min: min as f64, max: max as f64, whole: true, unit }
    }

    const fn real(min: f64, max: f64, unit: &'static str) -> Self {
        Self { min, max, whole: false, unit }
    }

    /// Whether `number` is within. NaN is not.
    pub fn holds(&self, number: f64) -> bool {
        (self.min..=self.max).contains(&number) && (!self.whole || number.fract() == 0.0)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.whole { "a whole number" } else { "a number" };
        write!(f, "{kind} from {} to {}{}", self.min, self.max, self.unit)
    }
}

const DAY_MS: u64 = 86_400_000;
const HUNDRED_YEARS_S: f64 = 3_153_600_000.0;

/// `port`.
pub const PORT: Range = Range::whole(1, 65_535, "");
/// `redis.db`: Redis counts databases in 31 bits.
pub const DB: Range = Range::whole(0, 2_147_483_647, "");
/// `connectTimeoutMs`, `commandTimeoutMs`, `durability.waitTimeoutMs`, `http.timeoutMs`.
pub const TIMEOUT: Range = Range::whole(1, 3_600_000, " ms");
/// `performance.batchSize`.
pub const BATCH_SIZE: Range = Range::whole(1, 10_000, " events");
/// `performance.batchTimeout`.
pub const BATCH_TIMEOUT: Range = Range::whole(1, 60_000, " ms");
/// `performance.connectionPoolSize`.
pub const POOL_SIZE: Range = Range::whole(1, 1_000, " connections");
/// `performance.pipelineSize`.
pub const PIPELINE_SIZE: Range = Range::whole(1, 10_000, " commands");
/// How often something is measured, checked or refreshed.
pub const INTERVAL: Range = Range::whole(10, DAY_MS, " ms");
/// How long a health check may take.
pub const CHECK_TIMEOUT: Range = Range::whole(1, DAY_MS, " ms");
/// Share of all traces.
pub const SAMPLING_RATE: Range = Range::real(0.0, 1.0, "");
/// `defaults.ttl`.
pub const TTL: Range = Range::real(0.0, HUNDRED_YEARS_S, " seconds (0: never expires)");
/// `deadLetterQueue.retention`.
pub const RETENTION: Range = Range::real(0.001, HUNDRED_YEARS_S, " seconds");
/// `retry.maxAttempts`.
pub const RETRY_ATTEMPTS: Range = Range::whole(0, 1_000_000, " (0: never retried)");
/// `retry.initialDelay`, `retry.maxDelay`.
pub const RETRY_DELAY: Range = Range::real(0.0, HUNDRED_YEARS_S * 1000.0, " ms");
/// `retry.backoffMultiplier`: below 1 each retry would come sooner than the one before, the opposite of backing off.
pub const RETRY_MULTIPLIER: Range = Range::real(1.0, 1_000.0, " (1: the delay stays the same)");
/// `limits.maxPayloadBytes`: Redis takes no longer strings than 512 MiB.
pub const PAYLOAD_BYTES: Range = Range::whole(1, 512 << 20, " bytes");
/// `limits.maxPendingPublishes`.
pub const PENDING_PUBLISHES: Range = Range::whole(1, 10_000_000, " events");
/// `limits.keepAcknowledged`.
pub const KEEP_ACKNOWLEDGED: Range = Range::whole(0, 1_000_000_000_000, " events (0: none)");
/// `limits.maxStreamLength`.
pub const STREAM_LENGTH: Range = Range::whole(1, 1_000_000_000_000, " events");
/// `limits.stallTimeoutMs`: below a second, a garbage collection would count as a stall.
pub const STALL_TIMEOUT: Range = Range::whole(1_000, DAY_MS, " ms");
/// `durability.waitReplicas`.
pub const REPLICAS: Range = Range::whole(0, 1_000, " replicas");
/// `crossProject.audit.maxRecords`.
pub const AUDIT_RECORDS: Range = Range::whole(16, 1_000_000_000, " records");

/// `maxAgentsPerPool`.
pub const AGENTS_MAX: Range = Range::whole(1, 100_000, " agents");
/// `minAgentsPerPool`.
pub const AGENTS_MIN: Range = Range::whole(0, 100_000, " agents");
/// Shares: utilisation at which a pool is scaled.
pub const SHARE: Range = Range::real(0.0, 1.0, "");
/// Share of failures that opens a circuit; 0 would open it without any.
pub const FAILURE_SHARE: Range = Range::real(0.001, 1.0, "");
/// `minimumCalls`.
pub const CALLS: Range = Range::whole(1, 1_000, " tasks");
/// Pauses that may also be none.
pub const PAUSE: Range = Range::whole(0, DAY_MS, " ms");
/// `metrics.retentionPeriod`.
pub const METRICS_RETENTION: Range = Range::whole(1_000, 366 * DAY_MS, " ms");
/// One of `metrics.aggregationWindows`.
pub const WINDOW: Range = Range::whole(1, 31_622_400, " seconds");
/// Percentages.
pub const PERCENT: Range = Range::real(0.0, 100.0, " percent");
/// Latency thresholds.
pub const LATENCY: Range = Range::real(0.0, 86_400_000.0, " ms");
/// Queue depth threshold.
pub const QUEUE_DEPTH: Range = Range::whole(0, 1_000_000_000_000, " events");
/// Throughput threshold.
pub const THROUGHPUT: Range = Range::real(0.0, 1e9, " events a second (0: off)");
/// Health checks in a row that change a service's state.
pub const CHECKS: Range = Range::whole(1, 1_000, " checks");
/// `http.maxResponseBytes`.
pub const RESPONSE_BYTES: Range = Range::whole(1 << 10, 64 << 20, " bytes");
/// `serviceTtlSeconds`.
pub const SERVICE_TTL: Range = Range::whole(1, 31_622_400, " seconds");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_included_and_fractions_only_where_allowed() {
        assert!(PORT.holds(1.0) && PORT.holds(65_535.0));
        for number in [0.0, 65_536.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(!PORT.holds(number), "{number}");
        }
        assert!(TTL.holds(0.5) && !TTL.holds(-0.5));
        assert_eq!(PAYLOAD_BYTES.to_string(), "a whole number from 1 to 536870912 bytes");
    }
}

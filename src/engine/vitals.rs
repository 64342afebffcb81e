//! How the process is, measured by whoever runs it.

use std::sync::Mutex;

use super::env::lock;

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Of one core since the measurement before, percent: several busy cores are more than 100.
    pub cpu_percent: f64,
    /// Resident memory, bytes.
    pub memory_bytes: f64,
    /// What the process may have of it, bytes: the machine's, or that of its container.
    pub memory_limit_bytes: f64,
    /// By how much the thread of the handlers was late since the measurement before, the 99th percentile, s.
    pub event_loop_lag_s: f64,
}

impl Vitals {
    /// Memory in use, percent of what there may be.
    pub fn memory_percent(&self) -> f64 {
        if self.memory_limit_bytes > 0.0 { (self.memory_bytes * 100.0 / self.memory_limit_bytes).clamp(0.0, 100.0) } else { 0.0 }
    }
}

/// The last measurement.
#[derive(Default)]
pub struct LastVitals(Mutex<Option<Vitals>>);

impl LastVitals {
    /// A newer one.
    pub fn set(&self, vitals: Vitals) {
        *lock(&self.0) = Some(vitals);
    }

    /// `None`: nobody measures.
    pub fn get(&self) -> Option<Vitals> {
        *lock(&self.0)
    }
}

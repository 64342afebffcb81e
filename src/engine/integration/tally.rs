//! How many services there are, as Prometheus reads it.

use std::collections::BTreeMap;

use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

use crate::engine::error::{Error, Result};
use crate::engine::services::health::Status;

/// `ossa_service_registry_services_total`, in the text format 0.0.4. A gauge under the name of a counter: the name is given.
pub(super) fn export(counts: &BTreeMap<Status, u64>) -> Result<String> {
    let defect = |error: prometheus::Error| Error::internal(format!("metrics: {error}"));
    let options = Opts::new("ossa_service_registry_services_total", "Services in the registry now, by their health.");
    let services = IntGaugeVec::new(options, &["status"]).map_err(defect)?;
    for (status, count) in counts {
        services.with_label_values(&[status.as_str()]).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    let registry = Registry::new();
    registry.register(Box::new(services)).map_err(defect)?;
    TextEncoder::new().encode_to_string(&registry.gather()).map_err(defect)
}

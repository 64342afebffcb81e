//! Work that takes time: keys, which are made to, schemas, hashes and signatures.

use crate::engine::error::{Error, Result};

/// Does it on a thread where nobody waits for it. A panic there is `ERR_INTERNAL`.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("a defect of this library: {error}. Please report it")))?
}

//! Looking names up.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Look-ups at once. The system's last as long as they like, and cannot be given up: without a bound, names that hang would take all
/// threads there are for work that waits.
const AT_ONCE_MAX: usize = 32;

/// Knows the addresses of names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// All addresses of `name`.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// What the system knows: `/etc/hosts`, DNS.
pub struct SystemNames {
    places: Arc<Semaphore>,
}

impl Default for SystemNames {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

#[async_trait]
impl Resolve for SystemNames {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let look = move || {
            let addresses = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
            // Given back when the look-up is over, not when nobody waits for it any more.
            drop(place);
            addresses
        };
        tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?
    }
}

//! Asking for a look at what changed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::view::View;
use crate::engine::error::{Error, Result};

type Request = Option<oneshot::Sender<Result<Arc<View>>>>;

/// Asks for a look.
#[derive(Clone)]
pub(super) struct Asking(mpsc::UnboundedSender<Request>);

/// Where they arrive.
pub(super) type Asked = mpsc::UnboundedReceiver<Request>;

impl Asking {
    /// Unbounded: one for each call that waits for an answer.
    pub(super) fn channel() -> (Self, Asked) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Looks for news without waiting for them.
    pub(super) fn look(&self) {
        let _ = self.0.send(None);
    }

    /// Reads what changed before this call, or later.
    pub(super) async fn refresh(&self) -> Result<Arc<View>> {
        let (answer, view) = oneshot::channel();
        let _ = self.0.send(Some(answer));
        view.await.unwrap_or_else(|_| Err(Error::closed("the service registry")))
    }
}

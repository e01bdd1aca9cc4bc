//! Whoever wants to know who comes and goes.

use std::sync::{Arc, OnceLock};

use crate::broker::{Client, CloseReason};
use crate::tls::ocsp::PeerRefusal;

/// Is told of clients, on the tasks of their connections: it must not block.
pub trait ConnectionObserver: Send + Sync {
    /// A client has introduced itself and is in its account.
    fn connected(&self, client: &Client);
    /// A client that had introduced itself has gone.
    fn disconnected(&self, client: &Client, reason: CloseReason);
    /// A client could not say who it is.
    fn refused(&self, client: &Client, reason: CloseReason);
    /// Somebody who connects has shown a certificate that may have been revoked.
    fn certificate_refused(&self, refusal: &PeerRefusal);
}

/// The one who is told, when there is one.
#[derive(Default)]
pub(super) struct Observer(OnceLock<Arc<dyn ConnectionObserver>>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observer")
            .field(&self.0.get().is_some())
            .finish()
    }
}

impl Observer {
    /// From now on this one is told. The first stays.
    pub(super) fn set(&self, observer: Arc<dyn ConnectionObserver>) {
        let _ = self.0.set(observer);
    }

    pub(super) fn get(&self) -> Option<&Arc<dyn ConnectionObserver>> {
        self.0.get()
    }
}

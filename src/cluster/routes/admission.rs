//! What another server has shown when it came, to be looked at again when it changes who may come.

use std::collections::BTreeSet;

use super::options::RouteOptions;
use crate::tls::{KeyHash, PeerIdentity};

/// What the other side of a connection has shown.
pub(super) struct Shown {
    /// The hash of the key in its certificate.
    pub key: Option<KeyHash>,
    /// Who it said that it is, when it dialled. Whom we dial shows no credentials.
    pub came: Option<CameIn>,
}

/// Who a server that came in says that it is.
pub(super) struct CameIn {
    pub user: String,
    pub password: String,
    pub peer: Option<PeerIdentity>,
}

impl RouteOptions {
    /// Whether a server may come in. Costly when the password is a hash.
    pub(super) fn lets_in_server(&self, came: &CameIn) -> bool {
        match self.admits_certificate(came.peer.as_ref()) {
            Some(admitted) => admitted,
            None => self.admits(&came.user, &came.password),
        }
    }

    /// Whether its key is one of those that servers must have, where there are such.
    pub(super) fn takes_key(&self, key: Option<&KeyHash>) -> bool {
        self.pinned_keys()
            .is_none_or(|pins| pins.is_empty() || key.is_some_and(|key| pins.contains(key)))
    }

    /// The keys of which other servers must have one, where there is encryption.
    pub(super) fn pinned_keys(&self) -> Option<&BTreeSet<KeyHash>> {
        let tls = self.cluster.tls.as_ref();
        tls.map(|tls| &tls.pinned_keys)
    }
}

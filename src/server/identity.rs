//! The server's identity: keys of its own, new at each start.

use nkeys::{KeyPair, XKey};

/// A key pair whose public half is the server's id, and one that messages to it are sealed with.
pub struct Identity {
    key: KeyPair,
    id: String,
    curve_key: XKey,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// A new identity.
    pub fn generate() -> Self {
        let key = KeyPair::new_server();
        let id = key.public_key();
        Identity {
            key,
            id,
            curve_key: XKey::new(),
        }
    }

    /// `X…`, 56 characters: who wants to say something to this server alone seals it with this.
    pub fn curve_public_key(&self) -> String {
        self.curve_key.public_key()
    }

    /// `N…`, 56 characters.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs as this server.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
        self.key.sign(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_a_new_server_key() {
        let (one, two) = (Identity::generate(), Identity::generate());
        assert_ne!(one.id(), two.id());
        assert!(one.id().starts_with('N') && one.id().len() == 56);
        let curve = one.curve_public_key();
        assert!(curve.starts_with('X') && curve.len() == 56 && curve != two.curve_public_key());
        let signature = one.sign(b"text").unwrap();
        let public = KeyPair::from_public_key(one.id()).unwrap();
        public.verify(b"text", &signature).unwrap();
    }
}

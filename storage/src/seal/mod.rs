//! Encryption of what is written: ciphers, data keys, and the ring of master keys that wraps them.
//!
//! - `sealer`: sealing and opening one buffer in place under a data key.
//! - `wrapped`: a data key as it stands in a file, wrapped under a master key.
//! - `ring`: the master keys, derived from the operator's passphrase and the salt in the key file.
//! - `file`: the key file, byte by byte.
//!
//! # Invariant
//! A data key never sees the same nonce with two texts: whoever may write a place twice takes a new key.

mod file;
mod ring;
mod sealer;
#[cfg(test)]
mod tests;
mod wrapped;

pub use file::{KEY_FILE_NAME, KeyFileError};
pub use ring::{KeyRing, KeyRingError};
pub use sealer::{
    Cipher, DataKey, KEY_BYTES, NONCE_BYTES, Nonce, SealError, Sealer, TAG_BYTES, Tag, sealer,
};
pub use wrapped::{KeyId, UnwrapError, WRAPPED_KEY_BYTES, WrappedKey};

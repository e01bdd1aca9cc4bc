//! A data key as it stands in a file: encrypted under a master key, which it names.
//!
//! ```text
//!  0  8  id of the master key
//!  8  1  cipher that wraps
//!  9  1  cipher the data key is for
//! 10  2  zero
//! 12 12  nonce
//! 24 32  the data key, sealed; bytes 0 to 11 and the caller's context are authenticated with it
//! 56 16  tag
//! ```

use super::sealer::{Cipher, KEY_BYTES, NONCE_BYTES, TAG_BYTES};

const ID_AT: usize = 0;
const WRAP_CIPHER_AT: usize = ID_AT + 8;
const DATA_CIPHER_AT: usize = WRAP_CIPHER_AT + 1;
const ZERO_AT: usize = DATA_CIPHER_AT + 1;
const NONCE_AT: usize = ZERO_AT + 2;
const SEALED_AT: usize = NONCE_AT + NONCE_BYTES;
const TAG_AT: usize = SEALED_AT + KEY_BYTES;
/// Bytes of a wrapped key.
pub const WRAPPED_KEY_BYTES: usize = TAG_AT + TAG_BYTES;
const _: () = assert!(WRAPPED_KEY_BYTES == 72);

/// Names a master key without telling anything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// A data key that only the holder of the right master key can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrappedKey {
    /// The master key it is wrapped under.
    pub master: KeyId,
    /// The cipher that wraps it.
    pub wrap_cipher: Cipher,
    /// The cipher the data key is for.
    pub data_cipher: Cipher,
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) sealed: [u8; KEY_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
}

impl WrappedKey {
    /// As it stands in a file.
    pub fn encode(&self) -> [u8; WRAPPED_KEY_BYTES] {
        let mut bytes = [0; WRAPPED_KEY_BYTES];
        let parts: [&[u8]; 6] = [
            &self.master.0,
            &[self.wrap_cipher.to_byte(), self.data_cipher.to_byte()],
            &[0, 0],
            &self.nonce,
            &self.sealed,
            &self.tag,
        ];
        let source = parts.into_iter().flatten();
        for (to, from) in bytes.iter_mut().zip(source) {
            *to = *from;
        }
        bytes
    }

    /// Reads the first [`WRAPPED_KEY_BYTES`] of `bytes`; `None` when they are no wrapped key.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
            bytes.get(at..at.checked_add(N)?)?.try_into().ok()
        }
        if part::<2>(bytes, ZERO_AT)? != [0, 0] {
            return None;
        }
        let [wrap_cipher, data_cipher] = part::<2>(bytes, WRAP_CIPHER_AT)?;
        Some(Self {
            master: KeyId(part(bytes, ID_AT)?),
            wrap_cipher: Cipher::from_byte(wrap_cipher)?,
            data_cipher: Cipher::from_byte(data_cipher)?,
            nonce: part(bytes, NONCE_AT)?,
            sealed: part(bytes, SEALED_AT)?,
            tag: part(bytes, TAG_AT)?,
        })
    }

    /// What is authenticated with the sealed key: the fields before the nonce, then the caller's context.
    pub(super) fn associated(
        master: KeyId,
        wrap_cipher: Cipher,
        data_cipher: Cipher,
        context: &[u8],
    ) -> Vec<u8> {
        let mut associated = Vec::with_capacity(NONCE_AT + context.len());
        associated.extend_from_slice(&master.0);
        associated.extend_from_slice(&[wrap_cipher.to_byte(), data_cipher.to_byte(), 0, 0]);
        associated.extend_from_slice(context);
        associated
    }
}

/// Why a wrapped key could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// No passphrase was given from which that master key follows.
    #[error("wrapped under master key {0}, whose passphrase was not given")]
    UnknownMaster(KeyId),
    /// The wrapped key was changed, or belongs to another place.
    #[error("the wrapped key is damaged or belongs elsewhere")]
    NotAuthentic,
}

//! Sealing and opening one buffer in place under a data key.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// Bytes of a key, whatever the cipher.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;

/// A nonce. Unique per data key.
pub type Nonce = [u8; NONCE_BYTES];
/// An authentication tag.
pub type Tag = [u8; TAG_BYTES];

/// An authenticated cipher. The discriminant is its number on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// AES-256 in Galois counter mode.
    Aes256Gcm = 1,
    /// ChaCha20 with Poly1305.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// Its number on disk.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// The cipher with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

/// A key for data. Wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl DataKey {
    /// A fresh random key.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(bytes.as_mut());
        Self(bytes)
    }

    pub(super) fn from_bytes(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DataKey(..)")
    }
}

/// Why a buffer could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes are not what was sealed under this key, nonce and associated data.
    #[error("authentication failed: wrong key or changed bytes")]
    NotAuthentic,
    /// More bytes than the cipher takes under one nonce.
    #[error("{length} bytes are too many for one seal")]
    TooLong {
        /// How many bytes were given.
        length: usize,
    },
}

/// Seals and opens buffers under one data key.
pub trait Sealer: Send + Sync {
    /// Which cipher it is.
    fn cipher(&self) -> Cipher;
    /// Encrypts `buffer` in place and returns the tag that authenticates it together with `associated`.
    fn seal(&self, nonce: &Nonce, associated: &[u8], buffer: &mut [u8]) -> Result<Tag, SealError>;
    /// Checks the tag and decrypts `buffer` in place. After an error the buffer's content is worthless.
    fn open(
        &self,
        nonce: &Nonce,
        associated: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), SealError>;
}

/// The sealer of `cipher` under `key`.
pub fn sealer(cipher: Cipher, key: &DataKey) -> Box<dyn Sealer> {
    match cipher {
        Cipher::Aes256Gcm => Box::new(Aead {
            cipher,
            inner: Aes256Gcm::new(key.as_bytes().into()),
        }),
        Cipher::ChaCha20Poly1305 => Box::new(Aead {
            cipher,
            inner: ChaCha20Poly1305::new(key.as_bytes().into()),
        }),
    }
}

struct Aead<A> {
    cipher: Cipher,
    inner: A,
}

impl<A> Sealer for Aead<A>
where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>
        + Send
        + Sync,
{
    fn cipher(&self) -> Cipher {
        self.cipher
    }

    fn seal(&self, nonce: &Nonce, associated: &[u8], buffer: &mut [u8]) -> Result<Tag, SealError> {
        let length = buffer.len();
        self.inner
            .encrypt_inout_detached(nonce.into(), associated, InOutBuf::from(buffer))
            .map(Into::into)
            .map_err(|_| SealError::TooLong { length })
    }

    fn open(
        &self,
        nonce: &Nonce,
        associated: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), SealError> {
        self.inner
            .decrypt_inout_detached(nonce.into(), associated, InOutBuf::from(buffer), tag.into())
            .map_err(|_| SealError::NotAuthentic)
    }
}

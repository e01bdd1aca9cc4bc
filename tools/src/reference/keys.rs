//! How the reference encrypts: a seed per file, sealed under a key that is made of the master key and the file's place.

use aes::Aes256;
use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{AesGcm, Key};
use anyhow::{Context, Result, bail, ensure};
use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::XChaCha20Poly1305;
use ctr::Ctr128BE;
use hmac::{Hmac, Mac};
use sha2::Sha256;

type AesGcm16 = AesGcm<Aes256, U16>;

const SEED_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const AES_NONCE_BYTES: usize = 16;
const CHACHA_NONCE_BYTES: usize = 24;

/// The keys that a server's configuration names: the one it has, and the one before.
pub struct MasterKeys {
    keys: Vec<Vec<u8>>,
}

impl MasterKeys {
    pub fn new(key: Option<String>, previous: Option<String>) -> Self {
        let keys = [key, previous].into_iter().flatten();
        Self {
            keys: keys.map(String::into_bytes).collect(),
        }
    }

    /// Opens a key file. `info` is the account, `context` names the file in it.
    pub fn open(&self, key_file: &[u8], info: &str, context: &str) -> Result<FileKey> {
        let cipher = match key_file.len() {
            length if length == CHACHA_NONCE_BYTES + SEED_BYTES + TAG_BYTES => Cipher::ChaCha,
            length if length == AES_NONCE_BYTES + SEED_BYTES + TAG_BYTES => Cipher::Aes,
            length => bail!("a key file of {length} bytes is of no known cipher"),
        };
        ensure!(
            !self.keys.is_empty(),
            "it is encrypted: the key is needed (--from-key)"
        );
        let (nonce, sealed) = key_file.split_at(cipher.nonce_bytes());
        for master in &self.keys {
            let key = derive(master, info, context)?;
            if let Some(seed) = cipher.open(&key, nonce, sealed) {
                return Ok(FileKey {
                    cipher,
                    seed,
                    nonce: nonce.to_vec(),
                });
            }
        }
        bail!("the key does not fit")
    }
}

/// HMAC-SHA256 of the file's place under the master key.
fn derive(master: &[u8], info: &str, context: &str) -> Result<Vec<u8>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(master)
        .map_err(|_| anyhow::anyhow!("a key of this length cannot be used"))?;
    mac.update(info.as_bytes());
    mac.update(context.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    ChaCha,
    Aes,
}

impl Cipher {
    fn nonce_bytes(self) -> usize {
        match self {
            Self::ChaCha => CHACHA_NONCE_BYTES,
            Self::Aes => AES_NONCE_BYTES,
        }
    }

    fn open(self, key: &[u8], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::ChaCha => {
                let cipher = XChaCha20Poly1305::new_from_slice(key).ok()?;
                cipher.decrypt(nonce.try_into().ok()?, sealed).ok()
            }
            Self::Aes => {
                let cipher = AesGcm16::new(<&Key<AesGcm16>>::try_from(key).ok()?);
                cipher.decrypt(nonce.try_into().ok()?, sealed).ok()
            }
        }
    }
}

/// The key of one file, or of the files that are sealed under the same seed.
pub struct FileKey {
    cipher: Cipher,
    seed: Vec<u8>,
    nonce: Vec<u8>,
}

impl FileKey {
    /// Opens a sealed file: its nonce, and what is sealed.
    pub fn open_sealed(&self, file: &[u8]) -> Result<Vec<u8>> {
        let parts = file.split_at_checked(self.cipher.nonce_bytes());
        let (nonce, sealed) = parts.context("it is too short to be encrypted")?;
        let plain = self.cipher.open(&self.seed, nonce, sealed);
        plain.context("it is damaged, or encrypted under another key")
    }

    /// Decrypts a block in place.
    pub fn decrypt_block(&self, block: &mut [u8]) -> Result<()> {
        let unfit = |_| anyhow::anyhow!("a key of the wrong length");
        match self.cipher {
            Cipher::ChaCha => {
                let cipher = XChaCha20::new_from_slices(&self.seed, &self.nonce);
                cipher.map_err(unfit)?.apply_keystream(block);
            }
            Cipher::Aes => {
                let cipher = Ctr128BE::<Aes256>::new_from_slices(&self.seed, &self.nonce);
                cipher.map_err(unfit)?.apply_keystream(block);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_of_no_known_length_and_wrong_keys_are_refused() {
        let keys = MasterKeys::new(Some("k".to_owned()), None);
        let refused = |bytes: &[u8]| match keys.open(bytes, "$G", "S") {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} bytes were taken", bytes.len()),
        };
        assert!(refused(&[0; 65]).contains("65 bytes"));
        assert!(refused(&[0; 64]).contains("does not fit"));
        assert!(refused(&[0; 72]).contains("does not fit"));
        let none = MasterKeys::new(None, None);
        let error = none.open(&[0; 64], "$G", "S").err().expect("no key");
        assert!(error.to_string().contains("--from-key"));
    }
}

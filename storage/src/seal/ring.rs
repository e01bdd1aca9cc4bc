//! The master keys of a store directory, and the wrapping of data keys under them.

use std::path::Path;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::file::{KEY_IDS_MAX, KeyFile, KeyFileError, SALT_BYTES};
use super::sealer::{Cipher, DataKey, KEY_BYTES, NONCE_BYTES, sealer};
use super::wrapped::{KeyId, UnwrapError, WrappedKey};
use crate::disk::Disk;
use crate::entropy::Entropy;

const MASTER_INFO: &[u8] = b"nats-server storage master key 1";
const KEY_ID_INFO: &[u8] = b"nats-server storage master key id 1";

/// Why a key ring could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyRingError {
    /// The key file could not be read or written.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Neither the passphrase nor the previous one is the one this store was encrypted with.
    #[error(
        "the store is encrypted under master key {0}, which does not follow from the given passphrase"
    )]
    WrongPassphrase(KeyId),
    /// There is no key file in the directory.
    #[error("there is no key file")]
    NoKeyFile,
    /// The passphrase was changed more often than the key file can remember.
    #[error("the key file names {KEY_IDS_MAX} master keys already")]
    TooManyKeys,
}

struct Master {
    id: KeyId,
    key: DataKey,
}

/// Wraps new data keys under the current master key and unwraps those of every master key it was given.
pub struct KeyRing {
    cipher: Cipher,
    /// The current one first.
    masters: Vec<Master>,
}

impl KeyRing {
    /// Whether a store directory has a key file, that is whether anything in it may be encrypted.
    pub fn exists(disk: &dyn Disk, directory: &Path) -> Result<bool, KeyFileError> {
        Ok(KeyFile::load(disk, directory)?.is_some())
    }

    /// Derives the master keys from the passphrase, and from the previous one while a change of passphrase is under way.
    /// Creates the key file of a directory that has none. New data keys are for `cipher`.
    pub fn open(
        disk: &dyn Disk,
        directory: &Path,
        passphrase: &[u8],
        previous: Option<&[u8]>,
        cipher: Cipher,
        entropy: &dyn Entropy,
    ) -> Result<Self, KeyRingError> {
        let (mut file, new) = match KeyFile::load(disk, directory)? {
            Some(file) => (file, false),
            None => {
                let mut salt = [0; SALT_BYTES];
                entropy.fill(&mut salt);
                let ids = Vec::new();
                (KeyFile { salt, ids }, true)
            }
        };
        let current = derive(&file.salt, passphrase);
        let previous = previous.map(|previous| derive(&file.salt, previous));
        let newest = file.ids.first().copied();
        if newest != Some(current.id) {
            let known = |master: &Master| file.ids.contains(&master.id);
            match newest {
                Some(newest) if !known(&current) && !previous.as_ref().is_some_and(known) => {
                    return Err(KeyRingError::WrongPassphrase(newest));
                }
                _ => {}
            }
            file.ids.retain(|id| *id != current.id);
            if file.ids.len() == KEY_IDS_MAX {
                return Err(KeyRingError::TooManyKeys);
            }
            file.ids.insert(0, current.id);
            tracing::info!(key = %current.id, first = new, "new master key");
            file.store(disk, directory)?;
        }
        let masters = std::iter::once(current).chain(previous).collect();
        Ok(Self { cipher, masters })
    }

    /// The ring of a directory as it lies there, for tools: nothing is written, and each passphrase must be one the key file
    /// knows. New data keys would be for AES-256-GCM.
    pub fn read(
        disk: &dyn Disk,
        directory: &Path,
        passphrases: &[&[u8]],
    ) -> Result<Self, KeyRingError> {
        let file = KeyFile::load(disk, directory)?.ok_or(KeyRingError::NoKeyFile)?;
        let masters: Vec<Master> = passphrases
            .iter()
            .map(|passphrase| derive(&file.salt, passphrase))
            .collect();
        for master in &masters {
            if !file.ids.contains(&master.id) {
                let newest = file.ids.first().copied().unwrap_or(master.id);
                return Err(KeyRingError::WrongPassphrase(newest));
            }
        }
        Ok(Self {
            cipher: Cipher::Aes256Gcm,
            masters,
        })
    }

    /// The cipher of new data keys.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The master key that new data keys are wrapped under.
    pub fn current(&self) -> KeyId {
        self.masters
            .first()
            .map_or(KeyId([0; 8]), |master| master.id)
    }

    /// A fresh data key and its wrapped form. Only whoever names the same `context` (where the key stands and what it is for)
    /// can unwrap it.
    pub fn new_data_key(&self, context: &[u8], entropy: &dyn Entropy) -> (DataKey, WrappedKey) {
        let key = DataKey::random(entropy);
        let wrapped = self.wrap(&key, self.cipher, context, entropy);
        (key, wrapped)
    }

    /// Wraps a data key under the current master key.
    #[expect(
        clippy::expect_used,
        reason = "an open ring holds the current master, and 32 bytes are never too long"
    )]
    pub fn wrap(
        &self,
        key: &DataKey,
        data_cipher: Cipher,
        context: &[u8],
        entropy: &dyn Entropy,
    ) -> WrappedKey {
        let master = self.masters.first().expect("a ring has a current master");
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let mut sealed = Zeroizing::new(*key.as_bytes());
        let associated = WrappedKey::associated(master.id, self.cipher, data_cipher, context);
        let tag = sealer(self.cipher, &master.key)
            .seal(&nonce, &associated, sealed.as_mut())
            .expect("a key fits one seal");
        WrappedKey {
            master: master.id,
            wrap_cipher: self.cipher,
            data_cipher,
            nonce,
            sealed: *sealed,
            tag,
        }
    }

    /// The data key inside `wrapped`.
    pub fn unwrap(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<DataKey, UnwrapError> {
        let master = self
            .masters
            .iter()
            .find(|master| master.id == wrapped.master)
            .ok_or(UnwrapError::UnknownMaster(wrapped.master))?;
        let mut bytes = Zeroizing::new(wrapped.sealed);
        let associated = WrappedKey::associated(
            wrapped.master,
            wrapped.wrap_cipher,
            wrapped.data_cipher,
            context,
        );
        sealer(wrapped.wrap_cipher, &master.key)
            .open(&wrapped.nonce, &associated, bytes.as_mut(), &wrapped.tag)
            .map_err(|_| UnwrapError::NotAuthentic)?;
        Ok(DataKey::from_bytes(bytes))
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "KeyRing({:?}, {})", self.cipher, self.current())
    }
}

#[expect(
    clippy::expect_used,
    reason = "HKDF-SHA256 gives up to 8,160 bytes; 32 and 8 are asked for"
)]
fn derive(salt: &[u8; SALT_BYTES], passphrase: &[u8]) -> Master {
    let extracted = Hkdf::<Sha256>::new(Some(salt), passphrase);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let mut id = [0; 8];
    extracted
        .expand(MASTER_INFO, key.as_mut())
        .and_then(|()| extracted.expand(KEY_ID_INFO, &mut id))
        .expect("the lengths are allowed");
    Master {
        id: KeyId(id),
        key: DataKey::from_bytes(key),
    }
}

//! The key file: the salt of a store directory and the master keys in use, by id.
//!
//! It holds no secret. It is written once when encryption is first switched on, and again when the
//! passphrase changes.
//!
//! ```text
//!   0   8  magic "NSKEYS" 0x1a 0x0a
//!   8   2  format version, 1
//!  10   1  key derivation, 1 = HKDF-SHA256
//!  11   1  count of key ids, 1 to 16
//!  12   4  zero
//!  16  32  salt
//!  48 128  16 key ids of 8 bytes, the newest first, the unused ones zero
//! 176   4  crc32 of bytes 0 to 175
//! ```

use std::path::{Path, PathBuf};

use super::wrapped::KeyId;
use crate::disk::{Disk, DiskError, DiskErrorKind, OpenMode};

/// Its name in the store directory.
pub const KEY_FILE_NAME: &str = "keys";
const KEY_FILE_NEW_NAME: &str = "keys.new";

pub(super) const SALT_BYTES: usize = 32;
/// How many master keys a key file can name.
pub(super) const KEY_IDS_MAX: usize = 16;

const MAGIC: [u8; 8] = *b"NSKEYS\x1a\n";
const VERSION: u16 = 1;
const DERIVATION_HKDF_SHA256: u8 = 1;

const VERSION_AT: usize = 8;
const DERIVATION_AT: usize = VERSION_AT + 2;
const COUNT_AT: usize = DERIVATION_AT + 1;
const SALT_AT: usize = COUNT_AT + 1 + 4; // + 4 zero
const IDS_AT: usize = SALT_AT + SALT_BYTES;
const CRC_AT: usize = IDS_AT + KEY_IDS_MAX * 8;
const FILE_BYTES: usize = CRC_AT + 4;
const _: () = assert!(FILE_BYTES == 180);

/// Why a key file could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyFileError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not a key file, or its bytes changed.
    #[error("key file {} is damaged", .0.display())]
    Damaged(PathBuf),
    /// Written by a later version of this program.
    #[error("key file {} has format version {version}, this program reads up to {VERSION}", path.display())]
    LaterVersion {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        version: u16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub salt: [u8; SALT_BYTES],
    /// The newest first; never empty.
    pub ids: Vec<KeyId>,
}

impl KeyFile {
    /// Reads the key file of a store directory; `None` when there is none.
    pub fn load(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, KeyFileError> {
        let path = directory.join(KEY_FILE_NAME);
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = [0; FILE_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::UnexpectedEnd => {
                return Err(KeyFileError::Damaged(path));
            }
            Err(error) => return Err(error.into()),
        }
        Self::decode(&bytes, &path).map(Some)
    }

    /// Replaces the key file. Durable when it returns.
    pub fn store(&self, disk: &dyn Disk, directory: &Path) -> Result<(), KeyFileError> {
        let new = directory.join(KEY_FILE_NEW_NAME);
        match disk.remove_file(&new) {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let file = disk.open(&new, OpenMode::CreateNew)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &directory.join(KEY_FILE_NAME))?;
        disk.sync_directory(directory)?;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(DERIVATION_HKDF_SHA256);
        let ids = self.ids.iter().take(KEY_IDS_MAX);
        bytes.push(ids.len() as u8);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.salt);
        for id in ids {
            bytes.extend_from_slice(&id.0);
        }
        bytes.resize(CRC_AT, 0);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FILE_BYTES], path: &Path) -> Result<Self, KeyFileError> {
        let damaged = || KeyFileError::Damaged(path.to_owned());
        let (body, crc) = bytes.split_at(CRC_AT);
        if !body.starts_with(&MAGIC) || crc != crc32fast::hash(body).to_le_bytes() {
            return Err(damaged());
        }
        let version = body
            .get(VERSION_AT..DERIVATION_AT)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes)
            .ok_or_else(damaged)?;
        if version > VERSION {
            return Err(KeyFileError::LaterVersion {
                path: path.to_owned(),
                version,
            });
        }
        let derivation = body.get(DERIVATION_AT).copied();
        let count = usize::from(body.get(COUNT_AT).copied().unwrap_or_default());
        if version != VERSION
            || derivation != Some(DERIVATION_HKDF_SHA256)
            || !(1..=KEY_IDS_MAX).contains(&count)
        {
            return Err(damaged());
        }
        let (salt, ids) = body
            .get(SALT_AT..)
            .and_then(|rest| rest.split_first_chunk::<SALT_BYTES>())
            .ok_or_else(damaged)?;
        let (ids, _) = ids.as_chunks::<8>();
        Ok(Self {
            salt: *salt,
            ids: ids.iter().take(count).map(|id| KeyId(*id)).collect(),
        })
    }
}

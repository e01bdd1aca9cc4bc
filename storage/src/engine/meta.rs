//! The file by which a stream's directory says whose it is: for people, for tools, and for the day the catalog is lost.
//!
//! ```text
//!  0  8  magic "NSMETA" 0x1a 0x0a
//!  8  2  format version, 1
//! 10  2  zero
//! 12  4  length of what follows, up to the crc
//! 16     8 stream id, 2 length of the account, the account, 2 length of the name, the name,
//!        4 length of the options, the options as they were when the directory was created
//!     4  crc32 of everything before
//! ```

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::StreamId;
use super::catalog::{MalformedCatalog, get_name, put_long, put_name, take};
use crate::disk::{Disk, DiskError, DiskErrorKind, OpenMode};

/// Its name in a stream's directory.
pub(super) const META_NAME: &str = "meta";
const META_NEW_NAME: &str = "meta.new";

const MAGIC: [u8; 8] = *b"NSMETA\x1a\n";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
/// Names of 64 KiB each and options of any sensible size.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Whose a stream's directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamMeta {
    /// The stream's id.
    pub id: StreamId,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    /// Its options, encoded, as they were when the directory was created.
    pub options: Bytes,
}

/// Why a meta file could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MetaError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its check failed.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
    /// Written by a later version of this program.
    #[error("{} has format version {version}, this program reads up to {VERSION}", path.display())]
    LaterVersion {
        /// The file.
        path: PathBuf,
        /// The version it says it has.
        version: u16,
    },
}

/// Reads the meta file of a stream's directory.
pub fn read_meta(disk: &dyn Disk, directory: &Path) -> Result<StreamMeta, MetaError> {
    let path = directory.join(META_NAME);
    let file = disk.open(&path, OpenMode::Read)?;
    let length = file.length()?;
    if length > FILE_BYTES_MAX {
        return Err(MetaError::Damaged(path));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let damaged = || MetaError::Damaged(path.clone());
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if !body.starts_with(&MAGIC) || crc32fast::hash(body).to_le_bytes() != *crc {
        return Err(damaged());
    }
    let header = body.get(8..10).and_then(|bytes| bytes.try_into().ok());
    match header.map(u16::from_le_bytes) {
        Some(VERSION) => {}
        Some(version) if version > VERSION => {
            return Err(MetaError::LaterVersion { path, version });
        }
        _ => return Err(damaged()),
    }
    StreamMeta::decode(body.get(12..).unwrap_or_default()).map_err(|_| damaged())
}

impl StreamMeta {
    /// From what stands between a meta file's header and its checksum.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, MalformedCatalog> {
        let bytes = &mut bytes;
        if bytes.try_get_u32_le()? as usize != bytes.remaining() {
            return Err(MalformedCatalog::Damaged);
        }
        let meta = Self {
            id: StreamId(bytes.try_get_u64_le()?),
            account: get_name(bytes)?,
            name: get_name(bytes)?,
            options: {
                let length = bytes.try_get_u32_le()? as usize;
                take(bytes, length)?
            },
        };
        match bytes.has_remaining() {
            true => Err(MalformedCatalog::Damaged),
            false => Ok(meta),
        }
    }

    /// As it stands in its file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u64_le(self.id.0);
        put_name(&mut body, &self.account);
        put_name(&mut body, &self.name);
        put_long(&mut body, &self.options);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + 4);
        bytes.put_slice(&MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u16_le(0);
        put_long(&mut bytes, &body);
        let crc = crc32fast::hash(&bytes);
        bytes.put_u32_le(crc);
        bytes
    }

    /// Writes it into its directory. Durable when it returns.
    pub(super) fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), DiskError> {
        let new = directory.join(META_NEW_NAME);
        match disk.remove_file(&new) {
            Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&new, OpenMode::CreateNew)?;
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()?;
        disk.rename(&new, &directory.join(META_NAME))?;
        disk.sync_directory(directory)
    }
}

//! The store in block files as an engine knows it.
//!
//! Its options as they stand in the catalog:
//!
//! ```text
//!  0  1  version, 1
//!  1  1  compression of chunks
//!  2  8  size at which blocks are sealed, 0 when it follows from the limits
//! 10  1  which limits there are: 1 messages, 2 bytes, 4 age, 8 per subject; 16 new messages are discarded
//! 11 32  messages, bytes, age in nanoseconds, per subject; zero where there is none
//! ```

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::persistent::{Frozen, Persistent, Place, RestoreError, Restored};
use crate::codec::Compression;
use crate::store::{
    CheckpointError, Discard, FileOpenError, FileOptions, FileStore, Frozen as FrozenFiles, Limits,
};

const VERSION: u8 = 1;

/// What is settled of a stream's store when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// The limits that hold until the first checkpoint; after that the store remembers its own.
    pub limits: Limits,
    /// Compression of chunks.
    pub compression: Compression,
    /// Size at which blocks are sealed; `None` derives it from the limits.
    pub block_bytes: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            compression: Compression::None,
            block_bytes: None,
        }
    }
}

impl Persistent for FileStore {
    type Options = StoreOptions;

    fn encode_options(options: &StoreOptions) -> Bytes {
        let limits = &options.limits;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(limits.messages_max.is_some(), 1)
            | flag(limits.bytes_max.is_some(), 2)
            | flag(limits.age_max_ns.is_some(), 4)
            | flag(limits.per_subject_max.is_some(), 8)
            | flag(limits.discard == Discard::New, 16);
        let mut out = Vec::new();
        out.put_u8(VERSION);
        out.put_u8(options.compression.to_byte());
        out.put_u64_le(options.block_bytes.unwrap_or_default());
        out.put_u8(flags);
        out.put_u64_le(limits.messages_max.unwrap_or_default());
        out.put_u64_le(limits.bytes_max.unwrap_or_default());
        out.put_i64_le(limits.age_max_ns.unwrap_or_default());
        out.put_u64_le(limits.per_subject_max.unwrap_or_default());
        out.into()
    }

    fn decode_options(mut bytes: &[u8]) -> Option<StoreOptions> {
        let bytes = &mut bytes;
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let compression = Compression::from_byte(bytes.try_get_u8().ok()?)?;
        let block_bytes = bytes.try_get_u64_le().ok()?;
        let flags = bytes.try_get_u8().ok()?;
        let messages_max = bytes.try_get_u64_le().ok()?;
        let bytes_max = bytes.try_get_u64_le().ok()?;
        let age_max_ns = bytes.try_get_i64_le().ok()?;
        let per_subject_max = bytes.try_get_u64_le().ok()?;
        let set = |flag: u8| flags & flag != 0;
        let limits = Limits {
            messages_max: set(1).then_some(messages_max),
            bytes_max: set(2).then_some(bytes_max),
            age_max_ns: set(4).then_some(age_max_ns),
            per_subject_max: set(8).then_some(per_subject_max),
            discard: if set(16) { Discard::New } else { Discard::Old },
        };
        (flags < 32 && !bytes.has_remaining()).then_some(StoreOptions {
            limits,
            compression,
            block_bytes: (block_bytes > 0).then_some(block_bytes),
        })
    }

    fn create(place: Place, options: StoreOptions) -> Self {
        let disk = Arc::clone(&place.disk);
        let directory = place.directory.clone();
        let limits = options.limits;
        Self::create(disk, directory, file_options(place, &options), limits)
    }

    fn restore(
        place: Place,
        options: StoreOptions,
        carried: Option<(u64, Bytes)>,
    ) -> Result<Restored<Self>, RestoreError> {
        let opened = Self::open(
            Arc::clone(&place.disk),
            place.directory.clone(),
            carried.map(|(_, bytes)| bytes),
            file_options(place, &options),
            options.limits,
        )?;
        Ok(Restored {
            store: opened.store,
            index: opened.index,
            core: opened.core,
        })
    }

    fn freeze(&mut self, index: u64, core: Bytes, carry_bytes_max: usize) -> Frozen {
        match self.freeze(index, core, carry_bytes_max) {
            FrozenFiles::Carry(bytes) => Frozen::Carry(bytes),
            FrozenFiles::Files(job) => Frozen::Files(job),
        }
    }
}

fn file_options(place: Place, options: &StoreOptions) -> FileOptions {
    let usual = FileOptions::new(
        place.id.0,
        Arc::clone(&place.entropy),
        Arc::clone(&place.cache),
        Arc::clone(&place.background),
    );
    let ring = place.keys.clone();
    FileOptions {
        block_bytes: options.block_bytes,
        compression: options.compression,
        cipher: ring.as_ref().map(|ring| ring.cipher()),
        ring,
        prepare: Some(Arc::new(move || place.create_directory())),
        ..usual
    }
}

impl From<FileOpenError> for RestoreError {
    fn from(error: FileOpenError) -> Self {
        let text = error.to_string();
        match error {
            FileOpenError::Disk(error)
            | FileOpenError::Checkpoint(CheckpointError::Disk(error)) => Self::Disk(error),
            FileOpenError::Checkpoint(CheckpointError::LaterVersion { .. }) => {
                Self::LaterVersion(text)
            }
            FileOpenError::Checkpoint(CheckpointError::KeyMissing(_) | CheckpointError::Key(_))
            | FileOpenError::Key { .. } => Self::Key(text),
            FileOpenError::Checkpoint(CheckpointError::Damaged(_))
            | FileOpenError::Carried { .. } => Self::Damaged(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_and_what_is_no_options_is_refused() {
        let options = StoreOptions {
            limits: Limits {
                messages_max: Some(7),
                bytes_max: None,
                age_max_ns: Some(-3),
                per_subject_max: Some(1),
                discard: Discard::New,
            },
            compression: Compression::S2,
            block_bytes: Some(4 << 20),
        };
        for options in [options, StoreOptions::default()] {
            let bytes = FileStore::encode_options(&options);
            assert_eq!(bytes.len(), 43);
            assert_eq!(FileStore::decode_options(&bytes), Some(options));
            for length in 0..43 {
                assert_eq!(FileStore::decode_options(&bytes[..length]), None);
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(FileStore::decode_options(&longer), None);
        }
    }
}

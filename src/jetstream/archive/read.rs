//! A backup, read from its beginning to its end without holding more of it than a record.

use std::collections::BTreeMap;
use std::io::Read;

use super::builder::{BuildError, StreamBuilder};
use super::frame::FrameReader;
use super::hash::Sums;
use super::meta::{ConsumerMeta, MetaError, StreamMeta};
use super::tar::{Entry, TarError, TarReader};
use super::{CONSUMER_BYTES_MAX, INDEX_BYTES_MAX, META_BYTES_MAX};

/// Bytes of a checksum's file.
const SUM_BYTES_MAX: u64 = 64;
/// Consumers whose files may be incomplete at one time: they come one after another.
const CONSUMERS_MAX: usize = 100_000;
/// Bytes of the files of all consumers, which are in memory until the end.
const CONSUMERS_BYTES_MAX: u64 = 1 << 30;

/// Why a backup cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What it is wrapped in is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Something in it is damaged.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It holds what no backup holds.
    #[error("unexpected content: {0}")]
    Unexpected(String),
    /// A file in it cannot be read.
    #[error("{file}: {source}")]
    Meta {
        /// Which one.
        file: String,
        /// Why.
        source: MetaError,
    },
    /// A file is not what was written.
    #[error("{0} fails its checksum")]
    Checksum(String),
    /// A file is missing.
    #[error("the archive has no {0}")]
    Missing(String),
    /// Whoever made it failed.
    #[error("the archive is incomplete: its maker says \"{0}\"")]
    Incomplete(String),
}

/// A backup that is being read.
pub struct ArchiveReader<R> {
    tar: TarReader<FrameReader<R>>,
    meta: StreamMeta,
    meta_sum: String,
    files_bytes: u64,
    consumers_bytes: u64,
}

/// The files of one consumer.
#[derive(Default)]
struct ConsumerFiles {
    meta: Option<Vec<u8>>,
    sum: Option<Vec<u8>>,
    state: Option<Vec<u8>>,
}

impl<R: Read> ArchiveReader<R> {
    /// Reads what it begins with: the stream's configuration.
    pub fn open(source: R) -> Result<Self, ArchiveError> {
        let mut tar = TarReader::new(FrameReader::new(source));
        let first = tar.next_entry()?;
        let first = first.filter(|entry| entry.is_file && entry.name == "meta.inf");
        let Some(first) = first else {
            return Err(ArchiveError::Unexpected(
                "it does not begin with meta.inf".to_owned(),
            ));
        };
        let bytes = tar.whole(META_BYTES_MAX)?;
        let meta = StreamMeta::read(&bytes).map_err(|source| ArchiveError::Meta {
            file: first.name,
            source,
        })?;
        Ok(Self {
            meta_sum: Sums::named(&meta.config.name).text(&bytes),
            tar,
            meta,
            files_bytes: first.size,
            consumers_bytes: 0,
        })
    }

    /// The stream as it was configured.
    pub fn meta(&self) -> &StreamMeta {
        &self.meta
    }

    /// Reads the rest into a stream. `admit` is told how many bytes the files have in all up to the next one, and may refuse.
    pub fn read_into<E: From<ArchiveError>>(
        mut self,
        builder: &mut StreamBuilder,
        mut admit: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut consumers: BTreeMap<String, ConsumerFiles> = BTreeMap::new();
        while let Some(entry) = self.tar.next_entry().map_err(ArchiveError::from)? {
            self.files_bytes = self.files_bytes.saturating_add(entry.size);
            admit(self.files_bytes)?;
            self.file(&entry, builder, &mut consumers)?;
        }
        for (name, files) in consumers {
            let path = |file: &str| format!("obs/{name}/{file}");
            let meta = files.meta.ok_or(ArchiveError::Missing(path("meta.inf")))?;
            let sum = files.sum.ok_or(ArchiveError::Missing(path("meta.sum")))?;
            let sums = Sums::of_consumer(&self.meta.config.name, &name);
            if sum.trim_ascii() != sums.text(&meta).as_bytes() {
                return Err(ArchiveError::Checksum(path("meta.inf")).into());
            }
            let file = path("meta.inf");
            let meta =
                ConsumerMeta::read(&meta).map_err(|source| ArchiveError::Meta { file, source })?;
            if meta.name != name {
                let other = format!("{} is of consumer {:?}", path("meta.inf"), meta.name);
                return Err(ArchiveError::Unexpected(other).into());
            }
            let state = files.state.as_deref();
            let taken = builder.consumer(&path("o.dat"), meta, state);
            taken.map_err(ArchiveError::from)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Entry,
        builder: &mut StreamBuilder,
        consumers: &mut BTreeMap<String, ConsumerFiles>,
    ) -> Result<(), ArchiveError> {
        let unexpected = || ArchiveError::Unexpected(format!("{:?}", entry.name));
        if !entry.is_file {
            return Err(unexpected());
        }
        let parts: Vec<&str> = entry.name.split('/').collect();
        match *parts.as_slice() {
            ["meta.sum"] => {
                let sum = self.tar.whole(SUM_BYTES_MAX)?;
                if sum.trim_ascii() != self.meta_sum.as_bytes() {
                    return Err(ArchiveError::Checksum("meta.inf".to_owned()));
                }
            }
            ["errors.txt"] => {
                let text = self.tar.whole(META_BYTES_MAX)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(ArchiveError::Incomplete(text));
            }
            ["msgs", "index.db"] => {
                let bytes = self.tar.whole(INDEX_BYTES_MAX)?;
                builder.index(&bytes);
            }
            ["msgs", file] => match file.split_once('.') {
                Some((number, "blk")) => {
                    let number = block_number(number).ok_or_else(unexpected)?;
                    builder.block(number, &entry.name, &mut self.tar)?;
                }
                // Older servers wrote more beside each block, which nobody needs.
                Some((number, "idx" | "fss")) if block_number(number).is_some() => {}
                _ if matches!(file, "thw.db" | "sched.db") => {}
                _ => return Err(unexpected()),
            },
            ["obs", name, file] if is_name(name) => {
                self.consumers_bytes = self.consumers_bytes.saturating_add(entry.size);
                let is_much = self.consumers_bytes > CONSUMERS_BYTES_MAX;
                if is_much || consumers.len() >= CONSUMERS_MAX {
                    return Err(ArchiveError::Unexpected("too many consumers".to_owned()));
                }
                let files = consumers.entry(name.to_owned()).or_default();
                match file {
                    "meta.inf" => files.meta = Some(self.tar.whole(META_BYTES_MAX)?),
                    "meta.sum" => files.sum = Some(self.tar.whole(SUM_BYTES_MAX)?),
                    "o.dat" => files.state = Some(self.tar.whole(CONSUMER_BYTES_MAX)?),
                    _ => return Err(unexpected()),
                }
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }
}

fn block_number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// Whether it is one step of a path and not a way out of it.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
}

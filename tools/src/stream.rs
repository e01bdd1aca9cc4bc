//! A stream's files, opened as far as they can be.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use storage::block::format::HeaderError;
use storage::block::verify::{Depth, Finding, Outline, verify};
use storage::block::{BlockCache, BlockKeys, BlockOpenError, BlockReadError, Record, SealedBlock};
use storage::disk::{Disk, OpenMode, RealDisk};
use storage::engine::{RescuedEntries, StoredStream, StreamId, read_meta};
use storage::filter::Filter;
use storage::seal::KeyRing;
use storage::store::CheckpointError;
use storage::store::inspect::{BlockFile, BlockRole, StreamOutline};

use crate::arguments::Scope;
use crate::present::Present;

/// Unpacked chunks of the one block that is being read.
const CACHE_BYTES: usize = 16 << 20;

/// One stream, or what is left of it.
pub struct Stream {
    pub directory: String,
    pub id: Option<u64>,
    pub account: Option<String>,
    pub name: Option<String>,
    pub removing: bool,
    /// Which replica of which group it is, if it is one.
    pub replica: Option<Replica>,
    /// What the journal has of it after its checkpoint.
    pub log: LogTail,
    pub outline: StreamOutline,
    pub blocks: Vec<Block>,
    /// Whether the path named a block and not the stream.
    one_block: bool,
    /// The stream in its store.
    stored: Option<StoredStream>,
}

/// Entries of a stream that are only in the journal.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct LogTail {
    pub entries: u64,
    pub bytes: u64,
    /// Ranges of entries that are lost to damage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(u64, u64)>,
    /// Files beside the blocks that entries were moved to, because the stream could not take a checkpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Moved>,
}

/// Which replica of which group a stream is.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Replica {
    pub group: u64,
    pub node: u64,
}

/// A file of log entries in a stream's directory.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Moved {
    pub file: String,
    pub last_entry: u64,
    pub bytes: u64,
    pub intact: bool,
}

impl From<&RescuedEntries> for Moved {
    fn from(rescued: &RescuedEntries) -> Self {
        Self {
            file: rescued.name.clone(),
            last_entry: rescued.upto,
            bytes: rescued.length,
            intact: rescued.intact,
        }
    }
}

/// One block file.
pub struct Block {
    pub file: BlockFile,
    pub name: String,
    /// What counts of the file, or why it cannot be read.
    pub bytes: Result<Bytes, String>,
    pub outline: Result<Outline, String>,
    opened: OnceCell<Result<SealedBlock, BlockOpenError>>,
}

impl Stream {
    /// Opens a stream's directory.
    pub fn open(directory: &Path, ring: Option<&KeyRing>, scope: &Scope) -> Result<Self> {
        let mut stream = Self::read(directory, None, ring, scope)?;
        if let Ok(meta) = read_meta(&RealDisk, directory) {
            stream.id = Some(meta.id.0);
            stream.account = Some(meta.account);
            stream.name = Some(meta.name);
        }
        Ok(stream)
    }

    /// Opens a stream of a store, with what the journal has of it.
    pub fn of_store(stored: &StoredStream, ring: Option<&KeyRing>, scope: &Scope) -> Result<Self> {
        let carried = stored.carried.clone();
        let mut stream = Self::read(&stored.directory, carried, ring, scope)?;
        stream.id = Some(stored.id.0);
        stream.account = stored.account.clone();
        stream.name = stored.name.clone();
        stream.removing = stored.removing;
        let index = match &stream.outline.checkpoint {
            Ok(Some(checkpoint)) => checkpoint.index,
            _ => 0,
        };
        let pending = || stored.entries.iter().filter(|(at, _)| *at > index);
        stream.replica = stored.form.replica().map(|replica| Replica {
            group: replica.group,
            node: replica.node,
        });
        if let Some(log) = &stored.group_log {
            let after = log.entries.iter().filter(|entry| entry.index > index);
            stream.log.entries = after.clone().count() as u64;
            stream.log.bytes = after.map(|entry| entry.payload.len() as u64).sum();
            stream.log.holes = log.holes.clone();
            stream.stored = Some(stored.clone());
            return Ok(stream);
        }
        stream.log = LogTail {
            entries: pending().count() as u64,
            bytes: pending().map(|(_, payload)| payload.len() as u64).sum(),
            holes: match &stream.outline.checkpoint {
                Ok(_) => stored.holes_after(index),
                // Where the entries would have to begin is not known.
                Err(_) => stored.holes.clone(),
            },
            moved: stored.rescued.iter().map(Moved::from).collect(),
        };
        stream.stored = Some(stored.clone());
        Ok(stream)
    }

    fn read(
        directory: &Path,
        carried: Option<Bytes>,
        ring: Option<&KeyRing>,
        scope: &Scope,
    ) -> Result<Self> {
        let outline = StreamOutline::read(&RealDisk, directory, carried, ring)?;
        let blocks = outline
            .blocks
            .iter()
            .map(|file| Block::open(file.clone()))
            .filter(|block| block.is_wanted(scope))
            .collect();
        Ok(Self {
            directory: directory.display().to_string(),
            id: outline.stream,
            account: None,
            name: None,
            removing: false,
            replica: None,
            log: LogTail::default(),
            outline,
            blocks,
            one_block: false,
            stored: None,
        })
    }

    /// Opens one block with what the checkpoint beside it, if there is one, says of it.
    pub fn of_block(path: &Path, ring: Option<&KeyRing>, scope: &Scope) -> Result<Self> {
        let absolute = std::path::absolute(path)?;
        let directory = absolute.parent().context("a block has a directory")?;
        let mut stream = Self::open(directory, ring, scope)?;
        stream.blocks.retain(|block| block.file.path == absolute);
        if stream.blocks.is_empty() {
            let file = BlockFile {
                path: absolute.clone(),
                length: Some(std::fs::metadata(&absolute)?.len()),
                role: BlockRole::Unlisted,
            };
            stream.blocks.push(Block::open(file));
        }
        stream.directory = path.display().to_string();
        stream.one_block = true;
        Ok(stream)
    }

    /// Whether `--stream` names it.
    pub fn is_called(&self, wanted: &str) -> bool {
        let id = self.id.map(|id| id.to_string());
        let full = match (&self.account, &self.name) {
            (Some(account), Some(name)) => Some(format!("{account}/{name}")),
            _ => None,
        };
        let hex = self.id.map(|id| StreamId(id).directory_name());
        [&id, &hex, &self.name, &full]
            .into_iter()
            .flatten()
            .any(|known| known == wanted)
    }

    /// Whether its checkpoint cannot be read for want of a key.
    pub fn is_locked(&self) -> bool {
        matches!(self.outline.checkpoint, Err(CheckpointError::KeyMissing(_)))
    }

    /// The messages that its checkpoint holds because they are in no block; none when only blocks are asked for.
    pub fn held(&self, scope: &Scope) -> &[Record] {
        match &self.outline.checkpoint {
            Ok(Some(checkpoint)) if self.wants_unblocked(scope) => &checkpoint.held,
            _ => &[],
        }
    }

    /// Its messages as the server would have them after a start; `None` when it was opened without its store.
    pub fn present(&self, ring: Option<&Arc<KeyRing>>) -> Result<Option<Present>> {
        let checkpointed = match &self.outline.checkpoint {
            Ok(Some(checkpoint)) => checkpoint.state.last_sequence,
            _ => 0,
        };
        let stored = self.stored.as_ref();
        stored
            .map(|stored| Present::of(stored, checkpointed, ring.cloned()))
            .transpose()
    }

    /// What is wrong with its log.
    pub fn log_problems(&self) -> Vec<String> {
        let holes = self.log.holes.iter();
        let holes = holes.map(|(first, last)| format!("log entries {first} to {last} are lost"));
        let moved = self.log.moved.iter().filter(|moved| !moved.intact);
        let moved = moved.map(|moved| format!("{} is damaged", moved.file));
        holes.chain(moved).collect()
    }

    /// Whether messages are asked for that are in no block.
    pub fn wants_unblocked(&self, scope: &Scope) -> bool {
        scope.block.is_none() && !self.one_block
    }

    /// Whether the checkpoint counts a record of one of its blocks as a message of the stream.
    pub fn is_live(&self, block: &Block, sequence: u64) -> bool {
        self.outline.is_live(block.file.role, sequence)
    }

    /// Length of all its block files.
    pub fn bytes(&self) -> u64 {
        let lengths = self.blocks.iter().filter_map(|block| block.file.length);
        lengths.sum()
    }

    /// How many of a block's records are live; `None` when its index cannot be read.
    pub fn live_in(&self, block: &Block, ring: Option<&KeyRing>) -> Option<u64> {
        let opened = block.opened(ring).ok()?;
        let Ok(Some(checkpoint)) = &self.outline.checkpoint else {
            return Some(opened.summary().records.into());
        };
        let (first, last) = match block.file.role {
            BlockRole::Sealed { first, last, .. } | BlockRole::Open { first, last, .. } => {
                (first, last)
            }
            BlockRole::Retired | BlockRole::Unlisted | BlockRole::SetAside => return Some(0),
        };
        let first = first.max(checkpoint.state.first_sequence);
        if first > last {
            return Some(0);
        }
        let cache = BlockCache::new(CACHE_BYTES);
        let from = |sequence| opened.count(sequence, &Filter::everything(), &cache);
        let after = last.checked_add(1).map_or(0, from);
        let records = from(first).saturating_sub(after);
        Some(records.saturating_sub(checkpoint.dead_between(first, last)))
    }
}

impl Block {
    fn open(file: BlockFile) -> Self {
        let bytes = read(&file);
        let outline = bytes.as_ref().map_err(String::clone).and_then(|bytes| {
            Outline::read(bytes, written(&file)).map_err(|error| error.to_string())
        });
        let name = file.path.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            file,
            bytes,
            outline,
            opened: OnceCell::new(),
        }
    }

    fn is_wanted(&self, scope: &Scope) -> bool {
        match &self.outline {
            Ok(outline) => {
                scope.wants_block(outline.identity.number) && scope.wants_range(outline.sequences())
            }
            Err(_) => scope.block.is_none() && scope.seq.is_none(),
        }
    }

    /// The block, for reading records.
    pub fn opened(&self, ring: Option<&KeyRing>) -> Result<&SealedBlock> {
        let opened = self.opened.get_or_init(|| match &self.bytes {
            Ok(bytes) => SealedBlock::open(bytes.clone(), ring),
            Err(_) => Err(BlockOpenError::Header(HeaderError::NotABlock)),
        });
        match (opened, &self.bytes) {
            (Ok(block), _) => Ok(block),
            (Err(_), Err(problem)) => anyhow::bail!("{}: {problem}", self.name),
            (Err(error), Ok(_)) => anyhow::bail!("{}: {error}", self.name),
        }
    }

    /// Calls `visit` with every record in order, until it returns `false`.
    pub fn records(
        &self,
        from: u64,
        ring: Option<&KeyRing>,
        visit: &mut dyn FnMut(Result<Record, BlockReadError>) -> bool,
    ) -> Result<()> {
        let cache = BlockCache::new(CACHE_BYTES);
        self.opened(ring)?.for_each(from, &cache, visit);
        Ok(())
    }

    /// Everything that is wrong with the block; without the keys of an encrypted one as far as checksums tell.
    pub fn check(
        &self,
        ring: Option<&KeyRing>,
        depth: CheckDepth,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Problem>> {
        // A kill may have cut it short, and no message of the stream depends on it.
        if self.file.role == BlockRole::SetAside {
            return Ok(Vec::new());
        }
        let bytes = match &self.bytes {
            Ok(bytes) => bytes,
            Err(problem) => return Ok(vec![Problem::lost(problem.clone())]),
        };
        let outline = match &self.outline {
            Ok(outline) => outline,
            Err(problem) => return Ok(vec![Problem::lost(problem.clone())]),
        };
        let mut problems = self.unlike_listed(outline);
        let depth = match depth {
            CheckDepth::Checksums => Depth::Checksums,
            CheckDepth::Records => match BlockKeys::open(&outline.identity, bytes, ring) {
                Ok(keys) => Depth::Records(keys),
                Err(error) => {
                    problems.push(Problem::unchecked(format!(
                        "only stored checksums could be checked: {error}"
                    )));
                    Depth::Checksums
                }
            },
        };
        let findings = verify(bytes, written(&self.file), depth, progress)?;
        problems.extend(findings.iter().map(Problem::from));
        Ok(problems)
    }

    /// Where the file is not what the checkpoint lists.
    fn unlike_listed(&self, outline: &Outline) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let BlockRole::Sealed {
            file_length,
            digest,
            ..
        } = self.file.role
        {
            if file_length != outline.file_length {
                problems.push(Problem::damage(format!(
                    "the checkpoint lists {file_length} bytes, the file has {}",
                    outline.file_length
                )));
            }
            if let Some(footer) = outline.footer
                && footer.digest != digest
            {
                problems.push(Problem::damage(
                    "the footer states another digest than the checkpoint".to_owned(),
                ));
            }
        }
        if let BlockRole::Open { written, .. } = self.file.role
            && outline.file_length < written
        {
            problems.push(Problem::lost(format!(
                "the checkpoint counts {written} bytes, the file has {}",
                outline.file_length
            )));
        }
        problems
    }
}

/// How much of a block is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    Checksums,
    Records,
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Problem {
    pub description: String,
    /// `lost`: messages are unreadable; `damaged`: something is damaged, but every message is readable; `unchecked`: nothing is
    /// known to be wrong, but not everything could be checked.
    pub severity: &'static str,
    /// The sequences that are lost, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<(u64, Option<u64>)>,
}

impl Problem {
    pub fn lost(description: String) -> Self {
        Self {
            description,
            severity: "lost",
            sequences: None,
        }
    }

    pub fn damage(description: String) -> Self {
        Self {
            severity: "damaged",
            ..Self::lost(description)
        }
    }

    pub fn unchecked(description: String) -> Self {
        Self {
            severity: "unchecked",
            ..Self::lost(description)
        }
    }
}

impl From<&Finding> for Problem {
    fn from(finding: &Finding) -> Self {
        let sequences = match finding {
            Finding::Lost(lost) => Some((lost.first_sequence, lost.last_sequence)),
            Finding::Unreadable(error) => {
                error.sequences().map(|(first, last)| (first, Some(last)))
            }
            _ => None,
        };
        Self {
            description: finding.to_string(),
            severity: match finding.loses_records() {
                true => "lost",
                false => "damaged",
            },
            sequences,
        }
    }
}

/// The part of a file that counts.
fn written(file: &BlockFile) -> Option<u64> {
    match file.role {
        BlockRole::Open { written, .. } => Some(written),
        _ => None,
    }
}

fn read(file: &BlockFile) -> Result<Bytes, String> {
    let length = file.length.ok_or("the file is missing")?;
    let length = written(file).map_or(length, |written| written.min(length));
    let opened = RealDisk.open(&file.path, OpenMode::Read);
    opened
        .and_then(|opened| opened.map(length))
        .map_err(|error| error.to_string())
}

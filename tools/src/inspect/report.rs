//! What an inspection found, as JSON has it.

use anyhow::Result;
use serde::Serialize;
use storage::block::format::FooterHeader;
use storage::block::verify::{Outline, Sealing};
use storage::codec::Compression;
use storage::journal::{SegmentSummary, SegmentUnreadable};
use storage::seal::{Cipher, KeyRing};
use storage::store::CheckpointError;
use storage::store::inspect::BlockRole;

use crate::progress::Progress;
use crate::stream::{Block, CheckDepth, LogTail, Problem, Replica, Stream};
use crate::text;

#[derive(Debug, Serialize)]
pub struct Report {
    pub path: String,
    pub kind: &'static str,
    pub streams: Vec<StreamReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<SegmentReport>,
    /// A part of the list of streams is damaged.
    pub catalog_damaged: bool,
    /// A key is needed to see everything.
    pub locked: bool,
}

#[derive(Debug, Serialize)]
pub struct StreamReport {
    pub directory: String,
    pub id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub removing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
    /// Its checkpoint needs a key.
    pub locked: bool,
    pub checkpoint: Option<CheckpointReport>,
    /// Entries after the checkpoint, which are only in the journal.
    pub log: LogTail,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub blocks: Vec<BlockReport>,
}

#[derive(Debug, Serialize)]
pub struct CheckpointReport {
    pub log_index: u64,
    pub messages: u64,
    pub bytes: u64,
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub last_time: String,
    /// Messages that lie in the checkpoint itself because they are in no block yet.
    pub messages_held: usize,
    pub core_bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct BlockReport {
    pub file: String,
    /// What the checkpoint says of it: `sealed`, `open`, `retired`, `unlisted` or `set-aside`; `unknown` without one.
    pub role: &'static str,
    pub file_bytes: Option<u64>,
    #[serde(flatten)]
    pub content: Option<ContentReport>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
pub struct ContentReport {
    pub stream: u64,
    pub number: u64,
    pub generation: u32,
    pub first_sequence: Option<u64>,
    pub last_sequence: Option<u64>,
    pub first_time: Option<String>,
    pub last_time: Option<String>,
    pub records: u64,
    /// `None` when the index cannot be read without a key.
    pub live: Option<u64>,
    pub dead: Option<u64>,
    pub subjects: Option<u32>,
    pub chunks: usize,
    /// Bytes of the chunks' bodies before compression and encryption.
    pub raw_bytes: u64,
    /// Bytes of the chunks in the file.
    pub stored_bytes: u64,
    pub compression: String,
    pub chunks_compressed: usize,
    pub cipher: &'static str,
    /// The master keys that its data keys are wrapped under.
    pub key_ids: Vec<String>,
    pub sealed: bool,
    /// `intact`, `damaged` or `none`.
    pub footer: &'static str,
    /// `intact` or `damaged`: the checksums of everything stored.
    pub checksums: &'static str,
}

#[derive(Debug, Serialize)]
pub struct SegmentReport {
    pub file: String,
    pub number: u64,
    pub bytes: u64,
    pub first_lsn: Option<u64>,
    pub next_lsn: Option<u64>,
    pub commits: Option<u64>,
    pub frames: Option<u64>,
    pub bytes_used: Option<u64>,
    pub key_id: Option<String>,
    /// `full` when a later one follows, `closed`, `open`, `torn tail`, `damaged`, `unreadable`, or `locked` without its key.
    pub state: &'static str,
    pub problems: Vec<String>,
}

impl Report {
    pub fn is_damaged(&self) -> bool {
        let blocks = self.streams.iter().flat_map(|stream| &stream.blocks);
        let damaged = |problem: &Problem| problem.severity != "unchecked";
        self.catalog_damaged
            || self.streams.iter().any(StreamReport::is_damaged)
            || blocks.flat_map(|block| &block.problems).any(damaged)
            || self
                .journal
                .iter()
                .any(|segment| matches!(segment.state, "damaged" | "unreadable"))
    }
}

impl StreamReport {
    fn is_damaged(&self) -> bool {
        self.problem.is_some()
            || !self.log.holes.is_empty()
            || self.log.moved.iter().any(|moved| !moved.intact)
    }

    pub fn new(stream: &Stream, ring: Option<&KeyRing>, progress: &mut Progress) -> Result<Self> {
        let (checkpoint, problem) = match &stream.outline.checkpoint {
            Ok(checkpoint) => (checkpoint.as_ref(), None),
            Err(CheckpointError::KeyMissing(_)) => (None, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let blocks = stream
            .blocks
            .iter()
            .map(|block| BlockReport::new(stream, block, ring, progress))
            .collect::<Result<_>>()?;
        Ok(Self {
            directory: stream.directory.clone(),
            id: stream.id,
            removing: stream.removing,
            replica: stream.replica,
            log: stream.log.clone(),
            account: stream.account.clone(),
            name: stream.name.clone(),
            checkpoint: checkpoint.map(|checkpoint| CheckpointReport {
                log_index: checkpoint.index,
                messages: checkpoint.state.messages,
                bytes: checkpoint.state.bytes,
                first_sequence: checkpoint.state.first_sequence,
                last_sequence: checkpoint.state.last_sequence,
                last_time: text::time(checkpoint.state.last_time_ns),
                messages_held: checkpoint.held.len(),
                core_bytes: checkpoint.core_bytes,
            }),
            problem,
            locked: stream.is_locked(),
            blocks,
        })
    }
}

impl BlockReport {
    fn new(
        stream: &Stream,
        block: &Block,
        ring: Option<&KeyRing>,
        progress: &mut Progress,
    ) -> Result<Self> {
        progress.file(&block.name);
        let problems = block.check(ring, CheckDepth::Checksums, &mut |at| progress.at(at))?;
        progress.done(block.file.length.unwrap_or_default());
        let content = block.outline.as_ref().ok().map(|outline| {
            let live = stream.live_in(block, ring);
            ContentReport::new(outline, live, &problems)
        });
        Ok(Self {
            file: block.name.clone(),
            role: match (&stream.outline.checkpoint, block.file.role) {
                (Err(_) | Ok(None), BlockRole::Unlisted) => "unknown",
                (_, block) => role(block),
            },
            file_bytes: block.file.length,
            content,
            problems,
        })
    }
}

impl ContentReport {
    fn new(outline: &Outline, live: Option<u64>, problems: &[Problem]) -> Self {
        let sequences = outline.sequences();
        let times = outline.times_ns();
        let records = outline.records();
        let key_ids = outline
            .master_keys
            .iter()
            .flatten()
            .map(ToString::to_string);
        let mut key_ids: Vec<String> = key_ids.collect();
        key_ids.dedup();
        let damaged_footer = problems
            .iter()
            .any(|problem| problem.description.contains("footer"));
        Self {
            stream: outline.identity.stream,
            number: outline.identity.number,
            generation: outline.identity.generation,
            first_sequence: sequences.map(|(first, _)| first),
            last_sequence: sequences.map(|(_, last)| last),
            first_time: times.map(|(first, _)| text::time(first)),
            last_time: times.map(|(_, last)| text::time(last)),
            records,
            live,
            dead: live.map(|live| records.saturating_sub(live)),
            subjects: outline.footer.map(|footer: FooterHeader| footer.subjects),
            chunks: outline.chunks.len(),
            raw_bytes: outline.plain_bytes(),
            stored_bytes: outline.stored_bytes(),
            compression: outline.identity.compression.to_string(),
            chunks_compressed: outline.chunks.len() - outline.chunks_with(Compression::None),
            cipher: cipher(outline.identity.cipher),
            key_ids,
            sealed: outline.sealing != Sealing::Open,
            footer: match outline.sealing {
                Sealing::Open => "none",
                Sealing::Sealed if !damaged_footer => "intact",
                Sealing::Sealed | Sealing::Damaged => "damaged",
            },
            checksums: match problems.is_empty() {
                true => "intact",
                false => "damaged",
            },
        }
    }
}

impl SegmentReport {
    /// Of all segments of a journal, ascending.
    pub fn all(segments: &[SegmentSummary]) -> Vec<Self> {
        let newest = segments.last().map(|segment| segment.number);
        let report = |segment| Self::new(segment, newest);
        segments.iter().map(report).collect()
    }

    fn new(segment: &SegmentSummary, newest: Option<u64>) -> Self {
        let name = segment.path.file_name().unwrap_or_default();
        let content = segment.content.as_ref().ok();
        let (state, problems) = match &segment.content {
            Err(SegmentUnreadable::Key(_)) => ("locked", Vec::new()),
            Err(error) => ("unreadable", vec![error.to_string()]),
            Ok(content) if !content.damage.is_empty() => (
                "damaged",
                content
                    .damage
                    .iter()
                    .map(|damage| damage.to_string())
                    .collect(),
            ),
            Ok(content) if content.torn => ("torn tail", Vec::new()),
            Ok(content) if content.closed => ("closed", Vec::new()),
            Ok(_) if newest != Some(segment.number) => ("full", Vec::new()),
            Ok(_) => ("open", Vec::new()),
        };
        Self {
            file: name.to_string_lossy().into_owned(),
            number: segment.number,
            bytes: segment.length,
            first_lsn: content.map(|content| content.first_lsn),
            next_lsn: content.map(|content| content.next_lsn),
            commits: content.map(|content| content.commits),
            frames: content.map(|content| content.frames),
            bytes_used: content.map(|content| content.end),
            key_id: content
                .and_then(|content| content.key)
                .map(|key| key.to_string()),
            state,
            problems,
        }
    }
}

fn role(role: BlockRole) -> &'static str {
    match role {
        BlockRole::Sealed { .. } => "sealed",
        BlockRole::Open { .. } => "open",
        BlockRole::Retired => "retired",
        BlockRole::Unlisted => "unlisted",
        BlockRole::SetAside => "set-aside",
    }
}

pub fn cipher(cipher: Option<Cipher>) -> &'static str {
    match cipher {
        None => "none",
        Some(Cipher::Aes256Gcm) => "aes-256-gcm",
        Some(Cipher::ChaCha20Poly1305) => "chacha20-poly1305",
    }
}

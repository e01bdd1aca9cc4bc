//! Work on files that the owner of a store hands to a pool: chunks written behind, blocks sealed and
//! rewritten, checkpoints made durable.
//!
//! A store has at most one job of its own and one checkpoint out at a time. A job takes along what it needs
//! and shares nothing that changes; the store keeps answering meanwhile, and takes in what the job brings back.
//!
//! # Invariant
//! A checkpoint syncs every file it lists, then the directory, then writes itself, and only when it is
//! durable removes what it no longer lists.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use roaring::RoaringTreemap;

use super::aside::Aside;
use super::checkpoint::CheckpointFile;
use super::cut::{Cut, Extent, Held, ListedBlock, ListedOpen};
use super::files::Ground;
use super::name::BlockName;
use super::part::{Content, Part};
use crate::block::{
    BlockIdentity, BlockOpenError, BlockReadError, BlockWriter, EncodedChunk, OpenBlock, Record,
    SealedBlock, encode_block,
};
use crate::disk::{Advice, DiskError, DiskErrorKind, DiskFile, OpenMode};

/// Chunks are written in runs of at least this much.
const RUN_BYTES: usize = 256 << 10;

/// Why a job failed. The store takes no more changes then.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Block(#[from] BlockOpenError),
}

impl JobError {
    /// As an error of the disk, whatever it was.
    pub fn into_disk_error(self, ground: &Ground) -> DiskError {
        match self {
            Self::Disk(error) | Self::Block(BlockOpenError::Disk(error)) => error,
            Self::Block(error) => DiskError {
                operation: "write block",
                path: ground.directory.clone(),
                kind: DiskErrorKind::Io(error.to_string()),
            },
        }
    }
}

/// Work for a pool thread.
pub(super) struct Job {
    pub ground: Arc<Ground>,
    pub epoch: u64,
    pub work: Work,
}

pub(super) enum Work {
    Flush(Flush),
    Seal(Seal),
    Rewrite(Rewrite),
    Save(Box<Save>),
}

/// What a job brings back.
pub(super) struct Completed {
    pub epoch: u64,
    pub is_checkpoint: bool,
    pub done: Result<Done, JobError>,
}

pub(super) enum Done {
    Flushed(Box<Flushed>),
    Sealed(SealedFile),
    Rewritten(Option<Rewritten>),
    Saved(Box<Saved>),
}

impl Job {
    /// Does the work. Blocks on the disk.
    fn execute(self) -> Completed {
        Completed {
            epoch: self.epoch,
            is_checkpoint: matches!(self.work, Work::Save(_)),
            done: self.work.execute(&self.ground),
        }
    }
}

impl Work {
    fn execute(self, ground: &Ground) -> Result<Done, JobError> {
        ground.prepare()?;
        Ok(match self {
            Self::Flush(flush) => Done::Flushed(Box::new(flush.execute(ground)?)),
            Self::Seal(seal) => Done::Sealed(seal.execute(ground)?),
            Self::Rewrite(rewrite) => Done::Rewritten(rewrite.execute(ground)?),
            Self::Save(save) => Done::Saved(Box::new(save.execute(ground)?)),
        })
    }
}

/// Where a job is, from the moment it is handed out until what it brings back is taken in.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    done: AtomicBool,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Queued(Job),
    Running,
    Done(Completed),
}

impl Slot {
    pub fn put(&self, job: Job) {
        *self.state.lock() = State::Queued(job);
    }

    /// Executes the job, unless that has been done already. Says why it failed, if it did.
    pub fn run(&self) -> Result<(), JobError> {
        let mut state = self.state.lock();
        let job = match std::mem::replace(&mut *state, State::Running) {
            State::Queued(job) => job,
            other => {
                *state = other;
                return Ok(());
            }
        };
        drop(state);
        let completed = job.execute();
        let result = completed.done.as_ref().map(|_| ()).map_err(Clone::clone);
        let mut state = self.state.lock();
        *state = State::Done(completed);
        // Before anybody can find it done: who looks at the state next takes it.
        self.done.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// What the job brought back, if it is done.
    pub fn take(&self) -> Option<Completed> {
        if !self.done.swap(false, Ordering::Acquire) {
            return None;
        }
        match std::mem::take(&mut *self.state.lock()) {
            State::Done(completed) => Some(completed),
            _ => None,
        }
    }

    /// What the job brought back: executes it here if nobody has begun, and waits if somebody has.
    pub fn finish(&self) -> Option<Completed> {
        // How it went comes with what it brought back.
        let _ = self.run();
        let mut state = self.state.lock();
        while matches!(*state, State::Running) {
            self.changed.wait(&mut state);
        }
        drop(state);
        self.take()
    }
}

/// Writes messages to the open block as whole chunks.
pub(super) struct Flush {
    pub name: BlockName,
    /// `None` begins a new block.
    pub open: Option<(BlockWriter, Arc<dyn DiskFile>)>,
    pub messages: Vec<Held>,
    pub block_bytes: u64,
}

pub(super) struct Flushed {
    pub name: BlockName,
    pub writer: BlockWriter,
    pub file: Arc<dyn DiskFile>,
    /// Of a block that was begun.
    pub begun: Option<OpenBlock>,
    pub chunks: Vec<EncodedChunk>,
    /// What was written, ascending.
    pub sequences: Vec<u64>,
    pub full: bool,
}

impl Flush {
    fn execute(self, ground: &Ground) -> Result<Flushed, JobError> {
        let (mut writer, file, begun) = match self.open {
            Some((writer, file)) => (writer, file, None),
            None => {
                let options = &ground.options;
                let identity = BlockIdentity {
                    stream: options.stream,
                    number: self.name.number,
                    generation: self.name.generation,
                    first_sequence: self.messages.first().map_or(1, |held| held.sequence),
                    cipher: options.cipher,
                    compression: options.compression,
                };
                let ring = options.ring.as_deref();
                let (writer, start) = BlockWriter::create(identity, ring, &*options.entropy)?;
                let path = ground.directory.join(self.name.file_name());
                let file = ground.disk.open(&path, OpenMode::CreateNew)?;
                file.write_all_at(&start.bytes, start.offset)?;
                let begun = OpenBlock::new(&writer, file.clone());
                (writer, file, Some(begun))
            }
        };
        let mut sequences = Vec::with_capacity(self.messages.len());
        let mut chunks = Vec::new();
        let mut run = Vec::new();
        let mut run_bytes = 0;
        let mut full = false;
        for held in &self.messages {
            writer.push(&held.as_new());
            sequences.push(held.sequence);
            for chunk in writer.take_chunks() {
                run_bytes += chunk.bytes.len();
                run.push(chunk);
            }
            if run_bytes >= RUN_BYTES {
                write_run(&*file, &mut run, &mut chunks)?;
                run_bytes = 0;
            }
            full = writer.file_length() >= self.block_bytes;
            if full {
                break;
            }
        }
        writer.close_chunk();
        run.extend(writer.take_chunks());
        write_run(&*file, &mut run, &mut chunks)?;
        Ok(Flushed {
            name: self.name,
            writer,
            file,
            begun,
            chunks,
            sequences,
            full,
        })
    }
}

/// Writes chunks that follow one another in the file.
fn write_run(
    file: &dyn DiskFile,
    run: &mut Vec<EncodedChunk>,
    written: &mut Vec<EncodedChunk>,
) -> Result<(), DiskError> {
    let Some(first) = run.first() else {
        return Ok(());
    };
    let offset = first.placed.offset;
    let slices: Vec<IoSlice<'_>> = run.iter().map(|chunk| IoSlice::new(&chunk.bytes)).collect();
    let length: usize = run.iter().map(|chunk| chunk.bytes.len()).sum();
    file.write_vectored_at(&slices, offset)?;
    file.advise(offset, length as u64, Advice::StartWriteback);
    written.append(run);
    Ok(())
}

/// Ends the open block with its footer.
pub(super) struct Seal {
    pub writer: BlockWriter,
    pub block: Arc<OpenBlock>,
    pub file: Arc<dyn DiskFile>,
}

pub(super) struct SealedFile {
    pub block: SealedBlock,
    pub file: Arc<dyn DiskFile>,
}

impl Seal {
    fn execute(self, ground: &Ground) -> Result<SealedFile, JobError> {
        let footer = self.writer.seal(&self.block);
        let end = footer.offset + footer.bytes.len() as u64;
        self.file.write_all_at(&footer.bytes, footer.offset)?;
        if self.file.length()? > end {
            // Left over from before a restart, behind the cut that the block was continued at; the log has it.
            self.file.set_length(end)?;
        }
        let (disk, path) = (ground.disk.clone(), self.file.path().to_owned());
        let block = SealedBlock::open_file(disk, path, end, ground.options.ring.as_deref())?;
        Ok(SealedFile {
            block,
            file: self.file,
        })
    }
}

/// Writes what is live in some neighbouring blocks to one new block.
pub(super) struct Rewrite {
    pub inputs: Vec<Part>,
    pub name: BlockName,
    /// What is dead within the inputs.
    pub dead: RoaringTreemap,
    /// Nothing below is live.
    pub first: u64,
}

pub(super) struct Rewritten {
    pub inputs: Vec<BlockName>,
    pub dead: RoaringTreemap,
    pub name: BlockName,
    /// `None` when nothing was live any more.
    pub output: Option<SealedFile>,
}

impl Rewrite {
    /// `None` when something live could not be read: then the blocks stay as they are.
    fn execute(self, ground: &Ground) -> Result<Option<Rewritten>, JobError> {
        let options = &ground.options;
        let mut live = Vec::new();
        for part in &self.inputs {
            if let Err(error) = self.collect(part, ground, &mut live) {
                tracing::error!(
                    directory = %ground.directory.display(),
                    block = %part.name.file_name(),
                    %error,
                    "a block cannot be rewritten"
                );
                return Ok(None);
            }
        }
        let inputs = self.inputs.iter().map(|part| part.name).collect();
        let rewritten = |output| Rewritten {
            inputs,
            dead: self.dead,
            name: self.name,
            output,
        };
        let Some(first) = live.first() else {
            return Ok(Some(rewritten(None)));
        };
        let identity = BlockIdentity {
            stream: options.stream,
            number: self.name.number,
            generation: self.name.generation,
            first_sequence: first.message.sequence,
            cipher: options.cipher,
            compression: options.compression,
        };
        let ring = options.ring.as_deref();
        let messages = live.iter().map(Record::as_new);
        let bytes = encode_block(identity, ring, &*options.entropy, messages)?;
        let path = ground.directory.join(self.name.file_name());
        let file = ground.disk.open(&path, OpenMode::CreateNew)?;
        let mut offset = 0;
        for run in bytes.chunks(4 * RUN_BYTES) {
            file.write_all_at(run, offset)?;
            file.advise(offset, run.len() as u64, Advice::StartWriteback);
            offset += run.len() as u64;
        }
        let block = SealedBlock::open_file(ground.disk.clone(), path, offset, ring)?;
        Ok(Some(rewritten(Some(SealedFile { block, file }))))
    }

    fn collect(&self, part: &Part, ground: &Ground, live: &mut Vec<Record>) -> Result<(), String> {
        let mut failure = None;
        let mut visit = |record: Result<Record, BlockReadError>| {
            match record {
                Ok(record) => {
                    let sequence = record.message.sequence;
                    if sequence > part.last {
                        return false;
                    }
                    if !self.dead.contains(sequence) {
                        live.push(record);
                    }
                }
                Err(error) => {
                    let (first, last) = error.sequences().unwrap_or((0, u64::MAX));
                    let range = first.max(part.first).max(self.first)..=last.min(part.last);
                    let sequences = range.end().saturating_add(1).saturating_sub(*range.start());
                    if sequences > 0 && self.dead.range_cardinality(range) < sequences {
                        failure = Some(error.to_string());
                        return false;
                    }
                }
            }
            true
        };
        let from = part.first.max(self.first);
        let cache = &ground.options.cache;
        match &part.content {
            Content::Sealed(block) if !block.lost().is_empty() => {
                return Err("part of it is lost".into());
            }
            Content::Sealed(block) => block.for_each(from, cache, &mut visit),
            Content::Open(block) if !block.lost().is_empty() => {
                return Err("part of it is lost".into());
            }
            Content::Open(block) => block.for_each(from, cache, &mut visit),
            Content::Lost(reason) => return Err(reason.to_string()),
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Makes a cut durable.
pub(super) struct Save {
    /// What must be gone from the files before the cut is durable.
    pub erasures: Vec<Rewrite>,
    /// Writes what the cut would otherwise hold itself.
    pub flush: Option<Flush>,
    pub cut: Cut,
    pub files: Vec<Arc<dyn DiskFile>>,
    pub names: bool,
    pub checkpoint: Option<CheckpointFile>,
    /// Files that the cut makes useless.
    pub aside: Option<Aside>,
}

pub(super) struct Saved {
    pub erased: Vec<Rewritten>,
    pub flushed: Option<Flushed>,
    pub checkpoint: CheckpointFile,
}

impl Save {
    fn execute(mut self, ground: &Ground) -> Result<Saved, JobError> {
        let mut erased = Vec::new();
        for erasure in std::mem::take(&mut self.erasures) {
            if let Some(rewritten) = erasure.execute(ground)? {
                self.replace(&rewritten);
                erased.push(rewritten);
            }
        }
        let flushed = match self.flush.take() {
            Some(flush) => Some(flush.execute(ground)?),
            None => None,
        };
        if let Some(flushed) = &flushed {
            self.move_to_block(flushed);
        }
        for file in &self.files {
            file.sync_data()?;
        }
        if self.names {
            ground.disk.sync_directory(&ground.directory)?;
        }
        let options = &ground.options;
        let checkpoint = match (self.checkpoint, self.cut.extent) {
            (Some(mut checkpoint), Extent::Changes) => {
                checkpoint.append(&self.cut)?;
                checkpoint
            }
            _ => CheckpointFile::create(
                &*ground.disk,
                &ground.directory,
                options.stream,
                options.ring.as_deref().zip(options.cipher),
                &*options.entropy,
                &self.cut,
            )?,
        };
        remove_retired(ground, &self.cut.retired)?;
        if let Some(aside) = self.aside {
            aside.remove(ground);
        }
        Ok(Saved {
            erased,
            flushed,
            checkpoint,
        })
    }

    /// Lists what a rewrite made instead of what it was made of.
    fn replace(&mut self, rewritten: &Rewritten) {
        let sealed = &mut self.cut.sealed;
        let replaced = |name: &BlockName| rewritten.inputs.contains(name);
        let Some(at) = sealed.iter().position(|block| replaced(&block.name)) else {
            return;
        };
        sealed.retain(|block| !replaced(&block.name));
        if let Some(output) = &rewritten.output {
            let summary = output.block.summary();
            sealed.insert(
                at,
                ListedBlock {
                    name: rewritten.name,
                    first: summary.first_sequence,
                    last: summary.last_sequence,
                    file_length: output.block.file_length(),
                    records: summary.records,
                    digest: summary.digest,
                },
            );
            self.files.push(output.file.clone());
            self.names = true;
        }
        self.cut.dead -= &rewritten.dead;
        self.cut.retired.extend(&rewritten.inputs);
    }

    /// Lists as written to the open block what the cut would otherwise hold.
    fn move_to_block(&mut self, flushed: &Flushed) {
        let Some((&first, &last)) = flushed.sequences.first().zip(flushed.sequences.last()) else {
            return;
        };
        let Some(written) = flushed.chunks.last().map(|chunk| chunk.placed.end()) else {
            return;
        };
        add_file(&mut self.files, flushed.file.clone());
        self.names |= flushed.begun.is_some();
        let open = self.cut.open.get_or_insert(ListedOpen {
            name: flushed.name,
            written,
            first,
            last,
        });
        open.written = written;
        open.last = last;
        // What did not fit the block stays in the cut.
        self.cut.held.retain(|held| held.sequence > last);
    }
}

/// Adds a file to those that are to be synced, each of which is synced once however often it was written.
pub(super) fn add_file(files: &mut Vec<Arc<dyn DiskFile>>, file: Arc<dyn DiskFile>) {
    if !files.iter().any(|known| Arc::ptr_eq(known, &file)) {
        files.push(file);
    }
}

/// Removes files that a durable checkpoint says are no longer needed.
pub(super) fn remove_retired(ground: &Ground, retired: &[BlockName]) -> Result<(), DiskError> {
    for name in retired {
        match ground
            .disk
            .remove_file(&ground.directory.join(name.file_name()))
        {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if !retired.is_empty() {
        // So that what was erased does not come back with a name that was not yet gone.
        ground.disk.sync_directory(&ground.directory)?;
    }
    Ok(())
}

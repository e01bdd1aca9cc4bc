//! Which job comes next, and what becomes of what it brings back.

use std::sync::Arc;

use super::cut::Held;
use super::files::{Files, Open, Writer};
use super::job::{
    Completed, Done, Flush, Flushed, Job, Rewrite, Rewritten, Seal, SealedFile, Work, add_file,
};
use super::name::BlockName;
use super::part::{Content, Part};
use super::{FileOptions, FileStore};
use crate::block::{BlockOpenError, BlockWriter, SealedBlock};
use crate::index::ExpiryQueue;
use crate::store::shelf::Shelf;
use crate::store::{ChangeError, Expiry, Limits};

/// One flush takes along this much, so that taking it along is quick however much there is.
const FLUSH_BYTES_MAX: usize = 8 << 20;
/// A block is worth rewriting when at least this part of it is dead.
const DEAD_FRACTION: u64 = 2;

impl FileStore {
    /// Has messages written to blocks until at most so many bytes of them are in memory only. Waits for the disk, and is for who brings
    /// messages faster than a journal would take them.
    pub fn relieve(&mut self, bytes_max: usize) -> Result<(), ChangeError> {
        loop {
            self.shelf.look_after(&self.limits, &self.expiry);
            self.shelf.check()?;
            if self.shelf.tail_bytes <= bytes_max || !self.shelf.finish_job() {
                return Ok(());
            }
        }
    }

    /// Ends the open block if it has at least so many bytes, so that the next start finds its footer and need not read all of it. For the time before a last
    /// checkpoint; waits for the disk. Whoever goes on afterwards begins another block.
    pub fn end_open_block(&mut self, bytes_min: u64) {
        let files = &mut self.shelf;
        if files.ground.read_only {
            return;
        }
        files.take_in();
        files.finish_job();
        let is_long = |files: &Files| {
            let open = files.open.as_ref();
            open.is_some_and(|open| open.part.file_length >= bytes_min)
        };
        if files.failed.is_some() || !is_long(files) {
            return;
        }
        if let Some(flush) = files.flush(&self.limits, &self.expiry) {
            files.send(Work::Flush(flush));
            files.finish_job();
        }
        if let Some(open) = &mut files.open {
            open.closing = true;
        }
        if let Some(work) = files.seal() {
            files.send(work);
            files.finish_job();
        }
    }
}

impl Files {
    /// Waits for the job that is out; `false` when there is none.
    fn finish_job(&mut self) -> bool {
        if !self.job_out {
            return false;
        }
        let Some(completed) = self.job.finish() else {
            return false;
        };
        self.job_out = false;
        self.completed(completed);
        true
    }

    /// Takes in what is done, and hands out what is due.
    pub(super) fn look_after(&mut self, limits: &Limits, expiry: &ExpiryQueue) {
        if self.ground.read_only {
            return;
        }
        self.take_in();
        let flush_due = !self.flushing && self.tail_bytes >= self.ground.options.flush_bytes;
        if self.job_out || self.failed.is_some() || !(flush_due || self.attention) {
            return;
        }
        self.attention = false;
        self.removals = 0;
        if let Some(work) = self.due(flush_due, limits, expiry) {
            self.send(work);
        }
    }

    /// Takes in what is done.
    pub(super) fn take_in(&mut self) {
        if self.job_out
            && let Some(completed) = self.job.take()
        {
            self.job_out = false;
            self.completed(completed);
        }
        if self.save_out
            && let Some(completed) = self.save.take()
        {
            self.save_out = false;
            self.completed(completed);
        }
    }

    fn due(&mut self, flush_due: bool, limits: &Limits, expiry: &ExpiryQueue) -> Option<Work> {
        if let Some(work) = self.seal() {
            return Some(work);
        }
        // One at a time: a checkpoint that is out may be erasing.
        if !self.save_out
            && let Some(erase) = self.erase()
        {
            return Some(Work::Rewrite(erase));
        }
        if flush_due && let Some(flush) = self.flush(limits, expiry) {
            return Some(Work::Flush(flush));
        }
        match self.save_out {
            true => None,
            false => self.merge(limits).map(Work::Rewrite),
        }
    }

    fn send(&mut self, work: Work) {
        self.job.put(Job {
            ground: self.ground.clone(),
            epoch: self.epoch,
            work,
        });
        self.job_out = true;
        let slot = self.job.clone();
        let run = move || {
            // How it went is seen when it is taken in.
            let _ = slot.run();
        };
        self.ground.options.background.spawn(Box::new(run));
    }

    /// Rewrites for everything that was erased and is still in a file.
    pub(super) fn erasures(&mut self) -> Vec<Rewrite> {
        let is_erasing = |files: &Self| {
            files.sealed.iter().any(|part| part.erase)
                || files.open.as_ref().is_some_and(|open| open.part.erase)
        };
        while (is_erasing(self) || !self.erased.is_empty()) && self.finish_job() {}
        if self.open.as_ref().is_some_and(|open| open.part.erase)
            && let Some(work) = self.seal()
        {
            let rewrites = matches!(work, Work::Rewrite(_));
            self.send(work);
            self.finish_job();
            if rewrites {
                return self.erasures();
            }
        }
        let mut erasures = Vec::new();
        while let Some(erase) = self.erase() {
            erasures.push(erase);
        }
        erasures
    }

    /// The live messages of the tail, from the first on, until they have `bytes_max` bytes.
    pub(super) fn held(&self, bytes_max: usize, expiry: &ExpiryQueue) -> Vec<Held> {
        let slots = self.tail.slots_from(0).filter(|slot| slot.is_live());
        let mut bytes = 0;
        slots
            .take_while(|slot| {
                let fits = bytes < bytes_max;
                bytes += slot.body().0.len();
                fits
            })
            .map(|slot| {
                let (body, subject_bytes, headers_bytes) = slot.body();
                Held {
                    sequence: slot.sequence,
                    time_ns: slot.time_ns,
                    expiry: match expiry.is_empty() {
                        true => Expiry::ByAge,
                        false => expiry.get(slot.sequence),
                    },
                    body: body.clone(),
                    subject_bytes,
                    headers_bytes,
                }
            })
            .collect()
    }

    /// Writes the tail to the open block, or to a new one. Not when that is being done already, and not to a block that
    /// is to be sealed.
    pub(super) fn flush(&mut self, limits: &Limits, expiry: &ExpiryQueue) -> Option<Flush> {
        if self.flushing || self.tail.live() == 0 {
            return None;
        }
        let block_bytes = self.block_bytes(limits);
        let messages = self.held(FLUSH_BYTES_MAX, expiry);
        let (name, open) = match &mut self.open {
            Some(open) if open.closing => return None,
            Some(open) => {
                if matches!(open.writer, Writer::None)
                    && resume(open, &self.ground.options).is_err()
                {
                    open.closing = true;
                    self.attention = true;
                    return None;
                }
                let writer = open.writer.take()?;
                (open.part.name, Some((*writer, open.file.clone())))
            }
            None => {
                let number = self.next_number;
                self.next_number += 1;
                let generation = 0;
                (BlockName { number, generation }, None)
            }
        };
        self.flushing = true;
        Some(Flush {
            name,
            open,
            messages,
            block_bytes,
        })
    }

    /// Ends the open block, when that is due. One that was found at the start gets a writer first; where that is not possible
    /// it is rewritten.
    fn seal(&mut self) -> Option<Work> {
        if self.flushing {
            return None;
        }
        let open = self.open.as_mut()?;
        if !open.closing {
            return None;
        }
        if matches!(open.writer, Writer::None) {
            match resume(open, &self.ground.options) {
                Ok(()) => {}
                Err(BlockOpenError::Disk(error)) => {
                    self.failed = Some(error.to_string());
                    return None;
                }
                Err(error) => {
                    let block = open.part.name.file_name();
                    tracing::warn!(block, %error, "rewriting a block that cannot be continued");
                    open.part.erase = false;
                    let part = open.part.clone();
                    return Some(Work::Rewrite(self.rewrite(vec![part])));
                }
            }
        }
        let block = open.block()?.clone();
        let writer = *open.writer.take()?;
        let file = open.file.clone();
        Some(Work::Seal(Seal {
            writer,
            block,
            file,
        }))
    }

    fn erase(&mut self) -> Option<Rewrite> {
        let part = self.sealed.iter_mut().find(|part| part.erase)?;
        part.erase = false;
        let part = part.clone();
        Some(self.rewrite(vec![part]))
    }

    fn rewrite(&mut self, inputs: Vec<Part>) -> Rewrite {
        let name = inputs.first().map_or(
            BlockName {
                number: self.next_number,
                generation: 0,
            },
            |part| BlockName {
                number: part.name.number,
                generation: part.name.generation + 1,
            },
        );
        let mut dead = self.dead.clone();
        if let (Some(first), Some(last)) = (inputs.first(), inputs.last()) {
            dead.remove_range(..first.first);
            if let Some(above) = last.last.checked_add(1) {
                dead.remove_range(above..);
            }
        }
        Rewrite {
            inputs,
            name,
            dead,
            first: self.first,
        }
    }

    /// The first block that is mostly dead, with as many neighbours as fit one block together.
    fn merge(&mut self, limits: &Limits) -> Option<Rewrite> {
        let files = &*self;
        if files.dead.is_empty() {
            return None;
        }
        let live_bytes = |part: &Part| {
            let records = u64::from(part.records.max(1));
            let dead = files.dead_within(part).min(records);
            let bytes = u128::from(part.file_length) * u128::from(records - dead);
            (bytes / u128::from(records)) as u64
        };
        let readable = |part: &Part| matches!(&part.content, Content::Sealed(block) if block.lost().is_empty());
        let middle = files.sealed.iter().position(|part| {
            readable(part)
                && !part.keep
                && files.dead_within(part) * DEAD_FRACTION >= u64::from(part.records)
        })?;
        let block_bytes = files.block_bytes(limits);
        let (mut start, mut end) = (middle, middle + 1);
        let mut bytes = files.sealed.get(middle).map(live_bytes)?;
        loop {
            let before = start.checked_sub(1).and_then(|at| files.sealed.get(at));
            let after = files.sealed.get(end);
            let fits = |part: &&Part| {
                readable(part) && !part.keep && bytes + live_bytes(part) <= block_bytes
            };
            if let Some(part) = before.filter(fits) {
                bytes += live_bytes(part);
                start -= 1;
            } else if let Some(part) = after.filter(fits) {
                bytes += live_bytes(part);
                end += 1;
            } else {
                break;
            }
        }
        let inputs = files.sealed.get(start..end)?.to_vec();
        Some(self.rewrite(inputs))
    }

    /// Takes in what a job brought back. After a failure the store takes no more changes, unless everything was cleared while
    /// the job was out: a checkpoint may have removed the files that it works on.
    fn completed(&mut self, completed: Completed) {
        let current = completed.epoch == self.epoch;
        match completed.done {
            Err(error) if !current && !completed.is_checkpoint => {
                tracing::debug!(directory = %self.ground.directory.display(), %error, "a job on cleared blocks failed");
            }
            Err(error) => {
                tracing::error!(directory = %self.ground.directory.display(), %error, "a stream's files cannot be written");
                self.failed = Some(error.to_string());
            }
            Ok(Done::Flushed(flushed)) => self.take_flushed(*flushed, current),
            Ok(Done::Sealed(sealed)) if current => self.take_sealed(sealed),
            // What was sealed is retired already.
            Ok(Done::Sealed(_)) => {}
            Ok(Done::Rewritten(Some(rewritten))) => self.take_rewritten(rewritten, current),
            Ok(Done::Rewritten(None)) => {}
            Ok(Done::Saved(saved)) => {
                self.has_checkpoint = true;
                self.checkpoint = Some(saved.checkpoint);
                if let Some(flushed) = saved.flushed {
                    self.take_flushed(flushed, current);
                }
                for rewritten in saved.erased {
                    self.take_rewritten(rewritten, current);
                }
            }
        }
        self.attention = true;
        if self.is_busy() {
            return;
        }
        self.erased.clear();
        // What had to wait until nothing is out.
        if let Some(last) = self.truncated.take() {
            self.truncate_blocks(last);
        }
        self.first_moved(self.first);
    }
}

fn resume(open: &mut Open, options: &FileOptions) -> Result<(), BlockOpenError> {
    let Content::Open(block) = &mut open.part.content else {
        return Ok(());
    };
    let Some(block) = Arc::get_mut(block) else {
        return Ok(());
    };
    let (writer, slot) = BlockWriter::resume(block, options.ring.as_deref(), &*options.entropy)?;
    if let Some(slot) = slot {
        open.file.write_all_at(&slot.bytes, slot.offset)?;
    }
    open.writer = Writer::Here(Box::new(writer));
    Ok(())
}

pub(super) fn sealed_part(name: BlockName, block: SealedBlock) -> Part {
    let summary = *block.summary();
    Part {
        name,
        first: summary.first_sequence,
        last: summary.last_sequence,
        records: summary.records,
        file_length: block.file_length(),
        digest: summary.digest,
        dense: summary.last_sequence.saturating_sub(summary.first_sequence) + 1
            == u64::from(summary.records),
        content: Content::Sealed(Arc::new(block)),
        erase: false,
        keep: false,
    }
}

impl Files {
    fn take_flushed(&mut self, flushed: Flushed, current: bool) {
        let Flushed {
            name,
            writer,
            file,
            begun,
            chunks,
            sequences,
            full,
        } = flushed;
        if !current {
            // Cleared meanwhile. A block that was open then is retired already.
            if begun.is_some() {
                self.unsaved.retired.push(name);
            }
            return;
        }
        self.flushing = false;
        let (Some(&first), Some(&last)) = (sequences.first(), sequences.last()) else {
            if let Some(open) = &mut self.open {
                open.writer = Writer::Here(Box::new(writer));
            }
            return;
        };
        if let Some(block) = begun {
            self.unsaved.names = true;
            self.open = Some(Open {
                part: Part {
                    name,
                    first,
                    last: first - 1,
                    records: 0,
                    file_length: 0,
                    digest: [0; 32],
                    content: Content::Open(Arc::new(block)),
                    dense: false,
                    erase: false,
                    keep: false,
                },
                writer: Writer::Out,
                file: file.clone(),
                closing: false,
            });
        }
        let Some(open) = &mut self.open else {
            return;
        };
        let Content::Open(block) = &mut open.part.content else {
            return;
        };
        let Some(block) = Arc::get_mut(block) else {
            self.failed = Some("the open block is still in use by a job that is done".into());
            return;
        };
        for chunk in &chunks {
            block.absorb(chunk);
        }
        open.part.records = block.records();
        open.part.file_length = block.written_length();
        open.writer = Writer::Here(Box::new(writer));
        open.closing |= full || self.truncated.is_some();
        let last = self.truncated.map_or(last, |truncated| last.min(truncated));
        open.part.last = open.part.last.max(last);
        if sequences
            .iter()
            .any(|sequence| self.erased.contains(sequence))
        {
            open.part.erase = true;
            open.closing = true;
        }
        add_file(&mut self.unsaved.files, file);
        for sequence in sequences {
            if sequence <= last && sequence >= self.first && !self.tail.is_live(sequence) {
                self.dead.insert(sequence);
                self.unsaved.dead.insert(sequence);
            }
        }
        let freed = self.tail.forget_upto(last);
        self.tail_bytes = self.tail_bytes.saturating_sub(freed);
    }

    fn take_sealed(&mut self, sealed: SealedFile) {
        let Some(open) = self.open.take() else {
            return;
        };
        add_file(&mut self.unsaved.files, sealed.file);
        let mut part = sealed_part(open.part.name, sealed.block);
        part.first = open.part.first;
        part.last = open.part.last;
        part.erase = open.part.erase;
        let emptied = part.first > part.last;
        match emptied {
            true => self.retire(&part),
            false => self.sealed.push(part),
        }
    }

    fn take_rewritten(&mut self, rewritten: Rewritten, current: bool) {
        if !current {
            if rewritten.output.is_some() {
                self.unsaved.retired.push(rewritten.name);
            }
            return;
        }
        let replaced = |name: BlockName| rewritten.inputs.contains(&name);
        if self
            .open
            .as_ref()
            .is_some_and(|open| replaced(open.part.name))
            && let Some(open) = self.open.take()
        {
            self.sealed.push(open.part);
        }
        let Some(at) = self.sealed.iter().position(|part| replaced(part.name)) else {
            if rewritten.output.is_some() {
                self.unsaved.retired.push(rewritten.name);
            }
            return;
        };
        let mut erase = false;
        let mut clamp = (u64::MAX, 0);
        self.sealed.retain(|part| {
            if replaced(part.name) {
                erase |= part.erase;
                clamp = (clamp.0.min(part.first), clamp.1.max(part.last));
                self.unsaved.retired.push(part.name);
            }
            !replaced(part.name)
        });
        let mut dead = rewritten.dead;
        if let Some(above) = self.truncated.and_then(|last| last.checked_add(1)) {
            // Those sequences may be in use again.
            dead.remove_range(above..);
        }
        self.dead -= dead;
        self.unsaved.whole = true;
        if let Some(output) = rewritten.output {
            add_file(&mut self.unsaved.files, output.file);
            self.unsaved.names = true;
            let mut part = sealed_part(rewritten.name, output.block);
            part.first = part.first.max(clamp.0);
            part.last = part.last.min(clamp.1);
            part.erase = erase;
            self.sealed.insert(at, part);
        }
    }

    /// Whether everything in a block is dead.
    pub(super) fn is_empty_part(&self, part: &Part) -> bool {
        part.count(self.first, u64::MAX, self.everything(), self.cache()) == self.dead_within(part)
    }
}

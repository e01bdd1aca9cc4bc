//! Which job comes next, and what becomes of what it brings back.

use std::sync::Arc;

use super::cut::{Cut, Extent, Held, ListedBlock, ListedOpen};
use super::files::{Files, Open, Running, Unsaved};
use super::job::{
    Completed, Done, Flush, Flushed, Job, Rewrite, Rewritten, Save, Seal, SealedFile, Work,
};
use super::name::BlockName;
use super::part::{Content, Part};
use super::{FREEZE_TAIL_BYTES_MAX, FileStore, Purpose};
use crate::block::{BlockOpenError, BlockWriter, SealedBlock};
use crate::filter::Filter;
use crate::store::shelf::Shelf;
use crate::store::{ChangeError, Expiry};

/// A block is worth rewriting when at least this part of it is dead.
const DEAD_FRACTION: u64 = 2;

impl FileStore {
    /// Work that is due, to be executed on a pool thread and given back to [`Self::completed`]. `None` when nothing is due or a
    /// job is out.
    pub fn next_job(&mut self, purpose: Purpose) -> Option<Job> {
        if self.shelf.running == Running::Job || self.shelf.failed.is_some() {
            return None;
        }
        let work = self
            .seal()
            .or_else(|| self.erase())
            .or_else(|| self.flush(purpose))
            .or_else(|| match purpose {
                Purpose::Background => self.merge(),
                Purpose::Checkpoint => None,
            })?;
        Some(self.send(work))
    }

    fn send(&mut self, work: Work) -> Job {
        self.shelf.running = Running::Job;
        Job {
            ground: self.shelf.ground.clone(),
            epoch: self.shelf.epoch,
            work,
        }
    }

    /// Freezes the store as it is after the log entry `index`, together with the stream core's own state. `None` when that must
    /// wait: for a job that is out, or for work that [`Self::next_job`] has.
    pub fn freeze(&mut self, index: u64, core: bytes::Bytes) -> Option<Job> {
        let files = &self.shelf;
        let erasing = files.sealed.iter().any(|part| part.erase)
            || files.open.as_ref().is_some_and(|open| open.part.erase);
        if files.running == Running::Job
            || files.failed.is_some()
            || erasing
            || files.tail_bytes > FREEZE_TAIL_BYTES_MAX
        {
            return None;
        }
        let carried = !files.has_checkpoint
            && files.open.is_none()
            && files.sealed.is_empty()
            && files.unsaved.retired.is_empty();
        let overgrown = files
            .checkpoint
            .as_ref()
            .is_none_or(|file| file.is_overgrown());
        let whole = carried || overgrown || files.unsaved.whole;
        let cut = self.cut(
            index,
            core,
            if whole {
                Extent::Whole
            } else {
                Extent::Changes
            },
        );
        let unsaved = std::mem::take(&mut self.shelf.unsaved);
        if carried {
            // What is only carried is not in the file that a later cut would say changes to.
            self.shelf.unsaved.whole = true;
        }
        let Unsaved { files, names, .. } = unsaved;
        let save = Save {
            cut,
            files,
            names,
            checkpoint: self.shelf.checkpoint.take(),
            carried,
        };
        Some(self.send(Work::Checkpoint(Box::new(save))))
    }

    fn cut(&self, index: u64, core: bytes::Bytes, extent: Extent) -> Cut {
        let files = &self.shelf;
        let (dead, expiries) = match extent {
            Extent::Whole => {
                let mut dead = files.dead.clone();
                dead.remove_range(..files.first);
                let at = self.expiry.deadlines();
                let expiries = at.map(|(sequence, time_ns)| (sequence, Expiry::At(time_ns)));
                let never = self.expiry.never().iter();
                (
                    dead,
                    expiries
                        .chain(never.map(|sequence| (sequence, Expiry::Never)))
                        .collect(),
                )
            }
            Extent::Changes => (files.unsaved.dead.clone(), files.unsaved.expiries.clone()),
        };
        Cut {
            extent,
            index,
            totals: self.totals,
            next_number: files.next_number,
            limits: self.limits,
            sealed: files.sealed.iter().map(listed).collect(),
            open: files.open.as_ref().map(|open| ListedOpen {
                name: open.part.name,
                written: open.block().map_or(0, |block| block.written_length()),
                first: open.part.first,
                last: open.part.last,
            }),
            retired: files.unsaved.retired.clone(),
            dead,
            expiries,
            held: self.held(),
            core,
        }
    }

    /// The live messages of the tail.
    fn held(&self) -> Vec<Held> {
        let slots = self.shelf.tail.slots_from(0).filter(|slot| slot.is_live());
        slots
            .map(|slot| {
                let (body, subject_bytes, headers_bytes) = slot.body();
                Held {
                    sequence: slot.sequence,
                    time_ns: slot.time_ns,
                    expiry: match self.expiry.is_empty() {
                        true => Expiry::ByAge,
                        false => self.expiry.get(slot.sequence),
                    },
                    body: body.clone(),
                    subject_bytes,
                    headers_bytes,
                }
            })
            .collect()
    }

    fn flush(&mut self, purpose: Purpose) -> Option<Work> {
        if self.shelf.tail_bytes < purpose.flush_bytes(self.shelf.ground.options.flush_bytes) {
            return None;
        }
        let messages = self.held();
        let open = match &mut self.shelf.open {
            None => None,
            Some(open) => {
                let writer = open.writer.take()?;
                Some((open.part.name, (writer, open.file.clone())))
            }
        };
        let files = &mut self.shelf;
        let (name, open) = match open {
            Some((name, open)) => (name, Some(open)),
            None => {
                let number = files.next_number;
                files.next_number += 1;
                let generation = 0;
                (BlockName { number, generation }, None)
            }
        };
        Some(Work::Flush(Flush {
            name,
            open,
            messages,
            block_bytes: files.block_bytes(&self.limits),
        }))
    }

    /// Ends the open block, when that is due. A block that was found at the start gets a writer first.
    fn seal(&mut self) -> Option<Work> {
        let files = &mut self.shelf;
        let open = files.open.as_mut()?;
        if open.writer.is_none() {
            match resume(open, &files.ground.options) {
                Ok(()) => {}
                Err(BlockOpenError::Disk(error)) => {
                    files.failed = Some(error.to_string());
                    return None;
                }
                Err(error) => {
                    tracing::warn!(block = %open.part.name.file_name(), %error, "rewriting a block that cannot be continued");
                    let part = open.part.clone();
                    return Some(self.rewrite(vec![part]));
                }
            }
        }
        if !open.closing {
            return None;
        }
        let block = open.block()?.clone();
        let writer = open.writer.take()?;
        let file = open.file.clone();
        Some(Work::Seal(Seal {
            writer,
            block,
            file,
        }))
    }

    fn erase(&mut self) -> Option<Work> {
        let at = self.shelf.sealed.iter().position(|part| part.erase)?;
        let part = self.shelf.sealed.get_mut(at)?;
        part.erase = false;
        let part = part.clone();
        Some(self.rewrite(vec![part]))
    }

    fn rewrite(&mut self, inputs: Vec<Part>) -> Work {
        let files = &self.shelf;
        let name = inputs.first().map_or(
            BlockName {
                number: files.next_number,
                generation: 0,
            },
            |part| BlockName {
                number: part.name.number,
                generation: part.name.generation + 1,
            },
        );
        let mut dead = files.dead.clone();
        if let (Some(first), Some(last)) = (inputs.first(), inputs.last()) {
            dead.remove_range(..first.first);
            if let Some(above) = last.last.checked_add(1) {
                dead.remove_range(above..);
            }
        }
        Work::Rewrite(Rewrite {
            inputs,
            name,
            dead,
            first: files.first,
        })
    }

    /// The first block that is mostly dead, with as many neighbours as fit one block together.
    fn merge(&mut self) -> Option<Work> {
        let files = &self.shelf;
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
        let block_bytes = files.block_bytes(&self.limits);
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

    /// Takes in what a job brought back. After a failure the store takes no more changes.
    pub fn completed(&mut self, completed: Completed) -> Result<(), ChangeError> {
        let files = &mut self.shelf;
        files.running = Running::Nothing;
        let current = completed.epoch == files.epoch;
        match completed.done {
            Err(error) => {
                tracing::error!(directory = %files.ground.directory.display(), %error, "a stream's files cannot be written");
                files.failed = Some(error.to_string());
            }
            Ok(Done::Flushed(flushed)) => files.take_flushed(*flushed, current),
            Ok(Done::Sealed(sealed)) if current => files.take_sealed(sealed),
            // What was sealed is retired already.
            Ok(Done::Sealed(_)) => {}
            Ok(Done::Rewritten(rewritten)) => files.take_rewritten(rewritten, current),
            Ok(Done::Saved(saved)) => {
                files.has_checkpoint |= saved.checkpoint.is_some();
                files.checkpoint = saved.checkpoint;
            }
        }
        files.erased.clear();
        // What had to wait for the job.
        if let Some(last) = files.truncated.take() {
            files.truncate_blocks(last);
        }
        files.first_moved(files.first);
        self.shelf.check()
    }
}

fn listed(part: &Part) -> ListedBlock {
    ListedBlock {
        name: part.name,
        first: part.first,
        last: part.last,
        file_length: part.file_length,
        records: part.records,
        digest: part.digest,
    }
}

fn resume(open: &mut Open, options: &super::FileOptions) -> Result<(), BlockOpenError> {
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
    open.writer = Some(writer);
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
        let (Some(&first), Some(&last)) = (sequences.first(), sequences.last()) else {
            if let Some(open) = &mut self.open {
                open.writer = Some(writer);
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
                    erase: false,
                    keep: false,
                },
                writer: None,
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
        open.writer = Some(writer);
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
        self.unsaved.files.push(file);
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
        self.unsaved.files.push(sealed.file);
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

    fn take_rewritten(&mut self, rewritten: Option<Rewritten>, current: bool) {
        let Some(rewritten) = rewritten else {
            return;
        };
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
        self.dead -= rewritten.dead;
        self.unsaved.whole = true;
        if let Some(output) = rewritten.output {
            self.unsaved.files.push(output.file);
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
        let everything = Filter::everything();
        part.count(self.first, u64::MAX, &everything, self.cache()) == self.dead_within(part)
    }
}

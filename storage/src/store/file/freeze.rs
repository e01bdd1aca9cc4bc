//! Freezing a cut: what the store says at one index of the log, handed to a job that makes it durable.

use bytes::Bytes;

use super::cut::{Cut, Extent, ListedBlock, ListedOpen};
use super::job::{Job, Save, Work};
use super::part::Part;
use super::{FileStore, Frozen, SMALL_STREAM_BYTES};
use crate::disk::{DiskError, DiskErrorKind};
use crate::store::Expiry;

impl FileStore {
    /// Freezes the store as it is after the log entry `index`, together with the state of whoever owns it. A cut of at most
    /// `carry_bytes_max` may be handed out as bytes, unless the store has files. At most one cut is being made durable at a time.
    ///
    /// Quick, but for one case: when a message was erased and a job is out, that job is waited for, because the cut must not
    /// list a file that still has the message.
    pub fn freeze(&mut self, index: u64, core: Bytes, carry_bytes_max: usize) -> Frozen {
        if self.shelf.ground.read_only {
            return self.refuse("the store is open for reading only");
        }
        self.shelf.take_in();
        let erasures = self.shelf.erasures();
        if let Some(reason) = &self.shelf.failed {
            return self.refuse(reason);
        }
        let files = &self.shelf;
        let has_files = files.has_checkpoint
            || files.aside.is_covered(index)
            || files.flushing
            || files.open.is_some()
            || !files.sealed.is_empty()
            || !files.unsaved.retired.is_empty();
        if !has_files && files.tail_bytes + core.len() <= carry_bytes_max {
            let bytes = self.cut(index, core.clone(), Extent::Whole).encode();
            if bytes.len() <= carry_bytes_max {
                return Frozen::Carry(bytes.into());
            }
        }
        // Not while another flush is out, whose messages are still in the tail.
        let flush = match files.tail_bytes >= SMALL_STREAM_BYTES || !has_files {
            true => self.shelf.flush(&self.limits, &self.expiry),
            false => None,
        };
        let files = &self.shelf;
        let overgrown = files
            .checkpoint
            .as_ref()
            .is_none_or(|file| file.is_overgrown());
        let whole = overgrown || files.unsaved.whole || !erasures.is_empty();
        let extent = if whole {
            Extent::Whole
        } else {
            Extent::Changes
        };
        let cut = self.cut(index, core, extent);
        let files = &mut self.shelf;
        let unsaved = std::mem::take(&mut files.unsaved);
        let save = Save {
            erasures,
            flush,
            cut,
            files: unsaved.files,
            names: unsaved.names,
            checkpoint: files.checkpoint.take(),
            aside: files.aside.take_covered(index),
        };
        files.save.put(Job {
            ground: files.ground.clone(),
            epoch: files.epoch,
            work: Work::Save(Box::new(save)),
        });
        files.save_out = true;
        let (slot, ground) = (files.save.clone(), files.ground.clone());
        Frozen::Files(Box::new(move || {
            slot.run().map_err(|error| error.into_disk_error(&ground))
        }))
    }

    fn refuse(&self, reason: &str) -> Frozen {
        let error = DiskError {
            operation: "checkpoint",
            path: self.shelf.ground.directory.clone(),
            kind: DiskErrorKind::Io(reason.to_owned()),
        };
        Frozen::Files(Box::new(move || Err(error)))
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
            held: self.shelf.held(usize::MAX, &self.expiry),
            core,
        }
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

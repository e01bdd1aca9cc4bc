//! The journal without a thread: stage, commit, release.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::buffer::{CommitBuffer, carried};
use super::format::{CommitHeader, PAGE_BYTES, whole_pages};
use super::frame::{CommitSink, Frame, FrameKind, JournalError, Location, Owner};
use super::ledger::{Ledger, Pressure, PressureLevel};
use super::meter::JournalMeter;
use super::options::{Durability, JournalOptions};
use super::recover::{OpenJournalError, recover};
use super::replay::Replay;
use super::segment::{NewSegment, Segment, Writer};
use super::spares::{Spare, Spares};
use crate::disk::{Advice, Disk, DiskError};
use crate::entropy::Entropy;

/// Without a sync for each commit, the device is told to begin with this much at a time.
const WRITEBACK_BYTES: u64 = 1 << 20;

/// Each start after a kill leaves a segment behind, however little it holds; its file is as large as any. With more than so many, those who need them are asked to let go,
/// and what nobody needs is not left until the newest one is full.
const RETIRED_MAX: usize = 4;
/// A segment is ended early only when so many are free by that: its successor takes one of them.
const FREED_EARLY_MIN: usize = 2;

/// How recovery says that the next segment is to begin.
pub(super) struct Start {
    pub number: u64,
    pub previous_end: u64,
    pub next_lsn: u64,
    pub ledger: Ledger,
    pub retired: Vec<Retired>,
    /// Segments below the floor: nobody needs them.
    pub leftovers: Vec<(PathBuf, u64)>,
    pub spares: Vec<Spare>,
    pub next_name: u64,
}

/// A segment that is no longer written, and may still be needed.
pub(super) struct Retired {
    pub number: u64,
    pub path: PathBuf,
    pub length: u64,
    /// Where its commits end.
    pub end: u64,
    /// Part of it could not be read: it is set aside when it is no longer needed, and never written again.
    pub damaged: bool,
    /// `None` when its header could not be read.
    pub segment: Option<Arc<Segment>>,
}

/// Finds segments by number for whoever reads frames again.
pub(super) type Readers = Arc<RwLock<HashMap<u64, Arc<Segment>>>>;

/// A sync that is to happen on another thread.
pub(super) struct SyncTicket {
    segment: Arc<Segment>,
    meter: Arc<JournalMeter>,
    lsn: u64,
}

impl SyncTicket {
    pub fn run(&self) -> Result<(), DiskError> {
        self.meter.time(|| self.segment.file().sync_data())
    }
}

/// The journal as a plain value. After an error it is poisoned and answers every commit with that error.
pub struct JournalCore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: JournalOptions,
    entropy: Arc<dyn Entropy>,
    writer: Writer,
    /// Oldest first.
    retired: VecDeque<Retired>,
    readers: Readers,
    spares: Spares,
    ledger: Ledger,
    /// Of the commit that comes next.
    next_lsn: u64,
    /// All commits up to here are durable.
    synced_lsn: u64,
    staged: CommitBuffer,
    carry: CommitBuffer,
    /// Of the segment that is written, where the device was not yet told to begin with.
    writeback_from: u64,
    failed: Option<JournalError>,
}

impl JournalCore {
    /// Opens the journal in `directory`, creates it when there is none, and begins a new segment.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: JournalOptions,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Self, Replay), OpenJournalError> {
        let (mut start, replay) = recover(&disk, directory, &options)?;
        let spares = Spares::new(
            Arc::clone(&disk),
            directory,
            options.segment_bytes,
            std::mem::take(&mut start.spares),
            start.next_name,
        );
        let spare = spares.take(0);
        let recycled = spare.is_some();
        let length = spare.as_ref().map(|spare| spare.length);
        let length = length.unwrap_or(options.segment_bytes);
        start.ledger.begin(start.number, length);
        let floor = start.ledger.floor();
        let segment = Segment::begin(
            disk.as_ref(),
            directory,
            spare,
            &NewSegment {
                number: start.number,
                length,
                first_lsn: start.next_lsn,
                floor,
                previous_end: start.previous_end,
            },
            options.encryption.as_deref(),
            entropy.as_ref(),
        )
        .map_err(JournalError::from)?;
        let writer = Writer::new(segment, recycled);
        let mut core = Self {
            disk,
            directory: directory.to_owned(),
            options,
            entropy,
            writer,
            retired: VecDeque::from(start.retired),
            readers: Readers::default(),
            spares,
            ledger: start.ledger,
            next_lsn: start.next_lsn,
            synced_lsn: start.next_lsn.saturating_sub(1),
            staged: CommitBuffer::new(),
            carry: CommitBuffer::new(),
            writeback_from: 0,
            failed: None,
        };
        for (path, length) in start.leftovers {
            core.spares.recycle(&path, length);
        }
        core.show_to_readers();
        core.recycle_below(floor);
        Ok((core, replay))
    }

    /// Puts a frame into the next commit; `sink` hears of it with `token`.
    pub fn stage(
        &mut self,
        frame: &Frame,
        token: u64,
        sink: &Arc<dyn CommitSink>,
    ) -> Result<(), JournalError> {
        self.check()?;
        let seed = self.seed();
        self.staged.push(frame, seed, Some((token, sink)))
    }

    /// Writes what is staged, syncs as the durability asks, and tells the sinks.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        let mut staged = std::mem::replace(&mut self.staged, CommitBuffer::new());
        let buffers = std::slice::from_mut(&mut staged);
        let result = self.commit_all(buffers);
        match &result {
            Ok(()) => staged.deliver(),
            Err(error) => staged.waiting_sinks().for_each(|sink| sink.failed(error)),
        }
        staged.reset(self.options.commit_bytes_max * 2);
        self.staged = staged;
        result
    }

    /// Whether commits of so many bytes in all would only be written: they fit the segment, and no marks are to be carried.
    pub(super) fn is_ready_for(&self, stored: usize) -> bool {
        self.failed.is_none() && self.writer.has_room(stored) && !self.wants_relief()
    }

    /// Writes the commits one after another, then syncs once.
    pub(super) fn commit_all(&mut self, buffers: &mut [CommitBuffer]) -> Result<(), JournalError> {
        self.check()?;
        let result = self.try_commit_all(buffers);
        self.remember(result)
    }

    fn try_commit_all(&mut self, buffers: &mut [CommitBuffer]) -> Result<(), JournalError> {
        self.carry_marks()?;
        self.rotate_early()?;
        let mut urgent = self.options.durability == Durability::Always;
        for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
            urgent |= buffer.is_urgent();
            self.write(buffer)?;
        }
        if urgent {
            self.sync_written()?;
        }
        if self.writer.position > self.writer.segment.length / 4 {
            self.spares.prepare(&self.options);
        }
        Ok(())
    }

    /// Makes durable what was written lazily.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check()?;
        let result = self.sync_written();
        self.remember(result)
    }

    /// The same, to be run elsewhere and told to [`JournalCore::finish_sync`]. `None` when there is nothing to sync.
    pub(super) fn begin_sync(&self) -> Option<SyncTicket> {
        let lsn = self.next_lsn - 1;
        (self.synced_lsn < lsn).then(|| SyncTicket {
            segment: Arc::clone(&self.writer.segment),
            meter: Arc::clone(&self.options.meter),
            lsn,
        })
    }

    pub(super) fn finish_sync(
        &mut self,
        ticket: &SyncTicket,
        result: Result<(), DiskError>,
    ) -> Result<(), JournalError> {
        self.check()?;
        let result = result.map_err(JournalError::from);
        self.remember(result)?;
        self.synced_lsn = self.synced_lsn.max(ticket.lsn);
        Ok(())
    }

    /// The owner no longer needs its entries up to `upto`: a checkpoint that is durable covers them.
    pub fn release(&mut self, owner: Owner, upto: u64) {
        self.ledger.release(owner, upto);
    }

    /// The owner no longer needs its mark of that kind: something else that is durable takes its place.
    pub fn drop_mark(&mut self, owner: Owner, kind: FrameKind) {
        self.ledger.drop_mark(owner, kind);
    }

    /// The owner is gone, durably, and nothing of it is needed any more.
    pub fn forget(&mut self, owner: Owner) {
        self.ledger.forget(owner);
    }

    /// Owners that have entries or marks in the journal, ascending.
    pub fn owners(&self) -> Vec<Owner> {
        let mut owners: Vec<Owner> = self.ledger.owners().into_iter().collect();
        owners.sort_unstable();
        owners
    }

    /// How much of the journal is in use, and who holds it back.
    pub fn pressure(&self) -> Pressure {
        let live_bytes = self.ledger.live_bytes();
        let level = match live_bytes {
            bytes if bytes > self.options.hard_bytes => PressureLevel::Hard,
            _ if self.wants_relief() => PressureLevel::Soft,
            _ => PressureLevel::None,
        };
        Pressure {
            level,
            live_bytes,
            owners: match level {
                PressureLevel::None => Vec::new(),
                _ => self.ledger.holders(),
            },
        }
    }

    /// Whether so much is in use, or so many segments, that those who hold back the oldest should let go of it.
    fn wants_relief(&self) -> bool {
        self.ledger.live_bytes() > self.options.soft_bytes || self.retired.len() > RETIRED_MAX
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.ledger.live_bytes()
    }

    /// Whether the device has room for more than what the journal still can take without growing. Submitters that add data should stop when
    /// it has not; what is left is for changes that free space.
    pub fn has_room(&self) -> bool {
        self.spares.has_room()
    }

    /// Reads a committed frame's payload again.
    pub fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        read(&self.readers, location)
    }

    /// Writes what is staged and marks the journal as closed in order.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.commit()?;
        self.write_closing_mark()
    }

    pub(super) fn write_closing_mark(&mut self) -> Result<(), JournalError> {
        self.check()?;
        let mut empty = CommitBuffer::new();
        let result = self
            .draw_together()
            .and_then(|()| self.write_commit(&mut empty, true))
            .and_then(|()| self.sync_written());
        self.remember(result)?;
        if let Err(error) = self.give_back() {
            tracing::warn!(%error, "the journal keeps more of the device than it needs");
        }
        Ok(())
    }

    /// Leaves of the files what the next start needs. The mark of an orderly end is on disk: nothing more is written.
    fn give_back(&self) -> Result<(), DiskError> {
        // Otherwise one of the segments becomes the spare of a later start.
        if !self.spares.keep_one_short()? {
            return Ok(());
        }
        for retired in self.retired.iter().filter(|retired| !retired.damaged) {
            if let Some(segment) = &retired.segment {
                segment.cut(retired.end)?;
            }
        }
        self.writer.segment.cut(self.writer.position)
    }

    /// Lets go of segments that only marks hold back, and of a long one that holds nothing else, so that the next start has little to read.
    ///
    /// The marks are appended again first. The segment that is begun then syncs them before its header names the floor above which all is, and only
    /// after that the old segments go.
    fn draw_together(&mut self) -> Result<(), JournalError> {
        let floor = self.ledger.floor_of_entries();
        let is_free = floor == self.writer.segment.number && !self.ledger.needs_newest();
        let is_long = is_free && self.writer.position > self.writer.segment.length / 16;
        let oldest = self.retired.front();
        if !is_long && oldest.is_none_or(|oldest| oldest.number >= floor) {
            return Ok(());
        }
        if is_long {
            self.rotate(0)?;
        }
        loop {
            let before = (self.ledger.floor(), self.ledger.marks_to_carry().len());
            if before.1 == 0 {
                break;
            }
            self.carry_marks_of_oldest()?;
            let floor = self.ledger.floor();
            if floor == before.0 && self.ledger.marks_to_carry().len() >= before.1 {
                // What is unreadable holds its segment back.
                break;
            }
        }
        self.rotate(0)
    }

    pub(super) fn seed(&self) -> u32 {
        self.writer.segment.seed
    }

    pub(super) fn readers(&self) -> Readers {
        Arc::clone(&self.readers)
    }

    fn check(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn remember<T>(&mut self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        if let Err(error) = &result {
            tracing::error!(%error, "the journal failed and takes nothing more");
            self.failed = Some(error.clone());
        }
        result
    }

    fn write(&mut self, buffer: &mut CommitBuffer) -> Result<(), JournalError> {
        self.write_commit(buffer, false)
    }

    fn write_commit(
        &mut self,
        buffer: &mut CommitBuffer,
        closing: bool,
    ) -> Result<(), JournalError> {
        let stored = buffer.stored_bytes();
        if !self.writer.has_room(stored) {
            self.rotate(stored)?;
        }
        let segment = Arc::clone(&self.writer.segment);
        let header = CommitHeader {
            lsn: self.next_lsn,
            synced_lsn: self.synced_lsn,
            length: 0,
            frames: 0,
            closing,
            tag: None,
        };
        let bytes = buffer.finish(segment.seed, header, segment.sealer.as_deref())?;
        let written = bytes.len();
        let commit_at = self.writer.write(bytes)?;
        self.options.meter.committed(buffer.frame_count(), written);
        if self.options.durability != Durability::Always {
            self.start_writeback();
        }
        self.next_lsn += 1;
        self.ledger.committed(&buffer.summary, commit_at);
        buffer.place(segment.number, commit_at);
        Ok(())
    }

    /// Has the device begin with what was written, a run at a time: asked for after each small commit it would write the same pages again and again,
    /// and whoever adds to a page would wait for it.
    fn start_writeback(&mut self) {
        let (from, upto) = (self.writeback_from, self.writer.position);
        let Some(length) = upto
            .checked_sub(from)
            .filter(|&length| length >= WRITEBACK_BYTES)
        else {
            return;
        };
        let file = self.writer.segment.file();
        file.advise(from, length, Advice::StartWriteback);
        self.writeback_from = upto;
    }

    fn sync_written(&mut self) -> Result<(), JournalError> {
        let written = self.next_lsn - 1;
        if self.synced_lsn < written {
            let file = self.writer.segment.file();
            self.options.meter.time(|| file.sync_data())?;
            self.synced_lsn = written;
        }
        Ok(())
    }

    /// Ends the segment and begins the next, with room for `stored` bytes.
    fn rotate(&mut self, stored: usize) -> Result<(), JournalError> {
        // Whoever finds the next segment may take it that all of this one was durable.
        self.sync_written()?;
        let usual = self.options.segment_bytes;
        let needed = (whole_pages(stored) + 2 * PAGE_BYTES) as u64;
        let spare = self.spares.take(needed);
        let recycled = spare.is_some();
        let floor = self.ledger.floor();
        let ended = &self.writer.segment;
        let new = NewSegment {
            number: ended.number + 1,
            length: usual.max(needed),
            first_lsn: self.next_lsn,
            floor,
            previous_end: self.writer.position,
        };
        let ring = self.options.encryption.as_deref();
        let entropy = self.entropy.as_ref();
        let begun = Segment::begin(
            self.disk.as_ref(),
            &self.directory,
            spare,
            &new,
            ring,
            entropy,
        )?;
        self.retired.push_back(Retired {
            number: ended.number,
            path: ended.path.clone(),
            length: ended.length,
            end: self.writer.position,
            damaged: false,
            segment: Some(Arc::clone(ended)),
        });
        self.ledger.begin(begun.number, begun.length);
        self.writer = Writer::new(begun, recycled);
        self.writeback_from = 0;
        self.show_to_readers();
        self.recycle_below(floor);
        Ok(())
    }

    /// Ends the segment before it is full when too many older ones lie about that nobody needs: only the header of another one lets go of them.
    ///
    /// Starts leave such segments behind. What they hold was let go of after the header of the newest was written, and next to nothing may be written from then on.
    fn rotate_early(&mut self) -> Result<(), JournalError> {
        if self.retired.len() <= RETIRED_MAX {
            return Ok(());
        }
        let floor = self.ledger.floor();
        let free = self.retired.iter().take_while(|old| old.number < floor);
        // On a full device a segment that could not be begun would be the end of the journal, for the sake of tidiness.
        let has_room = || {
            let free_bytes = self.disk.free_bytes(&self.directory);
            free_bytes.is_ok_and(|free| free >= self.options.segment_bytes)
        };
        match free.count() >= FREED_EARLY_MIN && has_room() {
            true => self.rotate(0),
            false => Ok(()),
        }
    }

    /// Reuses the segments below a floor that a durable header names.
    fn recycle_below(&mut self, floor: u64) {
        while let Some(oldest) = self.retired.front()
            && oldest.number < floor
            && let Some(oldest) = self.retired.pop_front()
        {
            self.readers.write().remove(&oldest.number);
            if oldest.damaged {
                let aside = oldest.path.with_extension("damaged");
                if let Err(error) = self.disk.rename(&oldest.path, &aside) {
                    tracing::warn!(%error, "a damaged journal segment stays in place");
                }
            } else {
                self.spares.recycle(&oldest.path, oldest.length);
            }
        }
        self.ledger.drop_below(floor);
    }

    /// Appends the marks of the oldest segment again when nothing else holds it back and room is wanted. They go in front of whatever
    /// is staged, so that a newer mark that is staged stays the newer one.
    fn carry_marks(&mut self) -> Result<(), JournalError> {
        match self.wants_relief() {
            true => self.carry_marks_of_oldest(),
            false => Ok(()),
        }
    }

    fn carry_marks_of_oldest(&mut self) -> Result<(), JournalError> {
        let mut carry = std::mem::replace(&mut self.carry, CommitBuffer::new());
        let limit = self.options.commit_bytes_max;
        for (owner, kind, location) in self.ledger.marks_to_carry() {
            let retired = self.retired.iter_mut();
            let Some(retired) = retired.rev().find(|old| old.number == location.segment) else {
                continue;
            };
            let segment = retired.segment.as_ref();
            let read = match segment.map(|segment| segment.read(location)) {
                Some(Ok(read)) => read,
                // The bytes went bad since they were written. The frame stays where it is, and so does its segment.
                _ => {
                    tracing::error!(%owner, ?kind, ?location, "a journal mark became unreadable");
                    retired.damaged = true;
                    continue;
                }
            };
            let (header, payload) = read;
            let frame = carried(owner, header.index, kind, payload);
            carry.push(&frame, self.writer.segment.seed, None)?;
            // The rest waits for the next commit, so that no publisher waits for all of it.
            if carry.length() >= limit {
                break;
            }
        }
        if !carry.is_empty() {
            self.write(&mut carry)?;
        }
        carry.reset(limit * 2);
        self.carry = carry;
        Ok(())
    }

    fn show_to_readers(&self) {
        let retired = self.retired.iter().filter_map(|old| old.segment.as_ref());
        let mut readers = self.readers.write();
        for segment in retired.chain([&self.writer.segment]) {
            readers.insert(segment.number, Arc::clone(segment));
        }
    }
}

pub(super) fn read(readers: &Readers, location: Location) -> Result<Bytes, JournalError> {
    let segment = readers.read().get(&location.segment).cloned();
    let segment = segment.ok_or(JournalError::Unreadable(location))?;
    segment.read(location).map(|(_, payload)| payload)
}

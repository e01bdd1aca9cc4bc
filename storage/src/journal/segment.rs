//! One segment file: begun, written, read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    COMMIT_HEADER_BYTES, CommitHeader, FRAME_HEADER_BYTES, FrameHeader, NONCE_BYTES, PAGE_BYTES,
    SegmentHeader, crc_seeded,
};
use super::frame::{JournalError, Location};
use super::spares::Spare;
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::entropy::Entropy;
use crate::seal::{KeyRing, Sealer, sealer};

/// How far ahead a file that was never written is filled with zeros, so that most commits overwrite and do not allocate.
const FILL_AHEAD_BYTES: u64 = 1024 * 1024;

/// A segment that can be read, and when it is the newest, written.
pub(super) struct Segment {
    pub number: u64,
    pub path: PathBuf,
    pub length: u64,
    pub seed: u32,
    pub sealer: Option<Box<dyn Sealer>>,
    file: Arc<dyn DiskFile>,
}

/// What a new segment's header has to say.
pub(super) struct NewSegment {
    pub number: u64,
    /// When it is made of a spare, it is as long as that.
    pub length: u64,
    pub first_lsn: u64,
    pub floor: u64,
    pub previous_end: u64,
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.seg"))
}

impl Segment {
    /// Turns a spare, or a new file, into the next segment. Durable when it returns: the header is synced before the file gets its name, so
    /// that a file with a segment's name always has a header.
    pub fn begin(
        disk: &dyn Disk,
        directory: &Path,
        spare: Option<Spare>,
        new: &NewSegment,
        ring: Option<&KeyRing>,
        entropy: &dyn Entropy,
    ) -> Result<Self, DiskError> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let key = ring.map(|ring| {
            ring.new_data_key(&SegmentHeader::key_context(new.number, &nonce), entropy)
        });
        let header = SegmentHeader {
            number: new.number,
            length: spare.as_ref().map_or(new.length, |spare| spare.length),
            nonce,
            first_lsn: new.first_lsn,
            floor: new.floor,
            previous_end: new.previous_end,
            key: key.as_ref().map(|(_, wrapped)| *wrapped),
        };
        let (from, file) = match spare {
            Some(spare) => {
                let file = disk.open(&spare.path, OpenMode::Write)?;
                (spare.path, file)
            }
            None => {
                let path = directory.join(format!("{:016x}.new", new.number));
                let file = disk.open(&path, OpenMode::CreateNew)?;
                file.set_length(new.length)?;
                (path, file)
            }
        };
        let page = header.encode();
        file.write_all_at(&page, 0)?;
        file.write_all_at(&page, header.length - PAGE_BYTES as u64)?;
        file.sync_data()?;
        let path = segment_path(directory, new.number);
        disk.rename(&from, &path)?;
        disk.sync_directory(directory)?;
        Ok(Self {
            number: new.number,
            path,
            length: header.length,
            seed: header.seed(),
            sealer: key.map(|(key, wrapped)| sealer(wrapped.data_cipher, &key)),
            file,
        })
    }

    /// A segment found at start.
    pub fn found(
        header: &SegmentHeader,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        sealer: Option<Box<dyn Sealer>>,
    ) -> Self {
        Self {
            number: header.number,
            path,
            length: header.length,
            seed: header.seed(),
            sealer,
            file,
        }
    }

    /// Gives back to the device what lies behind `end`, where the last commit ends. For a segment that is not written any more, and whose end is on disk: its mark of an orderly
    /// end, or the header of the segment after it, says so.
    ///
    /// The copy of the header moves to the new end, and is on disk before the rest goes: there is one at the end of the file at any time, and which of the two
    /// lengths the file has makes no difference to who reads it.
    pub fn cut(&self, end: u64) -> Result<(), DiskError> {
        let page_bytes = PAGE_BYTES as u64;
        if end + page_bytes >= self.file.length()? {
            return Ok(());
        }
        let mut page = vec![0; PAGE_BYTES];
        self.file.read_exact_at(&mut page, 0)?;
        // What became unreadable is not copied over what may still be good.
        if SegmentHeader::decode(&page).is_err() {
            return Ok(());
        }
        self.file.write_all_at(&page, end)?;
        self.file.sync_data()?;
        self.file.set_length(end + page_bytes)
    }

    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Where its commits must end: the last page is the copy of the header.
    pub fn commits_end(&self) -> u64 {
        self.length - PAGE_BYTES as u64
    }

    /// Reads one frame again. Anything that does not check out is gone: the segment may have been recycled meanwhile.
    pub fn read(&self, location: Location) -> Result<(FrameHeader, Bytes), JournalError> {
        let unreadable = || JournalError::Unreadable(location);
        let commit_at = u64::from(location.commit_at);
        let mut head = [0; COMMIT_HEADER_BYTES];
        self.file.read_exact_at(&mut head, commit_at)?;
        let commit = CommitHeader::decode(&head, self.seed).ok_or_else(unreadable)?;
        let end = COMMIT_HEADER_BYTES + commit.length as usize;
        let frame_at = location.frame_at as usize;
        if !(COMMIT_HEADER_BYTES..end).contains(&frame_at)
            || commit_at + end as u64 > self.commits_end()
        {
            return Err(unreadable());
        }
        // A sealed commit opens only as a whole.
        let from = if commit.tag.is_some() {
            COMMIT_HEADER_BYTES
        } else {
            frame_at
        };
        let to = match commit.tag {
            Some(_) => end,
            None => frame_at
                .saturating_add(self.frame_bytes(location)?)
                .min(end),
        };
        let mut bytes = vec![0; to.saturating_sub(from)];
        self.file
            .read_exact_at(&mut bytes, commit_at + from as u64)?;
        if let Some(tag) = commit.tag {
            let sealer = self.sealer.as_ref().ok_or_else(unreadable)?;
            let nonce = CommitHeader::nonce(commit.lsn);
            sealer
                .open(&nonce, CommitHeader::associated(&head), &mut bytes, &tag)
                .map_err(|_| unreadable())?;
        }
        let bytes = Bytes::from(bytes).split_off(frame_at - from);
        let header = FrameHeader::decode(&bytes, self.seed).ok_or_else(unreadable)?;
        let payload_end = FRAME_HEADER_BYTES + header.length as usize;
        if bytes.len() < payload_end {
            return Err(unreadable());
        }
        let payload = bytes.slice(FRAME_HEADER_BYTES..payload_end);
        match crc_seeded(self.seed, &payload) == header.payload_crc {
            true => Ok((header, payload)),
            false => Err(unreadable()),
        }
    }

    /// Bytes of a frame that is not sealed.
    fn frame_bytes(&self, location: Location) -> Result<usize, JournalError> {
        let mut head = [0; FRAME_HEADER_BYTES];
        let at = u64::from(location.commit_at) + u64::from(location.frame_at);
        self.file.read_exact_at(&mut head, at)?;
        let header =
            FrameHeader::decode(&head, self.seed).ok_or(JournalError::Unreadable(location))?;
        Ok(FRAME_HEADER_BYTES + header.length as usize)
    }
}

/// Where the newest segment stands.
pub(super) struct Writer {
    pub segment: Arc<Segment>,
    /// Where the next commit begins.
    pub position: u64,
    /// Everything below was written before, in this incarnation or an earlier one.
    filled: u64,
}

impl Writer {
    /// `recycled` says that the file was written in full before.
    pub fn new(segment: Segment, recycled: bool) -> Self {
        let first = PAGE_BYTES as u64;
        let filled = if recycled { segment.length } else { first };
        Self {
            segment: Arc::new(segment),
            position: first,
            filled,
        }
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        self.position + bytes as u64 <= self.segment.commits_end()
    }

    /// Writes a finished commit and says where it begins.
    pub fn write(&mut self, bytes: &[u8]) -> Result<u32, DiskError> {
        let at = self.position;
        let end = at + bytes.len() as u64;
        if end > self.filled {
            let ahead = (end + FILL_AHEAD_BYTES).min(self.segment.commits_end());
            let zeros = vec![0; (ahead - end) as usize];
            self.segment.file.write_all_at(&zeros, end)?;
            self.filled = ahead;
        }
        self.segment.file.write_all_at(bytes, at)?;
        self.position = end;
        Ok(at as u32)
    }
}

//! Frames encoded into the bytes of a commit while the previous one is written.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::format::{
    COMMIT_HEADER_BYTES, CommitHeader, FRAME_HEADER_BYTES, FrameHeader, PAYLOAD_BYTES_MAX,
    crc_seeded, whole_pages,
};
use super::frame::{Commit, CommitSink, Frame, FrameKind, JournalError, Location, Owner};
use crate::seal::Sealer;

/// A commit in the making. Reused, so that its memory is allocated once.
pub(super) struct CommitBuffer {
    /// Room for the commit header, then the frames.
    bytes: Vec<u8>,
    /// What the crcs in it are seeded with.
    seed: u32,
    frames: u32,
    frame_bytes: usize,
    /// Whether it holds a frame that must be synced whatever the durability.
    urgent: bool,
    /// What the ledger has to know.
    pub summary: CommitSummary,
    sinks: Vec<SinkCommits>,
}

/// What a commit means for the question which segment is still needed.
#[derive(Default)]
pub(super) struct CommitSummary {
    /// The highest entry of each owner.
    pub entries: HashMap<u64, u64, foldhash::fast::FixedState>,
    /// From which index on an owner took entries back that earlier commits hold.
    pub truncates: Vec<(u64, u64)>,
    /// Marks in order: owner, kind, where the frame begins.
    pub marks: Vec<(u64, FrameKind, u32)>,
}

impl CommitSummary {
    /// What follows, with frames that stand `shift` bytes further on than it says.
    fn append(&mut self, next: &Self, shift: u32) {
        for &(owner, from) in &next.truncates {
            if let Some(highest) = self.entries.get_mut(&owner) {
                *highest = (*highest).min(from.saturating_sub(1));
            }
            self.truncates.push((owner, from));
        }
        for (&owner, &index) in &next.entries {
            self.entries
                .entry(owner)
                .and_modify(|highest| *highest = index.max(*highest))
                .or_insert(index);
        }
        let marks = next.marks.iter();
        self.marks
            .extend(marks.map(|&(owner, kind, at)| (owner, kind, at + shift)));
    }
}

struct SinkCommits {
    sink: Arc<dyn CommitSink>,
    commits: Vec<Commit>,
}

impl CommitBuffer {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; COMMIT_HEADER_BYTES],
            seed: 0,
            frames: 0,
            frame_bytes: 0,
            urgent: false,
            summary: CommitSummary::default(),
            sinks: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Bytes of header and frames.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// How many frames there are.
    pub fn frame_count(&self) -> u32 {
        self.frames
    }

    /// Bytes of the frames, also after [`CommitBuffer::finish`] has padded them.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Bytes it will take in a segment.
    pub fn stored_bytes(&self) -> usize {
        whole_pages(self.bytes.len())
    }

    /// Empties it for the next commit, keeping the memory unless an unusually large frame has blown it up.
    pub fn reset(&mut self, bytes_kept_max: usize) {
        if self.bytes.capacity() > bytes_kept_max {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(COMMIT_HEADER_BYTES, 0);
        self.frames = 0;
        self.frame_bytes = 0;
        self.urgent = false;
        self.summary.entries.clear();
        self.summary.truncates.clear();
        self.summary.marks.clear();
        // A sink that had nothing in this commit is let go.
        self.sinks.retain(|sink| !sink.commits.is_empty());
        for sink in &mut self.sinks {
            sink.commits.clear();
        }
    }

    /// Appends a frame. `seed` is that of the segment the commit will most likely go to.
    pub fn push(
        &mut self,
        frame: &Frame,
        seed: u32,
        completion: Option<(u64, &Arc<dyn CommitSink>)>,
    ) -> Result<(), JournalError> {
        let length = frame.payload.length();
        if length > PAYLOAD_BYTES_MAX {
            let limit = PAYLOAD_BYTES_MAX;
            return Err(JournalError::TooLarge { length, limit });
        }
        if self.is_empty() {
            self.seed = seed;
        }
        let frame_at = self.bytes.len() as u32;
        self.encode(frame, length);
        self.frames += 1;
        self.frame_bytes += FRAME_HEADER_BYTES + length;
        self.summarize(frame, frame_at);
        if let Some((token, sink)) = completion {
            let location = Location {
                segment: 0,
                commit_at: 0,
                frame_at,
            };
            self.commits_of(sink).push(Commit {
                owner: frame.owner,
                index: frame.index,
                kind: frame.kind,
                token,
                location,
            });
        }
        Ok(())
    }

    fn encode(&mut self, frame: &Frame, length: usize) {
        let parts = frame.payload.parts();
        let payload_crc = parts
            .iter()
            .fold(self.seed, |crc, part| crc_seeded(crc, part));
        let header = FrameHeader {
            payload_crc,
            length: length as u32,
            kind: frame.kind,
            owner: frame.owner,
            index: frame.index,
        };
        self.bytes.reserve(FRAME_HEADER_BYTES + length);
        self.bytes.extend_from_slice(&header.encode(self.seed));
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    fn summarize(&mut self, frame: &Frame, frame_at: u32) {
        let Self {
            summary, urgent, ..
        } = self;
        let owner = frame.owner.0;
        match frame.kind {
            FrameKind::Entry => {
                summary
                    .entries
                    .entry(owner)
                    .and_modify(|highest| *highest = frame.index.max(*highest))
                    .or_insert(frame.index);
            }
            FrameKind::Truncate => {
                if let Some(highest) = summary.entries.get_mut(&owner) {
                    *highest = (*highest).min(frame.index.saturating_sub(1));
                }
                summary.truncates.push((owner, frame.index));
            }
            FrameKind::Vote | FrameKind::Committed | FrameKind::Purged | FrameKind::Carry => {
                *urgent |= frame.kind == FrameKind::Vote;
                summary.marks.push((owner, frame.kind, frame_at));
            }
        }
    }

    fn commits_of(&mut self, sink: &Arc<dyn CommitSink>) -> &mut Vec<Commit> {
        let known = |known: &SinkCommits| Arc::ptr_eq(&known.sink, sink);
        let at = match self.sinks.iter().position(known) {
            Some(at) => at,
            None => {
                self.sinks.push(SinkCommits {
                    sink: Arc::clone(sink),
                    commits: Vec::new(),
                });
                self.sinks.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.sinks[at].commits
    }

    /// Takes over the frames of another buffer, behind its own, and tells `sink` of them by `commits`, whose places count from that buffer's start.
    pub fn append(
        &mut self,
        other: &mut CommitBuffer,
        commits: &[Commit],
        sink: &Arc<dyn CommitSink>,
    ) {
        let shift = (self.bytes.len() - COMMIT_HEADER_BYTES) as u32;
        if self.is_empty() {
            self.seed = other.seed;
        } else if other.seed != self.seed {
            other.reseed(self.seed);
        }
        // They need not be copied, unless more room would be given away than comes.
        if self.is_empty() && self.bytes.capacity() / 2 <= other.bytes.capacity() {
            std::mem::swap(&mut self.bytes, &mut other.bytes);
        } else {
            let frames = other.bytes.get(COMMIT_HEADER_BYTES..);
            self.bytes.extend_from_slice(frames.unwrap_or_default());
        }
        self.frames += other.frames;
        self.frame_bytes += other.frame_bytes;
        self.urgent |= other.urgent;
        self.summary.append(&other.summary, shift);
        self.expect(commits, shift, sink);
    }

    /// Tells `sink` of its frames by `commits`, whose places are `shift` bytes further on than they say.
    pub fn expect(&mut self, commits: &[Commit], shift: u32, sink: &Arc<dyn CommitSink>) {
        let moved = commits.iter().map(|commit| {
            let mut moved = *commit;
            moved.location.frame_at += shift;
            moved
        });
        self.commits_of(sink).extend(moved);
    }

    /// Puts the header in front, seals the frames and pads to whole pages: the bytes to write.
    pub fn finish(
        &mut self,
        seed: u32,
        mut header: CommitHeader,
        sealer: Option<&dyn Sealer>,
    ) -> Result<&[u8], JournalError> {
        if self.seed != seed {
            self.reseed(seed);
        }
        header.length = (self.bytes.len() - COMMIT_HEADER_BYTES) as u32;
        header.frames = self.frames;
        if let Some((head, body)) = self.bytes.split_at_mut_checked(COMMIT_HEADER_BYTES) {
            if let Some(sealer) = sealer {
                header.tag = Some([0; 16]);
                let draft = header.encode(seed);
                let nonce = CommitHeader::nonce(header.lsn);
                let tag = sealer.seal(&nonce, CommitHeader::associated(&draft), body)?;
                header.tag = Some(tag);
            }
            head.copy_from_slice(&header.encode(seed));
        }
        let stored = self.stored_bytes();
        self.bytes.resize(stored, 0);
        Ok(&self.bytes)
    }

    /// Computes all crcs anew: the commit goes to another segment than was expected.
    fn reseed(&mut self, seed: u32) {
        let mut at = COMMIT_HEADER_BYTES;
        for _ in 0..self.frames {
            let header = self.bytes.get(at..);
            let Some(header) = header.and_then(|bytes| FrameHeader::decode(bytes, self.seed))
            else {
                // Cannot happen: this buffer encoded the frame itself. Left as it is, the frame fails its check when read.
                debug_assert!(false, "a staged frame does not decode");
                return;
            };
            let from = at + FRAME_HEADER_BYTES;
            let to = from + header.length as usize;
            let payload = self.bytes.get(from..to).unwrap_or_default();
            let reseeded = FrameHeader {
                payload_crc: crc_seeded(seed, payload),
                ..header
            };
            if let Some(place) = self.bytes.get_mut(at..from) {
                place.copy_from_slice(&reseeded.encode(seed));
            }
            at = to;
        }
        self.seed = seed;
    }

    /// Says where the commit was written.
    pub fn place(&mut self, segment: u64, commit_at: u32) {
        for commit in self.sinks.iter_mut().flat_map(|sink| &mut sink.commits) {
            commit.location.segment = segment;
            commit.location.commit_at = commit_at;
        }
    }

    /// Tells every sink that its frames are committed.
    pub fn deliver(&self) {
        for SinkCommits { sink, commits } in &self.sinks {
            if !commits.is_empty() {
                sink.committed(commits);
            }
        }
    }

    /// The sinks that wait for this commit.
    pub fn waiting_sinks(&self) -> impl Iterator<Item = &Arc<dyn CommitSink>> {
        let waiting = self.sinks.iter().filter(|sink| !sink.commits.is_empty());
        waiting.map(|sink| &sink.sink)
    }
}

/// A frame that is already encoded elsewhere, to be appended again.
pub(super) fn carried(owner: Owner, index: u64, kind: FrameKind, payload: Bytes) -> Frame {
    Frame {
        owner,
        index,
        kind,
        payload: payload.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl CommitSink for Nobody {
        fn committed(&self, _commits: &[Commit]) {}
        fn failed(&self, _error: &JournalError) {}
    }

    fn frame(owner: u64, index: u64, kind: FrameKind) -> Frame {
        carried(
            Owner(owner),
            index,
            kind,
            Bytes::from(vec![owner as u8; index as usize * 7]),
        )
    }

    #[test]
    fn frames_that_were_encoded_apart_make_the_same_commit() {
        use FrameKind::{Entry, Purged, Truncate, Vote};
        let calls = [
            vec![frame(16, 1, Entry), frame(16, 2, Entry), frame(17, 0, Vote)],
            vec![frame(16, 2, Truncate), frame(16, 2, Entry)],
            vec![
                frame(17, 3, Purged),
                frame(16, 3, Entry),
                frame(16, 2, Truncate),
            ],
        ];
        let sink: Arc<dyn CommitSink> = Arc::new(Nobody);
        let (mut direct, mut apart) = (CommitBuffer::new(), CommitBuffer::new());
        for (call, seed) in calls.iter().zip([7, 8, 7]) {
            let (mut draft, mut commits) = (CommitBuffer::new(), Vec::new());
            for frame in call {
                commits.push(Commit {
                    owner: frame.owner,
                    index: frame.index,
                    kind: frame.kind,
                    token: frame.index,
                    location: Location {
                        segment: 0,
                        commit_at: 0,
                        frame_at: draft.length() as u32,
                    },
                });
                draft.push(frame, seed, None).unwrap();
                direct.push(frame, 7, Some((frame.index, &sink))).unwrap();
            }
            apart.append(&mut draft, &commits, &sink);
        }
        assert_eq!(direct.bytes, apart.bytes);
        assert_eq!(
            (direct.frames, direct.frame_bytes, direct.urgent),
            (apart.frames, apart.frame_bytes, apart.urgent)
        );
        assert_eq!(direct.summary.entries, apart.summary.entries);
        assert_eq!(direct.summary.truncates, apart.summary.truncates);
        assert_eq!(direct.summary.marks, apart.summary.marks);
        assert_eq!(direct.sinks[0].commits, apart.sinks[0].commits);
    }
}

//! One log for the whole server: every stream, raft group and the catalog append frames to it, and one
//! write and one sync make all of them durable that came while the last ones ran.
//!
//! - `frame`: what is appended, and who hears of it.
//! - `format`: the bytes: segment header, commit, frame.
//! - `buffer`: frames encoded into a commit while the previous one is written.
//! - `draft`: the frames of one call, encoded before they are appended to that.
//! - `segment`: one segment file: begun, written, read.
//! - `spares`: segments that are ready to be begun, filled with zeros in the background or recycled.
//! - `meter`: what has been done, counted.
//! - `ledger`: which owners still need which segment.
//! - `recover`: from files back to frames; torn tails and corruption told apart.
//! - `core`: all of that without a thread, so that a simulated disk can drive it.
//! - `thread`: [`Journal`], the core on a thread of its own.
//!
//! # Invariant
//! Nobody is told that a frame is committed before it is where the [`Durability`] says. After a failed write or
//! sync nothing is ever committed again: what the disk holds is no longer known.

mod buffer;
mod core;
mod draft;
pub mod format;
mod frame;
mod ledger;
mod meter;
mod options;
mod recover;
mod replay;
mod segment;
mod spares;
#[cfg(test)]
mod tests;
mod thread;

pub use self::core::JournalCore;
pub use frame::{Commit, CommitSink, Frame, FrameKind, JournalError, Location, Owner, Payload};
pub use ledger::{Pressure, PressureLevel};
pub use meter::{HistogramFigures, JournalFigures, JournalMeter};
pub use options::{Durability, JournalOptions};
pub use recover::{
    OpenJournalError, SegmentContent, SegmentSummary, SegmentUnreadable, inspect, peek,
};
pub use replay::{Damage, DamageCause, OwnerReplay, Replay, ReplayedFrame, TornTail, Victim};
pub use thread::Journal;

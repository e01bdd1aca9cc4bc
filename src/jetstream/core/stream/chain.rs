//! Which entries fit: the rule by which every replica tells an entry to apply from one to pass over.

use crate::jetstream::core::codec::{DecodeError, Reader, Writer};
use crate::jetstream::core::entry::EntryHeader;

/// Where in its log an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// Its index.
    pub index: u64,
    /// The Raft term that it was committed in; a log of one replica knows none.
    pub term: Option<u64>,
}

/// The chain that the last applied entry belongs to.
///
/// # Invariant
/// Between two entries of a chain nothing else has changed the stream, so that what each was decided upon is what it is applied to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The term of the last entry that fitted.
    pub(super) term: u64,
    base_index: u64,
    ordinal: u64,
    /// The last entry that changed the stream.
    changed_index: u64,
}

impl Chain {
    /// A stream that came to be by the entry at `index`.
    pub(super) fn born(index: u64) -> Self {
        Self {
            changed_index: index,
            ..Self::default()
        }
    }

    /// Whether an entry follows what was applied before.
    pub(super) fn fits(&self, at: LogPlace, header: &EntryHeader) -> bool {
        let of_its_term = at.term.is_none_or(|term| term == header.term);
        let is_next = header.ordinal == self.ordinal.saturating_add(1);
        #[cfg(test)]
        let is_next = is_next || museum::is_open(museum::Piece::AnyOrdinal);
        let continues = header.term == self.term && header.base_index == self.base_index && is_next;
        let is_unchanged = (self.changed_index..at.index).contains(&header.base_index);
        #[cfg(test)]
        let is_unchanged = is_unchanged || museum::is_open(museum::Piece::AnyBase);
        let begins = header.term >= self.term && header.ordinal == 1 && is_unchanged;
        of_its_term && (continues || begins)
    }

    /// An entry that fits is applied.
    pub(super) fn follow(&mut self, index: u64, header: &EntryHeader) {
        *self = Self {
            term: header.term,
            base_index: header.base_index,
            ordinal: header.ordinal,
            changed_index: index,
        };
    }

    /// Takes an entry for the next one, although others before it are lost.
    pub(super) fn skip_to(&mut self, header: &EntryHeader) {
        self.term = header.term;
        self.base_index = header.base_index;
        self.ordinal = header.ordinal.saturating_sub(1);
    }

    /// Terms are those of another group from here on, or of none.
    pub(super) fn begin_group(&mut self) {
        self.term = 0;
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.term);
        writer.number(self.base_index);
        writer.number(self.ordinal);
        writer.number(self.changed_index);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            term: reader.u64()?,
            base_index: reader.number()?,
            ordinal: reader.number()?,
            changed_index: reader.number()?,
        })
    }
}

/// The rule with a part of it missing: simulations have to find what comes of that.
#[cfg(test)]
pub(crate) mod museum {
    use std::cell::Cell;

    /// What is missing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Piece {
        /// Any place in a chain follows any other.
        AnyOrdinal,
        /// A chain may begin on a state that is over.
        AnyBase,
        /// Whoever begins to lead has forgotten the ids of messages.
        ForgottenIds,
    }

    thread_local! {
        static OPEN: Cell<Option<Piece>> = const { Cell::new(None) };
    }

    /// On this thread the rule lacks that from now on.
    pub(crate) fn open(piece: Piece) {
        OPEN.set(Some(piece));
    }

    pub(in crate::jetstream::core::stream) fn is_open(piece: Piece) -> bool {
        OPEN.get() == Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(term: u64, base_index: u64, ordinal: u64) -> EntryHeader {
        EntryHeader {
            term,
            time_ns: 0,
            base_sequence: 0,
            base_index,
            ordinal,
        }
    }

    fn at(index: u64, term: u64) -> LogPlace {
        LogPlace {
            index,
            term: Some(term),
        }
    }

    #[test]
    fn a_chain_is_applied_in_order_once_and_without_a_gap() {
        let mut chain = Chain::born(1);
        assert!(chain.fits(at(3, 1), &header(1, 2, 1)));
        chain.follow(3, &header(1, 2, 1));
        assert!(!chain.fits(at(4, 1), &header(1, 2, 1)), "once");
        assert!(!chain.fits(at(4, 1), &header(1, 2, 3)), "no gap");
        assert!(chain.fits(at(4, 1), &header(1, 2, 2)));
    }

    #[test]
    fn the_chain_that_gets_ahead_ends_the_others() {
        let mut chain = Chain::born(1);
        chain.follow(5, &header(2, 4, 1));
        // Decided on the state before entry 5, by an earlier or by another chain.
        assert!(!chain.fits(at(6, 2), &header(2, 3, 1)));
        assert!(!chain.fits(at(6, 3), &header(3, 4, 1)));
        assert!(chain.fits(at(6, 3), &header(3, 5, 1)));
        chain.follow(7, &header(3, 6, 1));
        assert!(!chain.fits(at(8, 3), &header(2, 4, 2)), "over for good");
    }

    #[test]
    fn the_terms_of_a_new_group_begin_anew() {
        let mut chain = Chain::born(1);
        chain.follow(5, &header(7, 4, 1));
        assert!(!chain.fits(at(6, 1), &header(1, 5, 1)));
        chain.begin_group();
        assert!(chain.fits(at(6, 1), &header(1, 5, 1)));
    }

    #[test]
    fn an_entry_that_another_term_committed_fits_nowhere() {
        let chain = Chain::born(1);
        assert!(!chain.fits(at(3, 2), &header(1, 2, 1)));
        let unknown = LogPlace {
            index: 3,
            term: None,
        };
        assert!(chain.fits(unknown, &header(1, 2, 1)));
        assert!(!chain.fits(at(3, 1), &header(1, 3, 1)), "decided on itself");
    }
}

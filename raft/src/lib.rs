//! Replicated groups: openraft on top of the shared journal.

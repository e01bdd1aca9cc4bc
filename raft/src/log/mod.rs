//! A group's log in the shared journal.

//! What accounts share: the `exports` and `imports` of each.
//!
//! In reading order: [`read`] takes the blocks apart, [`settle`] looks at all accounts together: whether an import has an export, and
//! whether imports go round in a circle.

mod cycles;
mod read;
mod settle;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::subject::transform::Transform;

pub(super) use read::{Imported, Shared, exports, imports};
pub(super) use settle::settle;

/// How long an answer of an export may take that does not say how long.
const THRESHOLD_DEFAULT: Duration = Duration::from_secs(120);

/// What an account offers others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exports {
    /// Subjects that others may listen to.
    pub streams: Vec<StreamExport>,
    /// Subjects that others may ask.
    pub services: Vec<ServiceExport>,
}

/// A pattern that others may listen to.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamExport {
    /// The pattern.
    pub subject: String,
    /// Who may.
    pub approval: Approval,
}

/// A pattern that others may ask.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceExport {
    /// The pattern.
    pub subject: String,
    /// Who may.
    pub approval: Approval,
    /// What is answered.
    pub terms: ServiceTerms,
    /// Where it is told how long answers took.
    pub latency: Option<Latency>,
    /// Whether messages that are traced are followed into this account.
    pub allow_trace: bool,
}

/// Which accounts may import something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// These; everybody when none is named.
    pub accounts: Vec<String>,
    /// The token, counted from one, at which the importer's name has to stand.
    pub token_position: Option<usize>,
}

/// How a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTerms {
    /// How many messages an answer has.
    pub response: ResponseType,
    /// How long the answer, or the next message of it, may take.
    pub threshold: Duration,
}

impl Default for ServiceTerms {
    fn default() -> Self {
        Self {
            response: ResponseType::default(),
            threshold: THRESHOLD_DEFAULT,
        }
    }
}

/// How many messages an answer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseType {
    /// One.
    #[default]
    Singleton,
    /// Any number, until an empty one.
    Streamed,
    /// One, in pieces, until an empty one.
    Chunked,
}

impl ResponseType {
    /// As monitoring names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Singleton => "Singleton",
            Self::Streamed => "Streamed",
            Self::Chunked => "Chunked",
        }
    }
}

/// Where it is told how long answers took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// How many of a hundred requests are measured; 0 is those whose headers ask for it.
    pub sampling: u8,
    /// Where to.
    pub subject: String,
}

/// What an account takes from others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imports {
    /// Subjects of others that it listens to.
    pub streams: Vec<StreamImport>,
    /// Subjects of others that it asks.
    pub services: Vec<ServiceImport>,
}

/// A subject of another account that this one listens to.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamImport {
    /// The other account.
    pub account: String,
    /// Its pattern.
    pub subject: String,
    /// What it is here.
    pub local: String,
    /// From the other's subjects to ours.
    pub renaming: Renaming,
    /// From our patterns to the other's.
    pub back: Renaming,
    /// Whether messages that are traced are followed into this account.
    pub allow_trace: bool,
}

/// A subject of another account that this one asks.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceImport {
    /// The other account.
    pub account: String,
    /// Its pattern.
    pub subject: String,
    /// What it is here.
    pub local: String,
    /// From our subjects to the other's.
    pub renaming: Renaming,
    /// Whether the other account sees who asks.
    pub share: bool,
    /// How the other account answers.
    pub terms: ServiceTerms,
    /// Where the other account tells how long answers took.
    pub latency: Option<Latency>,
    /// Whether messages that are traced are followed into the other account.
    pub allow_trace: bool,
}

/// What a subject is on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renaming {
    /// The same.
    Same,
    /// Always this one.
    To(String),
    /// What this makes of it.
    By(Box<Transform>),
}

impl Renaming {
    /// Writes what the subject is on the other side. False when that would be too long to be a subject.
    pub fn apply(&self, subject: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        match self {
            Self::Same => out.extend_from_slice(subject),
            Self::To(to) => out.extend_from_slice(to.as_bytes()),
            // Nothing of an import is drawn by lot: only wildcards are placed.
            Self::By(transform) => return transform.apply(subject, &mut || 0, out).is_ok(),
        }
        true
    }
}

//! Subject transforms: a literal subject that a pattern matches becomes another one.
//!
//! The destination's tokens are literals, the source's wildcards (`$1`, `{{wildcard(1)}}`), or what a function makes of them: see
//! [`function`]. Account mappings, imports and the streams' own transforms all use them. Which destination a weighted mapping takes is
//! in [`weighted`].
//!
//! # Invariant
//! Nothing here draws randomness: whoever transforms passes it in, so that a state machine can replay.

mod error;
mod function;
mod reverse;
pub mod weighted;

pub use error::TransformError;
pub use reverse::{tokenized, untokenized};
pub use weighted::{Destination, Mapped, Mapping, MappingError, Mappings};

use function::Function;

use super::relation::subject_matches;
use super::validate::tokens;

/// Longest subject that a transform makes. Functions repeat and split tokens, so a result may be longer than any line could carry.
pub const TRANSFORMED_BYTES_MAX: usize = 64 * 1024;

/// A source pattern and what its matches become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: String,
    destination: String,
    pieces: Vec<Piece>,
    /// What of the source's tokens goes behind the destination's: those that its `>` stood for.
    tail_from: Option<usize>,
}

/// One token of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Function(Function),
}

/// The transformed subject would be longer than [`TRANSFORMED_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transformed subject is longer than {TRANSFORMED_BYTES_MAX} bytes")]
pub struct TooLong;

/// How much a destination may do with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Everything.
    Any,
    /// What can be undone: every wildcard is placed and nothing else is done to it.
    Reversible,
}

/// What a pattern consists of.
struct Shape<'a> {
    tokens: Vec<&'a str>,
    /// At which tokens its `*` are.
    wildcards: Vec<usize>,
    has_tail: bool,
}

impl<'a> Shape<'a> {
    /// `None` when it is no pattern. White space is not looked for, as functions may have some between their arguments.
    fn of(pattern: &'a str) -> Option<Self> {
        let tokens: Vec<_> = pattern.split('.').collect();
        let (last, before) = tokens.split_last()?;
        if last.is_empty() || before.iter().any(|token| token.is_empty() || *token == ">") {
            return None;
        }
        let has_tail = *last == ">";
        let is_wildcard = |(at, token): (usize, &&str)| (*token == "*").then_some(at);
        let wildcards = tokens.iter().enumerate().filter_map(is_wildcard).collect();
        Some(Self {
            tokens,
            wildcards,
            has_tail,
        })
    }
}

impl Transform {
    /// A transform of all that matches `source`; an empty source is everything. An empty destination is no transform: callers for
    /// whom that means "as it is" ask for none.
    pub fn new(source: &str, destination: &str) -> Result<Self, TransformError> {
        Self::with_use(source, destination, Use::Any)
    }

    /// A transform that can be undone, as imports need it: every wildcard of the source is placed, by `$n` or `wildcard(n)` only.
    pub fn reversible(source: &str, destination: &str) -> Result<Self, TransformError> {
        Self::with_use(source, destination, Use::Reversible)
    }

    /// As [`Transform::new`], where the destination is also looked at for white space outside of functions: for mappings.
    pub fn for_mapping(source: &str, destination: &str) -> Result<Self, TransformError> {
        let mut after_tail = false;
        for token in destination.split('.') {
            if token.is_empty() || after_tail {
                return Err(TransformError::InvalidDestination {
                    token: token.to_owned(),
                });
            }
            after_tail = token == ">";
            if !function::looks_like_one(token) && token.contains(is_white) {
                return Err(TransformError::InvalidDestination {
                    token: String::new(),
                });
            }
        }
        Self::new(source, destination)
    }

    fn with_use(source: &str, destination: &str, usage: Use) -> Result<Self, TransformError> {
        let source = if source.is_empty() { ">" } else { source };
        let from = Shape::of(source).ok_or(TransformError::BadSubject)?;
        let to = Shape::of(destination).ok_or(TransformError::BadSubject)?;
        if !to.wildcards.is_empty() || from.has_tail != to.has_tail {
            return Err(TransformError::BadSubject);
        }
        let mut pieces = Vec::with_capacity(to.tokens.len());
        let mut placed = 0;
        let has_wildcards = !from.wildcards.is_empty() || from.has_tail;
        for token in &to.tokens {
            let Some(function) = Function::parse(token)? else {
                pieces.push(Piece::Literal((*token).into()));
                continue;
            };
            if has_wildcards && usage == Use::Reversible && !function.is_wildcard() {
                return Err(TransformError::NotForImports {
                    token: (*token).to_owned(),
                });
            }
            placed += function.wildcard_count();
            let function = match has_wildcards {
                true => function.at_tokens(token, &from.wildcards)?,
                false => function.of_a_literal(token)?,
            };
            pieces.push(Piece::Function(function));
        }
        if usage == Use::Reversible && placed < from.wildcards.len() {
            return Err(TransformError::WildcardsUnused {
                destination: destination.to_owned(),
            });
        }
        if to.has_tail {
            pieces.pop();
        }
        Ok(Self {
            tail_from: to.has_tail.then(|| from.tokens.len() - 1),
            source: source.to_owned(),
            destination: destination.to_owned(),
            pieces,
        })
    }

    /// The pattern of what is transformed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it becomes, as it was written.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Whether a literal subject is one that this transforms.
    pub fn matches(&self, subject: &[u8]) -> bool {
        subject_matches(subject, &self.source)
    }

    /// Writes what a subject becomes into `out`, which is emptied before. The subject is one that the source matches; of others,
    /// tokens that are missing are empty. Results may have empty tokens, where a token consists of nothing but what it is split at.
    pub fn apply(
        &self,
        subject: &[u8],
        random: &mut dyn FnMut() -> u32,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        out.clear();
        if self.source == ">" && self.destination == ">" {
            out.extend_from_slice(subject);
            return Ok(());
        }
        for (at, piece) in self.pieces.iter().enumerate() {
            if at > 0 {
                out.push(b'.');
            }
            match piece {
                Piece::Literal(token) => out.extend_from_slice(token.as_bytes()),
                Piece::Function(function) => function.apply(subject, random, out),
            }
            if out.len() > TRANSFORMED_BYTES_MAX {
                return Err(TooLong);
            }
        }
        if let Some(from) = self.tail_from {
            if !self.pieces.is_empty() {
                out.push(b'.');
            }
            for (at, token) in tokens(subject).skip(from).enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(token);
            }
        }
        match out.len() > TRANSFORMED_BYTES_MAX {
            true => Err(TooLong),
            false => Ok(()),
        }
    }
}

fn is_white(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

#[cfg(test)]
mod tests;

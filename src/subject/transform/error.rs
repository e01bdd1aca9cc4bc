//! What can be wrong with a transform, in the reference's words.

use thiserror::Error;

/// Why a source and a destination make no transform. `token` is the destination's token that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(
    missing_docs,
    reason = "the fields are told by the type's documentation"
)]
pub enum TransformError {
    /// One of both is no subject, or they do not go together.
    #[error("invalid subject")]
    BadSubject,
    /// A destination of a mapping is no subject.
    #[error("invalid mapping destination: invalid transform{}", inside(.token))]
    InvalidDestination { token: String },
    /// Not every wildcard is placed where it has to be.
    #[error("invalid mapping destination: not using all of the token wildcard(s) in {destination}")]
    WildcardsUnused { destination: String },
    /// No function is called so.
    #[error("invalid mapping destination: unknown function in {token}")]
    UnknownFunction { token: String },
    /// The source has no such wildcard.
    #[error("invalid mapping destination: wildcard index out of range in {token}")]
    IndexOutOfRange { token: String },
    /// A function wants more.
    #[error("invalid mapping destination: not enough arguments passed to the function in {token}")]
    NotEnoughArguments { token: String },
    /// A function wants less.
    #[error("invalid mapping destination: too many arguments passed to the function in {token}")]
    TooManyArguments { token: String },
    /// An argument is none that the function can take.
    #[error(
        "invalid mapping destination: function argument is invalid or in the wrong format in {token}"
    )]
    InvalidArgument { token: String },
    /// Imports must be reversible.
    #[error(
        "invalid mapping destination: the only mapping function allowed for import transforms is {{{{Wildcard()}}}} in {token}"
    )]
    NotForImports { token: String },
}

fn inside(token: &str) -> String {
    match token.is_empty() {
        true => String::new(),
        false => format!(" in {token}"),
    }
}

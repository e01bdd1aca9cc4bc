//! What an API reply says when a request failed.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ErrorCode;

/// An error as it stands in replies and failed publish acks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The HTTP-like class.
    pub code: u16,
    /// Which error it is; what clients tell errors apart by.
    pub err_code: u16,
    /// The text for people.
    pub description: Cow<'static, str>,
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.class(),
            err_code: code as u16,
            description: Cow::Borrowed(code.template()),
        }
    }
}

impl ErrorCode {
    /// This error with `value` in place of the placeholder in its text.
    pub fn with(self, value: impl fmt::Display) -> ApiError {
        let template = self.template();
        let description = match (template.find('{'), template.rfind('}')) {
            (Some(start), Some(end)) if start < end => format!(
                "{}{value}{}",
                template.get(..start).unwrap_or_default(),
                template.get(end + 1..).unwrap_or_default()
            ),
            _ => template.to_owned(),
        };
        ApiError {
            code: self.class(),
            err_code: self as u16,
            description: Cow::Owned(description),
        }
    }

    /// This error with each named placeholder replaced.
    pub fn with_all(self, values: &[(&str, &dyn fmt::Display)]) -> ApiError {
        let mut description = self.template().to_owned();
        for (name, value) in values {
            description = description.replace(&format!("{{{name}}}"), &value.to_string());
        }
        ApiError {
            code: self.class(),
            err_code: self as u16,
            description: Cow::Owned(description),
        }
    }
}

impl ApiError {
    /// Whether it is this error.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.err_code == code as u16
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_code_of_the_reference_once() {
        assert_eq!(ErrorCode::ALL.len(), 222);
        for (offset, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(*code as usize, 10002 + offset);
        }
    }

    #[test]
    fn placeholders_are_filled() {
        assert_eq!(
            ErrorCode::SequenceNotFound.with(2).description,
            "sequence 2 not found"
        );
        assert_eq!(
            ErrorCode::StreamExternalApiOverlap
                .with_all(&[("prefix", &"a"), ("subject", &"b")])
                .description,
            "stream external api prefix a must not overlap with b"
        );
        assert_eq!(ApiError::from(ErrorCode::StreamNotFound).code, 404);
    }
}

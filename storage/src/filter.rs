//! Subject filters: which subjects a read is about.
//!
//! A subject is a series of tokens separated by `.`. In a filter the token `*` stands for exactly one
//! token and a final `>` for one or more.

use bytes::Bytes;

/// One pattern over subjects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Bytes,
    literal: bool,
}

impl Pattern {
    /// Takes any bytes; a pattern that is not a valid subject simply matches nothing but itself.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let literal = !text
            .split(|&byte| byte == b'.')
            .any(|token| token == b"*" || token == b">");
        Self { text, literal }
    }

    /// Names exactly this subject, whatever its tokens look like.
    pub fn literal(subject: &[u8]) -> Self {
        Self {
            text: Bytes::copy_from_slice(subject),
            literal: true,
        }
    }

    /// The pattern as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether it names exactly one subject.
    pub fn is_literal(&self) -> bool {
        self.literal
    }

    /// Whether it matches every subject.
    pub fn is_everything(&self) -> bool {
        !self.literal && self.text.as_ref() == b">"
    }

    /// Whether `subject` (a literal one) matches.
    pub fn matches(&self, subject: &[u8]) -> bool {
        if self.literal {
            return self.text.as_ref() == subject;
        }
        let mut tokens = subject.split(|&byte| byte == b'.');
        for wanted in self.text.split(|&byte| byte == b'.') {
            match (wanted, tokens.next()) {
                (b">", Some(_)) => return true,
                (_, None) => return false,
                (b"*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

/// A set of patterns; a subject matches when any of them does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    patterns: Vec<Pattern>,
}

impl Filter {
    /// Matches every subject.
    pub fn everything() -> Self {
        Self::new([&b">"[..]])
    }

    /// A filter of the given patterns; none at all means everything.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut patterns: Vec<Pattern> = patterns
            .into_iter()
            .map(|text| Pattern::new(Bytes::copy_from_slice(text)))
            .collect();
        if patterns.is_empty() {
            patterns.push(Pattern::new(&b">"[..]));
        }
        if patterns.iter().any(Pattern::is_everything) {
            patterns.retain(Pattern::is_everything);
            patterns.truncate(1);
        }
        Self { patterns }
    }

    /// Matches exactly one subject.
    pub fn literal(subject: &[u8]) -> Self {
        Self {
            patterns: vec![Pattern::literal(subject)],
        }
    }

    /// The patterns, at least one.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether every subject matches.
    pub fn is_everything(&self) -> bool {
        self.patterns.iter().any(Pattern::is_everything)
    }

    /// Whether `subject` matches any pattern.
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_tokens_only() {
        for (pattern, subject, matches) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("a*", "ab", false),
            ("a*", "a*", true),
        ] {
            let filter = Filter::new([pattern.as_bytes()]);
            assert_eq!(
                filter.matches(subject.as_bytes()),
                matches,
                "{pattern} on {subject}"
            );
        }
    }
}

//! The grammar of subjects and queue names.

/// The tokens of a subject, empty ones included.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    subject.split(|byte| *byte == b'.')
}

/// How many tokens a subject has; none when it is empty.
pub fn token_count(subject: impl AsRef<[u8]>) -> usize {
    let subject = subject.as_ref();
    if subject.is_empty() {
        0
    } else {
        memchr::memchr_iter(b'.', subject).count() + 1
    }
}

/// Whether this may be subscribed to: no empty token, no white space, `>` only at the end.
pub fn is_valid_subject(subject: impl AsRef<[u8]>) -> bool {
    let mut after_tail = false;
    for token in tokens(subject.as_ref()) {
        if token.is_empty() || after_tail || token.iter().any(|byte| is_white(*byte)) {
            return false;
        }
        after_tail = token == b">";
    }
    true
}

/// Whether this names exactly one subject: no empty token and no wildcard.
///
/// Like the reference it does not look for white space, which the protocol cannot carry anyway.
pub fn is_valid_literal(subject: impl AsRef<[u8]>) -> bool {
    tokens(subject.as_ref()).all(|token| !token.is_empty() && token != b"*" && token != b">")
}

/// Whether this may name a queue group.
pub fn is_valid_queue(queue: impl AsRef<[u8]>) -> bool {
    let queue = queue.as_ref();
    !queue.is_empty() && !queue.iter().any(|byte| is_white(*byte))
}

/// Whether a token of the subject is a wildcard.
pub fn has_wildcard(subject: impl AsRef<[u8]>) -> bool {
    tokens(subject.as_ref()).any(|token| token == b"*" || token == b">")
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_no_empty_tokens_and_end_with_their_tail() {
        for good in ["a", "a.b", "*", ">", "a.*.b", "a.>", "a*b", "a>.b", "ünï.☃"] {
            assert!(is_valid_subject(good), "{good}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a b", "a.\t", "a.\n.b",
        ] {
            assert!(!is_valid_subject(bad), "{bad:?}");
        }
    }

    #[test]
    fn literals_have_no_wildcard_tokens() {
        for good in ["a", "a.b", "a*b", "a.b>"] {
            assert!(is_valid_literal(good), "{good}");
        }
        for bad in ["", "a..b", "*", "a.*", "a.>"] {
            assert!(!is_valid_literal(bad), "{bad:?}");
        }
        assert!(has_wildcard("a.*.b") && has_wildcard(">") && !has_wildcard("a*.b"));
    }

    #[test]
    fn tokens_are_counted() {
        assert_eq!(token_count(""), 0);
        assert_eq!(token_count("a.b.c"), 3);
        assert!(is_valid_queue("workers") && !is_valid_queue("") && !is_valid_queue("a b"));
    }
}

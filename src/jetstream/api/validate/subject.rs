//! Relations between subjects with wildcards.

/// Whether `subject` can be subscribed to: no empty token, no blank, `>` only at the end.
pub fn is_valid(subject: &str) -> bool {
    if subject.is_empty() {
        return false;
    }
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let blank = token
            .bytes()
            .any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c));
        if token.is_empty() || blank || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

/// Whether `subject` has no wildcard.
pub fn is_literal(subject: &str) -> bool {
    !subject.split('.').any(|token| token == "*" || token == ">")
}

/// Whether some subject matches both.
pub fn collide(left: &str, right: &str) -> bool {
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == "*" || other == "*" || one == other => {}
            _ => return false,
        }
    }
}

/// Whether everything that matches `subject` also matches `pattern`.
pub fn is_subset(subject: &str, pattern: &str) -> bool {
    let mut subject = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, subject.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_valid_when_every_token_says_something() {
        for (subject, valid) in [
            ("a", true),
            ("a.b", true),
            ("a.*.>", true),
            ("a*", true),
            ("", false),
            ("a..b", false),
            (".a", false),
            ("a.", false),
            ("a b", false),
            ("a.>.b", false),
            ("a.\t", false),
        ] {
            assert_eq!(is_valid(subject), valid, "{subject:?}");
        }
    }

    #[test]
    fn subjects_collide_when_one_subject_can_match_both() {
        for (left, right, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a.*", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", ">", true),
            ("a.*", "a.b.c", false),
            ("*.b.>", "a.*.c", true),
        ] {
            assert_eq!(collide(left, right), expected, "{left} {right}");
            assert_eq!(collide(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn a_subset_matches_nothing_that_the_pattern_does_not() {
        for (subject, pattern, expected) in [
            ("a", "a", true),
            ("a.b", "a.*", true),
            ("a.*", "a.b", false),
            ("a.*", "a.*", true),
            ("a.>", "a.*", false),
            ("a.*", "a.>", true),
            ("a.>", "a.>", true),
            ("a", "a.>", false),
            ("a.b.c", "a.*", false),
            ("*", ">", true),
        ] {
            assert_eq!(is_subset(subject, pattern), expected, "{subject} {pattern}");
        }
    }
}

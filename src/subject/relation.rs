//! How two subjects or patterns relate: matching, inclusion, overlap.

use super::validate::tokens;

/// Whether a literal subject is matched by a pattern.
pub fn subject_matches(subject: impl AsRef<[u8]>, pattern: impl AsRef<[u8]>) -> bool {
    is_subset(subject, pattern)
}

/// Whether everything that `inner` matches is also matched by `outer`.
pub fn is_subset(inner: impl AsRef<[u8]>, outer: impl AsRef<[u8]>) -> bool {
    let mut inner = tokens(inner.as_ref());
    let mut outer = tokens(outer.as_ref());
    loop {
        match (inner.next(), outer.next()) {
            (None, None) => return true,
            (Some([]), _) | (_, Some([])) => return false,
            (Some(_), Some(b">")) => return true,
            (Some(b">"), _) => return false,
            (Some(_), Some(b"*")) => {}
            (Some(have), Some(want)) if have == want => {}
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both patterns.
pub fn overlap(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> bool {
    let mut a = tokens(a.as_ref());
    let mut b = tokens(b.as_ref());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some([]), _) | (_, Some([])) | (None, _) | (_, None) => return false,
            (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(have), Some(want)) if have == want => {}
            _ => return false,
        }
    }
}

/// The pattern of all that both patterns match, if there is any.
pub fn intersection(a: impl AsRef<[u8]>, b: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let (a, b) = (a.as_ref(), b.as_ref());
    if !overlap(a, b) {
        return None;
    }
    let (mut ours, mut theirs) = (tokens(a), tokens(b));
    let mut both: Vec<&[u8]> = Vec::new();
    loop {
        match (ours.next(), theirs.next()) {
            (Some(b">"), Some(token)) => {
                both.push(token);
                both.extend(theirs);
                break;
            }
            (Some(token), Some(b">")) => {
                both.push(token);
                both.extend(ours);
                break;
            }
            (Some(b"*"), Some(token)) | (Some(token), Some(_)) => both.push(token),
            _ => break,
        }
    }
    Some(both.join(&b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_what_they_should() {
        for (subject, pattern) in [
            ("a", "a"),
            ("a", "*"),
            ("a", ">"),
            ("a.b.c", "a.>"),
            ("a.b.c", "*.b.*"),
            ("a*b", "a*b"),
        ] {
            assert!(subject_matches(subject, pattern), "{subject} {pattern}");
        }
        for (subject, pattern) in [
            ("a", "b"),
            ("a", "a.>"),
            ("a.b", "*"),
            ("a.b", "a.b.c"),
            ("a", "a*"),
            ("a..b", "a.>.b"),
        ] {
            assert!(!subject_matches(subject, pattern), "{subject} {pattern}");
        }
    }

    #[test]
    fn inclusion_and_overlap_know_wildcards_on_both_sides() {
        assert!(is_subset("a.*", "a.>") && is_subset("a.*.c", "*.*.c") && is_subset(">", ">"));
        assert!(!is_subset("a.>", "a.*") && !is_subset("*", "a"));
        assert!(overlap("a.*", "*.b") && overlap("a.>", "a.b.c") && overlap(">", "*"));
        assert!(!overlap("a.*", "a") && !overlap("a.*", "a.b.c") && !overlap("a.>", "a"));
    }

    #[test]
    fn an_intersection_is_as_narrow_as_both() {
        for (a, b, both) in [
            ("a.*", "*.b", Some("a.b")),
            ("a.>", "a.*.c", Some("a.*.c")),
            ("*.>", "a.>", Some("a.>")),
            (">", "a", Some("a")),
            ("*", "*", Some("*")),
            ("a.*", "a.b.c", None),
        ] {
            let expected = both.map(|both| both.as_bytes().to_vec());
            assert_eq!(intersection(a, b), expected, "{a} {b}");
            assert_eq!(intersection(b, a), expected, "{b} {a}");
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab*]", 1..4).prop_flat_map(|tokens| {
            prop_oneof![
                Just(tokens.join(".")),
                Just(format!("{}.>", tokens.join("."))),
                Just(">".to_owned())
            ]
        })
    }

    /// Every literal over `a` and `b` of up to five tokens.
    fn literals() -> Vec<String> {
        let mut all = vec![];
        let mut last = vec![String::new()];
        for _ in 0..5 {
            last = last
                .iter()
                .flat_map(|head| ["a", "b"].map(|token| format!("{head}.{token}")))
                .collect();
            all.extend(last.iter().map(|subject| subject[1..].to_owned()));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn inclusion_and_overlap_agree_with_matching(a in pattern(), b in pattern()) {
            let both = |subject: &String| subject_matches(subject, &a) && subject_matches(subject, &b);
            prop_assert_eq!(overlap(&a, &b), literals().iter().any(both));
            let common = intersection(&a, &b);
            for literal in literals() {
                let in_common = common.as_ref().is_some_and(|common| subject_matches(&literal, common));
                prop_assert_eq!(in_common, both(&literal));
            }
            // A `*` stands for any token, also for one that is neither `a` nor `b`.
            let generic = a.replace('*', "x");
            let outer_holds = literals()
                .iter()
                .chain([&generic])
                .filter(|subject| subject_matches(subject, &a))
                .all(|subject| subject_matches(subject, &b));
            if is_subset(&a, &b) {
                prop_assert!(outer_holds);
            } else if !a.ends_with('>') {
                prop_assert!(!outer_holds);
            }
        }
    }
}

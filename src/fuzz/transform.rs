//! Transforms of subjects, which streams' configurations and operators write.

use super::Target;
use crate::subject::transform::{TRANSFORMED_BYTES_MAX, Transform};

pub(super) const TARGETS: &[Target] = &[Target {
    name: "subject_transform",
    run: transform,
    seeds: transforms,
}];

fn transforms() -> Vec<Vec<u8>> {
    [
        &b"a.*.*\nb.$2.{{wildcard(1)}}\na.x.y"[..],
        b"*.>\n{{partition(10,1)}}.{{ SliceFromLeft( 1 , 3 ) }}.>\n1234567.b.c",
        b"*\n{{split(1,-)}}.{{random(5)}}.{{right(1,2)}}.{{splitfromright(1,2)}}\n-ab-c--d-",
        b"\nprefix.>\na",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// A source, a destination and a subject, a line each.
fn transform(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (source, destination) = (lines.next(), lines.next());
    let subject = lines.next().unwrap_or_default().as_bytes();
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    let _ = Transform::for_mapping(source, destination);
    let mut out = Vec::new();
    if let Ok(transform) = Transform::new(source, destination)
        && transform.apply(subject, &mut || 7, &mut out).is_ok()
    {
        assert!(out.len() <= TRANSFORMED_BYTES_MAX);
    }
    if let Ok(transform) = Transform::reversible(source, destination) {
        let _ = transform.reversed();
    }
}

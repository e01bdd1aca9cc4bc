use super::reverse::{tokenized, untokenized};
use super::weighted::{Destination, Mapped, Mapping, MappingError, Mappings};
use super::*;

fn made(source: &str, destination: &str, subject: &str) -> String {
    let transform = Transform::new(source, destination)
        .unwrap_or_else(|error| panic!("{source} to {destination}: {error}"));
    assert!(transform.matches(subject.as_bytes()));
    let mut out = b"left from before".to_vec();
    transform
        .apply(subject.as_bytes(), &mut || u32::MAX, &mut out)
        .expect("short");
    String::from_utf8(out).expect("text")
}

#[test]
fn wildcards_and_tails_are_placed() {
    for (source, destination, subject, expected) in [
        ("", "prefix.>", "foo", "prefix.foo"),
        ("foo", "bar", "foo", "bar"),
        ("foo.*.bar.*.baz", "req.$2.$1", "foo.A.bar.B.baz", "req.B.A"),
        (
            "foo.*.bar.*.baz",
            "req.{{wildcard(2)}}.{{ Wildcard( 1 ) }}",
            "foo.A.bar.B.baz",
            "req.B.A",
        ),
        ("baz.>", "my.pre.>", "baz.1.2.3", "my.pre.1.2.3"),
        ("baz.>", ">", "baz.1.2.3", "1.2.3"),
        (">", ">", "a.b", "a.b"),
        ("*", "foo.bar.$1", "foo", "foo.bar.foo"),
        ("foo.*", "foo.$foo", "foo.a", "foo.$foo"),
        ("foo.*", "foo.$0", "foo.a", "foo.foo"),
        ("$JS.*", "$OTHER.$1", "$JS.API", "$OTHER.API"),
    ] {
        assert_eq!(
            made(source, destination, subject),
            expected,
            "{destination}"
        );
    }
}

#[test]
fn tokens_are_cut_and_split() {
    for (destination, subject, expected) in [
        ("{{splitfromleft(1,3)}}", "12345", "123.45"),
        ("{{splitfromleft(1,5)}}", "12345", "12345"),
        ("{{splitfromleft(1,-1)}}", "12345", "12345"),
        ("{{SplitFromRight(1,3)}}", "12345", "12.345"),
        ("{{SliceFromLeft(1,3)}}", "1234567890", "123.456.789.0"),
        ("{{SliceFromLeft(1,5)}}", "1234567890", "12345.67890"),
        ("{{SliceFromRight(1,3)}}", "1234567890", "1.234.567.890"),
        ("{{SliceFromRight(1,5)}}", "1234567890", "12345.67890"),
        ("{{split(1,-)}}", "-abc-def--ghi-", "abc.def.ghi"),
        ("{{split(1, -)}}", "abc-def--ghi-", "abc.def.ghi"),
        ("{{split(1,)}}", "añb", "a.ñ.b"),
        ("{{split(1,--)}}", "a-b--c", "a-b.c"),
        ("{{left(1,2)}}", "12345", "12"),
        ("{{Right(1, 2)}}", "12345", "45"),
        ("{{right(1,9)}}", "12345", "12345"),
    ] {
        assert_eq!(made("*", destination, subject), expected, "{destination}");
    }
}

#[test]
fn partitions_are_those_of_the_reference() {
    // What the reference gives for these; "foobar" is 0xbf9cf968 in FNV-1a's own list of examples.
    for (source, destination, subject, expected) in [
        ("*", "bar.{{partition(10,1)}}", "foo", "bar.3"),
        ("*", "bar.{{Partition(10,1)}}", "baz", "bar.0"),
        ("*", "bar.{{partition(10,1)}}", "qux", "bar.9"),
        ("*.*", "{{partition(10,1,2)}}", "foo.bar", "0"),
        ("*.*", "{{partition(1000,1,2)}}", "foo.bar", "720"),
        ("foo", "{{partition(0)}}", "foo", "0"),
    ] {
        assert_eq!(
            made(source, destination, subject),
            expected,
            "{destination}"
        );
    }
    let whole = made("*.*", "{{partition(1000)}}", "foo.bar");
    assert_eq!(whole, made("foo.bar", "{{partition(1000,1)}}", "foo.bar"));
    assert_ne!(whole, made("*.*", "{{partition(1000,1,2)}}", "foo.bar"));
}

#[test]
fn random_tokens_are_what_is_drawn() {
    assert_eq!(made("a", "b.{{random(10)}}", "a"), "b.7");
    assert_eq!(made("*", "b.{{Random(0)}}.$1", "a"), "b.0.a");
}

#[test]
fn mistakes_are_told_in_the_references_words() {
    let told = |source: &str, destination: &str| {
        let error = Transform::new(source, destination).expect_err(destination);
        error.to_string()
    };
    for (source, destination) in [
        ("foo..", "bar"),
        ("foo.*", "bar.*"),
        ("foo.*", "bar.$1.>"),
        ("foo.>", "bar.baz"),
        ("foo.>.a", "bar.>"),
        ("foo", ""),
    ] {
        assert_eq!(
            told(source, destination),
            "invalid subject",
            "{source} {destination}"
        );
    }
    let wrong = |rest: &str| format!("invalid mapping destination: {rest}");
    for (destination, expected) in [
        ("bar.$2", "wildcard index out of range in $2: [2]"),
        (
            "foo.{{wildcard(2)}}",
            "wildcard index out of range in {{wildcard(2)}}: [2]",
        ),
        (
            "foo.{{unimplemented(1)}}",
            "unknown function in {{unimplemented(1)}}",
        ),
        (
            "foo.{{ wildcard5) }}",
            "unknown function in {{ wildcard5) }}",
        ),
        (
            "foo.{{splitLeft(2,2}}",
            "unknown function in {{splitLeft(2,2}}",
        ),
        ("foo.{{wildCard(1)}}", "unknown function in {{wildCard(1)}}"),
        (
            "foo.{{wildcard()}}",
            "not enough arguments passed to the function in {{wildcard()}}",
        ),
        (
            "foo.{{wildcard(1,2)}}",
            "too many arguments passed to the function in {{wildcard(1,2)}}",
        ),
        (
            "foo.{{left(1)}}",
            "not enough arguments passed to the function in {{left(1)}}",
        ),
        (
            "foo.{{split(1,a,b)}}",
            "too many arguments passed to the function in {{split(1,a,b)}}",
        ),
        (
            "foo.{{random(1,2)}}",
            "not enough arguments passed to the function in {{random(1,2)}}",
        ),
    ] {
        assert_eq!(told("foo.*", destination), wrong(expected));
    }
    for destination in [
        "{{partition()}}",
        "{{random()}}",
        "{{wildcard(foo)}}",
        "{{partition(2147483648)}}",
        "{{random(2147483648)}}",
        "{{left(1,x)}}",
        "{{split(x,-)}}",
        "{{split(1, - )}}",
    ] {
        let expected =
            format!("function argument is invalid or in the wrong format in {destination}");
        assert_eq!(told("foo.*", destination), wrong(&expected));
    }
    assert_eq!(
        told("foo", "bla.{{wildcard(1)}}"),
        wrong("wildcard index out of range in {{wildcard(1)}}"),
    );
}

#[test]
fn what_can_be_undone_places_every_wildcard_and_does_nothing_else() {
    let strict = |source: &str, destination: &str| {
        Transform::reversible(source, destination).map_err(|error| error.to_string())
    };
    assert_eq!(
        strict("foo.*.*", "bar.$2"),
        Err("invalid mapping destination: not using all of the token wildcard(s) in bar.$2".into()),
    );
    assert_eq!(
        strict("foo.*", "bar.{{Partition(2,1)}}"),
        Err("invalid mapping destination: the only mapping function allowed for import transforms is {{Wildcard()}} in {{Partition(2,1)}}".into()),
    );
    assert!(strict("foo.*", "foo.$foo").is_err());

    let forth = strict("foo.*.*", "bar.$2.{{Wildcard(1)}}").expect("reversible");
    let back = forth.reversed().expect("reversed");
    assert_eq!(
        (back.source(), back.destination()),
        ("bar.*.*", "foo.$2.$1")
    );
    let mut there = Vec::new();
    let mut here = Vec::new();
    forth
        .apply(b"foo.b.a", &mut || 0, &mut there)
        .expect("short");
    back.apply(&there, &mut || 0, &mut here).expect("short");
    assert_eq!((&*there, &*here), (&b"bar.a.b"[..], &b"foo.b.a"[..]));
    let three = strict("a.*.*.*", "b.$2.$3.$1").expect("reversible");
    three
        .apply(b"a.x.y.z", &mut || 0, &mut there)
        .expect("short");
    three
        .reversed()
        .expect("reversed")
        .apply(&there, &mut || 0, &mut here)
        .expect("short");
    assert_eq!(here, b"a.x.y.z");
    let plain = strict("a.>", "b.>")
        .expect("reversible")
        .reversed()
        .expect("reversed");
    assert_eq!((plain.source(), plain.destination()), ("b.>", "a.>"));
}

#[test]
fn patterns_and_destinations_turn_into_each_other() {
    assert_eq!(tokenized("foo.*.x.*.>"), "foo.$1.x.$2.>");
    assert_eq!(untokenized("bar"), ("bar".into(), vec![]));
    assert_eq!(
        untokenized("foo.$2.{{wildcard(1)}}.$x"),
        ("foo.*.*.$x".into(), vec![2, 1])
    );
}

#[test]
fn a_result_has_a_longest_length() {
    let many = vec!["{{slicefromleft(1,1)}}"; 64].join(".");
    let transform = Transform::new("*", &many).expect("a transform");
    let subject = vec![b'x'; 4096];
    let mut out = Vec::new();
    assert_eq!(transform.apply(&subject, &mut || 0, &mut out), Err(TooLong));
    assert!(out.len() < 2 * TRANSFORMED_BYTES_MAX);
}

fn to(subject: &str, weight: u32) -> Destination {
    Destination {
        subject: subject.into(),
        weight,
        cluster: None,
    }
}

/// How many of a hundred evenly drawn numbers each subject gets.
fn spread(mappings: &Mappings, subject: &str, cluster: Option<&str>) -> Vec<(String, u32)> {
    let mut found = std::collections::BTreeMap::new();
    for drawn in 0..100u32 {
        let mut out = Vec::new();
        let random = (u64::from(drawn) << 32).div_ceil(100) as u32;
        let became = match mappings.map(subject.as_bytes(), cluster, &mut || random, &mut out) {
            Mapped::Unchanged => "unchanged".into(),
            Mapped::To => String::from_utf8(out).expect("text"),
            Mapped::Lost => "lost".into(),
        };
        *found.entry(became).or_insert(0) += 1;
    }
    found.into_iter().collect()
}

#[test]
fn weights_share_out_what_is_published() {
    let mut mappings = Mappings::default();
    mappings.add(Mapping::simple("foo", "bar").expect("a mapping"));
    let weighted = Mapping::new("in.*", &[to("a.$1", 20), to("b.$1", 50)]);
    mappings.add(weighted.expect("a mapping"));
    mappings.add(Mapping::new("lossy", &[to("lossy", 30)]).expect("a mapping"));
    let mut east = to("east.$1", 100);
    east.cluster = Some("east".into());
    mappings.add(Mapping::new("geo.*", &[to("all.$1", 100), east]).expect("a mapping"));

    let each = |parts: &[(&str, u32)]| -> Vec<(String, u32)> {
        parts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    assert_eq!(spread(&mappings, "foo", None), each(&[("bar", 100)]));
    assert_eq!(
        spread(&mappings, "other", None),
        each(&[("unchanged", 100)])
    );
    assert_eq!(
        spread(&mappings, "in.x", None),
        each(&[("a.x", 20), ("b.x", 50), ("in.x", 30)])
    );
    assert_eq!(
        spread(&mappings, "lossy", None),
        each(&[("lossy", 30), ("lost", 70)])
    );
    assert_eq!(
        spread(&mappings, "geo.x", Some("west")),
        each(&[("all.x", 100)])
    );
    assert_eq!(
        spread(&mappings, "geo.x", Some("east")),
        each(&[("east.x", 100)])
    );
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let refused = |source: &str, destinations: &[Destination]| {
        Mapping::new(source, destinations)
            .expect_err(source)
            .to_string()
    };
    assert_eq!(
        refused("a", &[to("b", 50), to("b", 10)]),
        "duplicate entry for \"b\""
    );
    assert_eq!(
        refused("a", &[to("b", 101)]),
        "individual weights need to be <= 100"
    );
    assert_eq!(
        refused("a", &[to("b", 60), to("c", 60)]),
        "total weight needs to be <= 100"
    );
    assert_eq!(
        refused("a..b", &[to("b", 60)]),
        MappingError::BadSource.to_string()
    );
    assert_eq!(
        refused("a", &[to("b..c", 60)]),
        "invalid mapping destination: invalid transform",
    );
    assert_eq!(
        refused("a", &[to("b c", 60)]),
        "invalid mapping destination: invalid transform",
    );
    assert_eq!(refused("a.*", &[to("b.*", 60)]), "invalid subject");
}

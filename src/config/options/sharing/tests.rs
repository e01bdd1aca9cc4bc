use std::time::Duration;

use super::super::{AccountOptions, Options};
use super::*;
use crate::config::parser::Process;

fn accounts(text: &str) -> Vec<AccountOptions> {
    let text = format!("accounts {{ {text} }}");
    match Options::from_text(&text, &Process) {
        Ok(options) => options.accounts,
        Err(error) => panic!("{error}"),
    }
}

fn refused(text: &str) -> String {
    let text = format!("accounts {{ {text} }}");
    match Options::from_text(&text, &Process) {
        Ok(options) => panic!("{:?}", options.accounts),
        Err(error) => error.to_string(),
    }
}

fn renamed(renaming: &Renaming, subject: &str) -> String {
    let mut out = Vec::new();
    assert!(renaming.apply(subject.as_bytes(), &mut out));
    String::from_utf8(out).expect("text")
}

#[test]
fn exports_are_read_with_all_that_they_say() {
    let accounts = accounts(
        r#"
        A { exports [
              {stream: "open.>"}
              {stream: "closed.*", accounts: [B]}
              {service: "ask.*", response_type: Stream, response_threshold: "5s", allow_trace: true}
              {service: "plain"}
              {service: "of.*", account_token_position: 2}
            ] }
        B {}"#,
    );
    let exports = &accounts[0].exports;
    assert_eq!(exports.streams[0].approval, Approval::default());
    assert_eq!(exports.streams[1].approval.accounts, ["B"]);
    let [ask, plain, of] = exports.services.as_slice() else {
        panic!("{exports:?}");
    };
    assert_eq!(ask.terms.response, ResponseType::Streamed);
    assert_eq!(ask.terms.threshold, Duration::from_secs(5));
    assert!(ask.allow_trace && !plain.allow_trace);
    assert_eq!(plain.terms, ServiceTerms::default());
    assert_eq!(of.approval.token_position, Some(2));
}

#[test]
fn imports_rename_both_ways() {
    let accounts = accounts(
        r#"
        A { exports [{stream: "s.>"}, {stream: "one"}, {service: "q.*.*"}, {service: "p.>"}, {service: "r"}] }
        B { imports [
              {stream: {account: A, subject: "s.>"}, prefix: "of.a"}
              {stream: {account: A, subject: "s.*.*"}, to: "turned.$2.$1"}
              {stream: {account: A, subject: "one"}, to: "uno"}
              {service: {account: A, subject: "q.*.*"}, to: "ask.$2.$1", share: true}
              {service: {account: A, subject: "p.>"}}
              {service: {account: A, subject: "r"}, to: "any.*"}
            ] }"#,
    );
    let imports = &accounts[1].imports;
    let [prefixed, turned, one] = imports.streams.as_slice() else {
        panic!("{imports:?}");
    };
    assert_eq!(
        (prefixed.local.as_str(), turned.local.as_str()),
        ("of.a.s.>", "turned.*.*")
    );
    assert_eq!(renamed(&prefixed.renaming, "s.x.y"), "of.a.s.x.y");
    assert_eq!(renamed(&prefixed.back, "of.a.s.x.*"), "s.x.*");
    assert_eq!(renamed(&turned.renaming, "s.1.2"), "turned.2.1");
    assert_eq!(renamed(&turned.back, "turned.2.1"), "s.1.2");
    assert_eq!(renamed(&one.renaming, "one"), "uno");
    assert_eq!(renamed(&one.back, "uno"), "one");
    let [asked, plain, fixed] = imports.services.as_slice() else {
        panic!("{imports:?}");
    };
    assert_eq!(asked.local, "ask.*.*");
    assert_eq!(renamed(&asked.renaming, "ask.2.1"), "q.1.2");
    assert!(asked.share && !plain.share);
    assert_eq!(plain.renaming, Renaming::Same);
    assert_eq!(renamed(&fixed.renaming, "any.thing"), "r");
}

#[test]
fn what_the_reference_refuses_is_refused_in_its_words() {
    for (text, reason) in [
        ("A { exports: 1 }", "Exports should be an array"),
        (
            "A { exports [ 1 ] }",
            "Export Items should be a map with type entry",
        ),
        (
            "A { imports [ 1 ] }",
            "Import Items should be a map with type entry",
        ),
        (
            "A { exports [{stream: s, service: t}] }",
            "Detected service \"t\" but already saw a stream",
        ),
        (
            "A { exports [{stream: s, response_type: stream}] }",
            "Detected response directive on non-service",
        ),
        (
            "A { exports [{stream: s, latency: l}] }",
            "Detected latency directive on non-service",
        ),
        (
            "A { exports [{service: s, response_type: many}] }",
            "Unknown response type: \"many\"",
        ),
        (
            "A { exports [{service: s, response_threshold: soon}] }",
            "Expected response threshold to be a parseable time duration, got \"soon\"",
        ),
        (
            "A { exports [{service: s, latency: {subject: l, sampling: 101}}] }",
            "bad sampling percentage, should be 1-100",
        ),
        (
            "A { exports [{service: s, latency: {sampling: 1}}] }",
            "Latency subject required, but missing",
        ),
        (
            "A { exports [{stream: s, accounts: [Z]}] }",
            "\"Z\" account not defined for stream export",
        ),
        (
            "A { exports [{stream: \"a.b\", account_token_position: 2}] }",
            "Error adding stream export \"a.b\": invalid subject",
        ),
        (
            "A { imports [{stream: {account: Z, subject: s}}] }",
            "\"Z\" account not defined for stream import",
        ),
        (
            "A {}, B { imports [{stream: {account: A, subject: s}}] }",
            "Error adding stream import \"s\": stream import not authorized",
        ),
        (
            "A {}, B { imports [{service: {account: A, subject: s}}] }",
            "Error adding service import \"s\": service import not authorized",
        ),
        (
            "A { exports [{stream: s, accounts: [C]}] }, B { imports [{stream: {account: A, subject: s}}] }, C {}",
            "stream import not authorized",
        ),
        (
            "A { exports [{service: \"s.*\", account_token_position: 2}] }, B { imports [{service: {account: A, subject: s.C}}] }",
            "service import not authorized",
        ),
        (
            "A { exports [{stream: s}] }, B { imports [{stream: {account: A, subject: s}, prefix: \"a.*\"}] }",
            "stream import prefix can not contain wildcard tokens",
        ),
        (
            "A { exports [{stream: s}] }, B { imports [{stream: {account: A, subject: s}, prefix: a, to: b}] }",
            "Stream import can not have a 'prefix' and a 'to' property",
        ),
        (
            "A { exports [{stream: s}] }, B { imports [{stream: {account: A, subject: s}}, {stream: {account: A, subject: s}, to: t}] }",
            "stream import already exists",
        ),
        (
            "A { exports [{service: s}, {service: t}] }, B { imports [{service: {account: A, subject: s}}, {service: {account: A, subject: t}, to: s}] }",
            "Duplicate service import subject \"s\", previously used in import for account \"A\", subject \"s\"",
        ),
        (
            "A { exports [{service: s}] }, B { imports [{service: {account: A}}] }",
            "Expect an account name and a subject",
        ),
        (
            "A { exports [{stream: \"s.*.*\"}] }, B { imports [{stream: {account: A, subject: \"s.*.*\"}, to: \"t.$1\"}] }",
            "failed to create mapping transform for stream import subject from \"s.*.*\" to \"t.$1\"",
        ),
    ] {
        let text = refused(text);
        assert!(text.contains(reason), "{reason}\n{text}");
    }
}

#[test]
fn the_name_at_the_token_position_may_import() {
    let accounts = accounts(
        r#"A { exports [{service: "s.*", account_token_position: 2}] }
           B { imports [{service: {account: A, subject: "s.B"}, to: "s"}] }"#,
    );
    assert_eq!(accounts[1].imports.services.len(), 1);
}

#[test]
fn a_circle_of_imports_is_refused_also_when_it_goes_through_other_names() {
    let circle = |last: &str| {
        format!(
            r#"
            A {{ exports [{{service: a}}], imports [{{service: {{account: B, subject: b}}, to: a}}] }}
            B {{ exports [{{service: b}}], imports [{{service: {{account: C, subject: c}}, to: b}}] }}
            C {{ exports [{{service: c}}], imports [{{service: {{account: A, subject: a}}, to: {last}}}] }}"#
        )
    };
    assert!(refused(&circle("c")).contains("import forms a cycle"));
    assert_eq!(accounts(&circle("d")).len(), 3);
    let streams = r#"
        A { exports [{stream: "s.>"}], imports [{stream: {account: B, subject: "s.>"}}] }
        B { exports [{stream: "s.>"}], imports [{stream: {account: A, subject: "s.>"}}] }"#;
    assert!(refused(streams).contains("import forms a cycle"));
}

#[test]
fn many_ways_between_accounts_are_each_gone_once() {
    // Each account imports the same twice from the next, so that there are 2^40 ways to the last.
    let mut text = String::new();
    for at in 0..40 {
        let next = at + 1;
        text.push_str(&format!(
            r#"N{at} {{ exports [{{service: "x.*"}}], imports [
                {{service: {{account: N{next}, subject: "x.1"}}, to: "x.1"}}
                {{service: {{account: N{next}, subject: "x.*"}}, to: "x.*"}}
            ] }}
            "#
        ));
    }
    text.push_str("N40 { exports [{service: \"x.*\"}] }");
    assert_eq!(accounts(&text).len(), 41);
}

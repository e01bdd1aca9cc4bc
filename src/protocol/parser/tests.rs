use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules {
    control_line_bytes_max: 4096,
    payload_bytes_max: 1 << 20,
    headers: true,
};

/// What a parser that sees the whole input at once makes of it: operations as text, then the end.
fn all_at_once(mut input: &[u8], rules: &Rules) -> (Vec<String>, Option<ProtocolViolation>) {
    let mut ops = Vec::new();
    loop {
        match parse(input, rules) {
            Ok(Parsed::Complete { op, consumed }) => {
                assert!(consumed > 0 && consumed <= input.len());
                ops.push(format!("{op:?}"));
                input = &input[consumed..];
            }
            Ok(Parsed::Incomplete { .. }) => return (ops, None),
            Err(violation) => return (ops, Some(violation)),
        }
    }
}

/// The same, fed in pieces as a connection would.
fn in_pieces(
    input: &[u8],
    cuts: &[usize],
    rules: &Rules,
) -> (Vec<String>, Option<ProtocolViolation>) {
    let mut ops = Vec::new();
    let mut buffer = Vec::new();
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    bounds.extend([0, input.len()]);
    bounds.sort_unstable();
    for piece in bounds.windows(2) {
        buffer.extend_from_slice(&input[piece[0]..piece[1]]);
        loop {
            match parse(&buffer, rules) {
                Ok(Parsed::Complete { op, consumed }) => {
                    ops.push(format!("{op:?}"));
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Incomplete { bytes_in_all }) => {
                    assert!(bytes_in_all == 0 || bytes_in_all > buffer.len());
                    break;
                }
                Err(violation) => return (ops, Some(violation)),
            }
        }
    }
    (ops, None)
}

fn one(input: &[u8]) -> Op<'_> {
    match parse(input, &RULES) {
        Ok(Parsed::Complete { op, consumed }) if consumed == input.len() => op,
        other => panic!("{other:?}"),
    }
}

fn refused(input: &[u8]) -> ProtocolViolation {
    parse(input, &RULES).expect_err("refused")
}

#[test]
fn every_operation_is_understood() {
    assert_eq!(one(b"CONNECT {}\r\n"), Op::Connect(b"{}"));
    assert_eq!(one(b"CONNECT{}\r\n"), Op::Connect(b"{}"));
    assert_eq!(one(b"INFO {}\r\n"), Op::Info(b"{}"));
    assert_eq!(one(b"PING\r\n"), Op::Ping);
    assert_eq!(one(b"PONG\r\n"), Op::Pong);
    assert_eq!(one(b"+OK\r\n"), Op::Ok);
    assert_eq!(one(b"-ERR 'x'\r\n"), Op::Error(b"'x'"));
    assert_eq!(
        one(b"SUB a 1\r\n"),
        Op::Subscribe {
            subject: b"a",
            queue: None,
            sid: b"1"
        }
    );
    assert_eq!(
        one(b"SUB a q 1\r\n"),
        Op::Subscribe {
            subject: b"a",
            queue: Some(b"q"),
            sid: b"1"
        }
    );
    assert_eq!(one(b"UNSUB 1\r\n"), Op::Unsubscribe { sid: b"1", max: 0 });
    assert_eq!(one(b"UNSUB 1 5\r\n"), Op::Unsubscribe { sid: b"1", max: 5 });
    assert_eq!(
        one(b"PUB a r 2\r\nhi\r\n"),
        Op::Publish(Publish {
            subject: b"a",
            reply: b"r",
            headers: b"",
            payload: b"hi"
        })
    );
    assert_eq!(
        one(b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
        Op::Publish(Publish {
            subject: b"a",
            reply: b"",
            headers: b"NATS/1.0\r\n\r\n",
            payload: b"hi"
        })
    );
}

#[test]
fn case_blanks_and_bare_line_feeds_do_not_matter() {
    assert_eq!(one(b"ping\n"), Op::Ping);
    assert_eq!(
        one(b"sub\ta  1\n"),
        Op::Subscribe {
            subject: b"a",
            queue: None,
            sid: b"1"
        }
    );
    assert_eq!(
        one(b"PUB\ta \t b \t2\t\r\nhi\r\n"),
        Op::Publish(Publish {
            subject: b"a",
            reply: b"b",
            headers: b"",
            payload: b"hi"
        })
    );
    assert_eq!(
        one(b"pUb  a   2 \r\nhi\r\n"),
        Op::Publish(Publish {
            subject: b"a",
            reply: b"",
            headers: b"",
            payload: b"hi"
        })
    );
}

#[test]
fn an_unknown_byte_is_refused_as_soon_as_it_arrives() {
    for input in [
        &b"F"[..],
        b"GET / HTTP/1.1",
        b"PX",
        b"\r\n",
        b"MSG a 1 1\r\n",
        b"RS+ $G a\r\n",
        b"LS+ a\r\n",
        b"A+ $G\r\n",
        b"UNSUB\r\n",
        b"PUB\r\n",
        b"CONNEXT",
        b"PUB a 1\r\nxx",
        b"PUB a 1\r\nx\rx",
    ] {
        assert_eq!(
            refused(input),
            ProtocolViolation::UnknownOperation,
            "{:?}",
            String::from_utf8_lossy(input)
        );
    }
}

#[test]
fn bad_arguments_close_without_a_word() {
    for input in [
        &b"PUB a\r\n"[..],
        b"PUB a abc\r\n",
        b"PUB a -1\r\n",
        b"PUB a 99999999999999\r\n",
        b"PUB a b c 1\r\n",
        b"PUB a b  c 1 \r\n",
        b"PUB 1 \r\n",
        b"PUB \r\n",
        b"HPUB h 14 12\r\n",
        b"HPUB h 12\r\n",
        b"SUB a\r\n",
        b"SUB a b c d\r\n",
        b"UNSUB 1 2 3\r\n",
    ] {
        let violation = refused(input);
        assert!(
            matches!(violation, ProtocolViolation::BadArguments { .. }),
            "{input:?}"
        );
        assert_eq!(violation.error_text(), None);
    }
    let without = Rules {
        headers: false,
        ..RULES
    };
    assert_eq!(
        parse(b"HPUB h 12 12\r\n", &without),
        Err(ProtocolViolation::HeadersNotSupported)
    );
}

#[test]
fn a_message_over_the_limit_is_refused_before_its_payload_arrives() {
    assert_eq!(
        refused(b"PUB a 1048577\r\n"),
        ProtocolViolation::PayloadTooLarge {
            bytes: 1_048_577,
            bytes_max: 1 << 20
        }
    );
    assert_eq!(
        parse(b"PUB a 1048576\r\n", &RULES),
        Ok(Parsed::Incomplete {
            bytes_in_all: 15 + 1_048_576 + 2
        })
    );
}

#[test]
fn a_line_of_the_limit_passes_and_one_byte_more_does_not() {
    let fits = format!("SUB {} 1\r\n", "a".repeat(4094));
    assert!(matches!(
        parse(fits.as_bytes(), &RULES),
        Ok(Parsed::Complete { .. })
    ));
    let over = format!("SUB {} 1\r\n", "a".repeat(4095));
    let too_long = ProtocolViolation::ControlLineTooLong { bytes_max: 4096 };
    assert_eq!(refused(over.as_bytes()), too_long);
    assert_eq!(refused(&over.as_bytes()[..over.len() - 2]), too_long);
    assert_eq!(refused(&b"PING ".repeat(1000)), too_long);
    assert_eq!(
        refused(&[b"PUB".to_vec(), vec![b' '; 5000]].concat()),
        too_long
    );
}

/// Valid operations, cut points and mutations are drawn from this.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![
        Just(b"PING\r\n".to_vec()),
        Just(b"PONG\r\n".to_vec()),
        Just(b"+OK\r\n".to_vec()),
        Just(b"CONNECT {\"verbose\":false}\r\n".to_vec()),
        Just(b"INFO {}\r\n".to_vec()),
        "SUB [a-c*>.]{1,6}( q)? [0-9]{1,3}\r?\n".prop_map(String::into_bytes),
        "UNSUB [0-9]{1,2}( [0-9]{1,3})?\r\n".prop_map(String::into_bytes),
        (
            "[a-c.]{1,5}( r)?",
            prop::collection::vec(any::<u8>(), 0..40)
        )
            .prop_map(|(subject, payload)| {
                let mut op = format!("PUB {subject} {}\r\n", payload.len()).into_bytes();
                op.extend_from_slice(&payload);
                op.extend_from_slice(b"\r\n");
                op
            }),
        "[a-c.]{1,5}".prop_map(|subject| {
            format!("HPUB {subject} 12 14\r\nNATS/1.0\r\n\r\nhi\r\n").into_bytes()
        }),
    ];
    prop::collection::vec(op, 0..12).prop_map(|ops| ops.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_answer_does_not_depend_on_how_bytes_are_cut(
        input in conversation(),
        cuts in prop::collection::vec(any::<usize>(), 0..24),
    ) {
        let (ops, violation) = all_at_once(&input, &RULES);
        prop_assert_eq!(violation, None);
        prop_assert_eq!(in_pieces(&input, &cuts, &RULES), (ops, None));
    }

    #[test]
    fn mutated_input_is_parsed_or_refused_alike_however_it_is_cut(
        input in conversation(),
        mutations in prop::collection::vec((any::<usize>(), any::<u8>(), 0u8..4), 1..6),
        cuts in prop::collection::vec(any::<usize>(), 0..24),
        control_line_bytes_max in 4usize..64,
        headers in any::<bool>(),
    ) {
        let mut input = input;
        for (at, byte, how) in mutations {
            let at = at % (input.len() + 1);
            match how {
                0 => input.insert(at, byte),
                1 if at < input.len() => { input.remove(at); }
                2 if at < input.len() => input[at] = byte,
                _ => input.truncate(input.len().saturating_sub(at % 4)),
            }
        }
        let rules = Rules { control_line_bytes_max, payload_bytes_max: 64, headers };
        prop_assert_eq!(in_pieces(&input, &cuts, &rules), all_at_once(&input, &rules));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = all_at_once(&input, &RULES);
    }
}

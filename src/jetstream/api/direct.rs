//! Direct gets: what they ask for. They are answered as messages, without the API around them.

use super::super::core::{DirectQuery, MessageQuery};
use super::super::types::{Strictness, decode, header_exceeds_level, is_empty_request};
use super::body::MessageGetRequest;

/// Why a direct get is refused; the value is the header block of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectRefusal {
    /// It says nothing.
    Empty,
    /// It is no JSON of this kind.
    Malformed,
    /// It contradicts itself.
    Bad,
    /// It needs a later server.
    Level,
}

impl DirectRefusal {
    /// The answer's header block.
    pub(crate) fn block(self) -> &'static [u8] {
        match self {
            Self::Empty => b"NATS/1.0 408 Empty Request\r\n\r\n",
            Self::Malformed => b"NATS/1.0 408 Malformed Request\r\n\r\n",
            Self::Bad => b"NATS/1.0 408 Bad Request\r\n\r\n",
            Self::Level => b"NATS/1.0 412 Required Api Level\r\n\r\n",
        }
    }
}

/// Reads a request on `$JS.API.DIRECT.GET.<stream>`.
pub(crate) fn parse(required_level: &[u8], body: &[u8]) -> Result<DirectQuery, DirectRefusal> {
    if header_exceeds_level(required_level) {
        return Err(DirectRefusal::Level);
    }
    if body.is_empty() {
        return Err(DirectRefusal::Empty);
    }
    let request = read(body)?;
    let (by_last, by_next) = (
        !request.last_by_subj.is_empty(),
        !request.next_by_subj.is_empty(),
    );
    let many = !request.multi_last.is_empty();
    let by_time = request.start_time.is_some();
    if request.seq == 0 && !by_last && !by_next && !many && !by_time {
        return Err(DirectRefusal::Empty);
    }
    let contradictory = (request.seq > 0 && (by_last || by_time))
        || (by_last && (by_time || by_next || many || request.batch > 0))
        || (by_next && many)
        || (request.up_to_seq > 0 && request.up_to_time.is_some());
    if contradictory {
        return Err(DirectRefusal::Bad);
    }
    Ok(query(request))
}

fn read(body: &[u8]) -> Result<MessageGetRequest, DirectRefusal> {
    decode(body, Strictness::Lenient).map_err(|_| DirectRefusal::Malformed)
}

fn query(request: MessageGetRequest) -> DirectQuery {
    let batch = u64::try_from(request.batch).unwrap_or(0);
    let bytes_max = u64::try_from(request.max_bytes).unwrap_or(0);
    let no_headers = request.no_hdr;
    let one = |query| DirectQuery::One { query, no_headers };
    let time_ns = request.start_time.map(|time| time.nanoseconds());
    if !request.multi_last.is_empty() {
        return DirectQuery::LastOfEach {
            subjects: request.multi_last,
            upto_sequence: request.up_to_seq,
            upto_time_ns: request.up_to_time.map(|time| time.nanoseconds()),
            from_sequence: request.seq,
            batch,
            bytes_max,
        };
    }
    if batch > 0 {
        return DirectQuery::Batch {
            sequence: request.seq,
            time_ns,
            subject: request.next_by_subj,
            batch,
            bytes_max,
        };
    }
    if !request.last_by_subj.is_empty() {
        return one(MessageQuery::LastBySubject(request.last_by_subj));
    }
    if let Some(time_ns) = time_ns {
        return one(MessageQuery::AtTime {
            time_ns,
            subject: request.next_by_subj,
        });
    }
    if !request.next_by_subj.is_empty() {
        return one(MessageQuery::NextBySubject {
            sequence: request.seq,
            subject: request.next_by_subj,
        });
    }
    one(MessageQuery::Sequence(request.seq))
}

/// Reads a request on `$JS.API.DIRECT.GET.<stream>.<subject>`, whose body may at most ask for no headers.
pub(crate) fn parse_by_subject(
    subject: &str,
    required_level: &[u8],
    body: &[u8],
) -> Result<DirectQuery, DirectRefusal> {
    if header_exceeds_level(required_level) {
        return Err(DirectRefusal::Level);
    }
    let request = if body.is_empty() || is_empty_request(body) {
        MessageGetRequest::default()
    } else {
        read(body)?
    };
    let asks_for_more = request.seq != 0
        || request.batch != 0
        || request.up_to_seq != 0
        || !request.last_by_subj.is_empty()
        || !request.next_by_subj.is_empty()
        || !request.multi_last.is_empty()
        || request.start_time.is_some()
        || request.up_to_time.is_some();
    if asks_for_more || subject.is_empty() {
        return Err(DirectRefusal::Bad);
    }
    Ok(DirectQuery::One {
        query: MessageQuery::LastBySubject(subject.to_owned()),
        no_headers: request.no_hdr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_is_wrong() {
        for (body, refusal) in [
            ("", DirectRefusal::Empty),
            ("{}", DirectRefusal::Empty),
            (r#"{"batch":3}"#, DirectRefusal::Empty),
            ("junk", DirectRefusal::Malformed),
            (r#"{"seq":"1"}"#, DirectRefusal::Malformed),
            (r#"{"seq":1,"last_by_subj":"a"}"#, DirectRefusal::Bad),
            (r#"{"last_by_subj":"a","batch":2}"#, DirectRefusal::Bad),
            (
                r#"{"next_by_subj":"a","multi_last":["b"]}"#,
                DirectRefusal::Bad,
            ),
            (
                r#"{"multi_last":["b"],"up_to_seq":1,"up_to_time":"2026-01-01T00:00:00Z"}"#,
                DirectRefusal::Bad,
            ),
        ] {
            assert_eq!(parse(b"", body.as_bytes()).err(), Some(refusal), "{body}");
        }
        assert_eq!(
            parse(b"9", b"{\"seq\":1}").err(),
            Some(DirectRefusal::Level)
        );
        assert_eq!(
            parse_by_subject("a", b"", br#"{"seq":1}"#).err(),
            Some(DirectRefusal::Bad)
        );
    }

    #[test]
    fn requests_select_what_they_name() {
        let one = |body: &str| match parse(b"", body.as_bytes()) {
            Ok(DirectQuery::One { query, .. }) => format!("{query:?}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(one(r#"{"seq":4}"#), "Sequence(4)");
        assert_eq!(one(r#"{"last_by_subj":"a"}"#), "LastBySubject(\"a\")");
        assert_eq!(
            one(r#"{"next_by_subj":"a.*","seq":3}"#),
            "NextBySubject { sequence: 3, subject: \"a.*\" }"
        );
        assert!(matches!(
            parse(b"", br#"{"seq":1,"batch":3}"#),
            Ok(DirectQuery::Batch {
                sequence: 1,
                batch: 3,
                ..
            })
        ));
        assert!(matches!(
            parse(b"", br#"{"multi_last":["a.>"],"up_to_seq":4}"#),
            Ok(DirectQuery::LastOfEach {
                upto_sequence: 4,
                ..
            })
        ));
        assert!(matches!(
            parse_by_subject("a.b", b"", br#"{"no_hdr":true}"#),
            Ok(DirectQuery::One {
                no_headers: true,
                ..
            })
        ));
    }
}

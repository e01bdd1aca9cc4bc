//! An API request on its way to the server that can answer it, and the answer on its way back.
//!
//! ```text
//! request:  version u8 (1) | account, subject, level, client: u16 length and bytes each | body, to the end
//! answer:   version u8 (1) | outcome u8: 0 answered, 1 refused, 2 not reported | payload, to the end
//! ```
//!
//! All numbers are little-endian. The client is JSON, or nothing when it is not known.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::api::elsewhere::{AskingClient, Carried};
use super::super::api::handler::{Answer, Outcome};

const VERSION: u8 = 1;
/// Bytes in which a client is described.
const CLIENT_BYTES_MAX: usize = 16 << 10;

/// Bytes of another server that are no request, or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CarryError {
    /// It ends too early.
    #[error("it ends too early")]
    Truncated,
    /// It is of a later version.
    #[error("version {0} is not known")]
    Version(u8),
    /// A name is no text.
    #[error("a name is no text")]
    Text,
    /// No such outcome.
    #[error("outcome {0} is not known")]
    Outcome(u8),
    /// The client is not described as clients are.
    #[error("the client cannot be read")]
    Client,
    /// A name is too long to be carried.
    #[error("a name of {0} bytes is too long")]
    TooLong(usize),
}

/// A request as bytes.
pub(crate) fn encode_request(carried: &Carried) -> Result<Bytes, CarryError> {
    let client = client_bytes(carried.client.as_deref());
    let fields = [
        carried.account.as_bytes(),
        carried.subject.as_bytes(),
        &carried.required_level,
        &client,
    ];
    let names: usize = fields.iter().map(|field| field.len() + 2).sum();
    let mut out = BytesMut::with_capacity(1 + names + carried.body.len());
    out.put_u8(VERSION);
    for field in fields {
        let too_long = |_| CarryError::TooLong(field.len());
        out.put_u16_le(u16::try_from(field.len()).map_err(too_long)?);
        out.put_slice(field);
    }
    out.put_slice(&carried.body);
    Ok(out.freeze())
}

/// A client that has said too much of itself is carried as one that is not known.
fn client_bytes(client: Option<&AskingClient>) -> Vec<u8> {
    let bytes = client.and_then(|client| serde_json::to_vec(client).ok());
    let short = bytes.filter(|bytes| bytes.len() <= CLIENT_BYTES_MAX);
    short.unwrap_or_default()
}

/// Reads what [`encode_request`] wrote.
pub(crate) fn decode_request(bytes: Bytes) -> Result<Carried, CarryError> {
    let mut rest = versioned(bytes)?;
    let account = text(&mut rest)?;
    let subject = text(&mut rest)?;
    let required_level = field(&mut rest)?;
    let client = field(&mut rest)?;
    let client = match client.is_empty() {
        true => None,
        false => Some(serde_json::from_slice(&client).map_err(|_| CarryError::Client)?),
    };
    Ok(Carried {
        account,
        subject,
        required_level,
        client,
        body: rest,
    })
}

fn versioned(mut bytes: Bytes) -> Result<Bytes, CarryError> {
    match bytes.try_get_u8() {
        Ok(VERSION) => Ok(bytes),
        Ok(version) => Err(CarryError::Version(version)),
        Err(_) => Err(CarryError::Truncated),
    }
}

fn field(bytes: &mut Bytes) -> Result<Bytes, CarryError> {
    let length = bytes
        .try_get_u16_le()
        .map_err(|_| CarryError::Truncated)?
        .into();
    if bytes.len() < length {
        return Err(CarryError::Truncated);
    }
    Ok(bytes.split_to(length))
}

fn text(bytes: &mut Bytes) -> Result<String, CarryError> {
    String::from_utf8(field(bytes)?.to_vec()).map_err(|_| CarryError::Text)
}

/// An answer as bytes.
pub(crate) fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + answer.payload.len());
    out.put_u8(VERSION);
    out.put_u8(match answer.outcome {
        Outcome::Answered => 0,
        Outcome::Refused => 1,
        Outcome::Unreported => 2,
    });
    out.put_slice(&answer.payload);
    out.freeze()
}

/// Reads what [`encode_answer`] wrote.
pub(crate) fn decode_answer(bytes: Bytes) -> Result<Answer, CarryError> {
    let mut rest = versioned(bytes)?;
    let outcome = match rest.try_get_u8() {
        Ok(0) => Outcome::Answered,
        Ok(1) => Outcome::Refused,
        Ok(2) => Outcome::Unreported,
        Ok(other) => return Err(CarryError::Outcome(other)),
        Err(_) => return Err(CarryError::Truncated),
    };
    Ok(Answer {
        payload: rest.to_vec(),
        outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{ClientInfo, RoundTrip};

    fn carried() -> Carried {
        Carried {
            account: "$G".to_owned(),
            subject: "$JS.API.STREAM.INFO.S".to_owned(),
            required_level: Bytes::from_static(b"2"),
            client: Some(Box::new(AskingClient {
                info: ClientInfo {
                    id: 7,
                    account: "$G".to_owned(),
                    user: "u".to_owned(),
                    name: "n".to_owned(),
                    lang: "rust".to_owned(),
                    version: "1".to_owned(),
                    address: "127.0.0.1:4000".parse().unwrap(),
                    started: std::time::UNIX_EPOCH,
                    websocket: false,
                    round_trip: RoundTrip::default(),
                },
                server: "s1".to_owned(),
                cluster: "c1".to_owned(),
            })),
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn a_request_and_an_answer_come_back_as_they_were() {
        let bytes = encode_request(&carried()).unwrap();
        assert_eq!(decode_request(bytes.clone()), Ok(carried()));
        for cut in 0..bytes.len() - 2 {
            let part = decode_request(bytes.slice(..cut));
            assert_eq!(part, Err(CarryError::Truncated), "{cut}");
        }
        for outcome in [Outcome::Answered, Outcome::Refused, Outcome::Unreported] {
            let answer = Answer {
                payload: b"{}".to_vec(),
                outcome,
            };
            assert_eq!(decode_answer(encode_answer(&answer)), Ok(answer));
        }
    }

    #[test]
    fn what_is_neither_is_named() {
        let later = Bytes::from_static(b"\x02");
        assert_eq!(decode_request(later.clone()), Err(CarryError::Version(2)));
        assert_eq!(decode_answer(later), Err(CarryError::Version(2)));
        let outcome = Bytes::from_static(b"\x01\x09");
        assert_eq!(decode_answer(outcome), Err(CarryError::Outcome(9)));
        let no_text = Bytes::from_static(b"\x01\x01\x00\xff");
        assert_eq!(decode_request(no_text), Err(CarryError::Text));
        let long = Carried {
            account: "x".repeat(70_000),
            ..carried()
        };
        assert_eq!(encode_request(&long), Err(CarryError::TooLong(70_000)));
        let mut talkative = carried();
        talkative.client.as_mut().unwrap().info.name = "n".repeat(70_000);
        let came = decode_request(encode_request(&talkative).unwrap()).unwrap();
        assert_eq!(came.client, None);
        assert_eq!(came.body, talkative.body);
        let no_client = Bytes::from_static(b"\x01\x01\x00a\x01\x00b\x00\x00\x01\x00{");
        assert_eq!(decode_request(no_client), Err(CarryError::Client));
    }
}

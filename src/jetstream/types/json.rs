//! JSON as the reference reads and writes it.
//!
//! Writing escapes `<`, `>`, `&` and the two Unicode line separators, as Go's encoder does. Reading takes `null` as "not
//! given", and unknown fields are refused or passed over depending on [`Strictness`].

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter};

use super::{ApiError, ErrorCode};

/// What happens to fields that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// The request is refused.
    Strict,
    /// They are passed over.
    Lenient,
}

/// A request body that could not be taken; turns into error 10025.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        ErrorCode::InvalidJson.with(error)
    }
}

/// How deep a request may nest: our types need four levels.
const DEPTH_MAX: usize = 32;

/// Takes a request body apart.
pub fn decode<T: DeserializeOwned>(body: &[u8], strictness: Strictness) -> Result<T, DecodeError> {
    decode_value(parse(body)?, strictness)
}

/// Reads a request body as far as it is JSON; `null` fields are gone, and no body at all is an empty object.
pub(crate) fn parse(body: &[u8]) -> Result<Value, DecodeError> {
    let mut value = Value::Null;
    if !body.trim_ascii().is_empty() {
        value = serde_json::from_slice(body).map_err(|error| DecodeError(error.to_string()))?;
    }
    drop_nulls(&mut value, DEPTH_MAX);
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    Ok(value)
}

/// Takes a parsed request body apart.
pub(crate) fn decode_value<T: DeserializeOwned>(
    value: Value,
    strictness: Strictness,
) -> Result<T, DecodeError> {
    let mut unknown: Option<String> = None;
    let decoded = serde_ignored::deserialize(value, |path| {
        if unknown.is_none() {
            let path = path.to_string();
            unknown = Some(path.rsplit('.').next().unwrap_or_default().to_owned());
        }
    })
    .map_err(|error| DecodeError(error.to_string()))?;
    match unknown {
        Some(field) if strictness == Strictness::Strict => {
            Err(DecodeError(format!("json: unknown field {field:?}")))
        }
        _ => Ok(decoded),
    }
}

/// As [`decode`] for requests whose body is optional: what is no JSON object or array says nothing.
pub fn decode_optional<T: DeserializeOwned + Default>(
    body: &[u8],
    strictness: Strictness,
) -> Result<T, DecodeError> {
    match body.trim_ascii_start().first() {
        Some(b'{' | b'[') => decode(body, strictness),
        _ => Ok(T::default()),
    }
}

fn drop_nulls(value: &mut Value, depth: usize) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            for field in fields.values_mut() {
                drop_nulls(field, depth - 1);
            }
        }
        Value::Array(items) => {
            for item in items {
                drop_nulls(item, depth - 1);
            }
        }
        _ => {}
    }
}

/// Whether a request says nothing: no bytes, blanks, or an empty object.
pub fn is_empty_request(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    match body {
        b"" => true,
        [b'{', inner @ .., b'}'] => inner.trim_ascii().is_empty(),
        _ => false,
    }
}

/// Writes `value` as the reference would.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut output = Vec::with_capacity(512);
    encode_into(value, &mut output);
    output
}

/// Appends `value` as the reference would write it.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, output: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(output, HtmlSafe);
    // Our own types hold string keys only and a Vec takes every byte, so writing them cannot fail.
    let written = value.serialize(&mut serializer);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Compact JSON with the characters escaped that Go's encoder escapes.
struct HtmlSafe;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let Some(special) = from.chars().next() else {
                break;
            };
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = from.get(special.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let text: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(text)
    }
}

/// For fields that are left out when false.
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// For fields that are left out when zero.
pub(crate) fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

/// For fields that are left out when absent or zero.
pub(crate) fn is_none_or_zero<T: PartialEq + Default>(value: &Option<T>) -> bool {
    value.as_ref().is_none_or(is_zero)
}

#[cfg(test)]
mod tests {
    use super::super::StreamConfig;
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            encode("a.> <b>&\u{2028}\"\\\n\u{1}é"),
            br#""a.\u003e \u003cb\u003e\u0026\u2028\"\\\n\u0001"#
                .iter()
                .copied()
                .chain("é\"".bytes())
                .collect::<Vec<u8>>()
        );
    }

    #[test]
    fn unknown_fields_are_named_when_strict_and_passed_over_when_not() {
        let body = br#"{"name":"S","unknown":1}"#;
        assert_eq!(
            decode::<StreamConfig>(body, Strictness::Strict),
            Err(DecodeError("json: unknown field \"unknown\"".to_owned()))
        );
        assert_eq!(
            decode::<StreamConfig>(body, Strictness::Lenient).map(|config| config.name),
            Ok("S".to_owned())
        );
        let nested = br#"{"name":"S","mirror":{"name":"M","nope":{}}}"#;
        assert_eq!(
            decode::<StreamConfig>(nested, Strictness::Strict),
            Err(DecodeError("json: unknown field \"nope\"".to_owned()))
        );
    }

    #[test]
    fn null_is_the_same_as_not_given() {
        let body = br#"{"name":"S","subjects":null,"mirror":null,"max_age":null}"#;
        let config: StreamConfig = decode(body, Strictness::Strict).expect("decodes");
        assert_eq!(config.name, "S");
        assert!(config.mirror.is_none());
    }

    #[test]
    fn requests_that_say_nothing_are_empty() {
        for (body, empty) in [
            (&b""[..], true),
            (b" \n", true),
            (b"{}", true),
            (b" { \t} ", true),
            (b"{\"a\":1}", false),
            (b"[]", false),
        ] {
            assert_eq!(is_empty_request(body), empty);
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let body = "[".repeat(100_000);
        assert!(decode::<StreamConfig>(body.as_bytes(), Strictness::Strict).is_err());
    }
}

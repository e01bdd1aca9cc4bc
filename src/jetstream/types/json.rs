//! JSON as the reference reads it: `null` is "not given", and unknown fields are refused or passed over depending on
//! [`Strictness`]. How it writes is in [`crate::protocol::json`].

use serde::de::DeserializeOwned;
use serde_json::Value;

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

impl DecodeError {
    /// What the reference says of a body that ends too early; otherwise what is wrong in words of our own.
    pub(crate) fn of(error: &serde_json::Error) -> Self {
        Self(match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => error.to_string(),
        })
    }
}

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
        value = serde_json::from_slice(body).map_err(|error| DecodeError::of(&error))?;
    }
    // Left to serde, the items would be taken for the fields.
    if value.is_array() {
        return Err(DecodeError(
            "json: cannot unmarshal array into Go value".to_owned(),
        ));
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
    use super::super::{StreamConfig, encode};
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
    fn a_list_is_no_object_whose_fields_it_names_in_order() {
        let decoded = decode::<StreamConfig>(br#"["S"]"#, Strictness::Lenient);
        assert!(decoded.is_err(), "{decoded:?}");
    }

    #[test]
    fn a_body_that_ends_too_early_is_told_as_the_reference_does() {
        for body in ["{", r#"{"name":"#, r#"{"name":"S"#] {
            let error = DecodeError("unexpected end of JSON input".to_owned());
            let decoded = decode::<StreamConfig>(body.as_bytes(), Strictness::Strict);
            assert_eq!(decoded, Err(error), "{body}");
        }
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

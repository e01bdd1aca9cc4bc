//! Pull requests: how their bodies read.

use serde::{Deserialize, Deserializer};

use crate::jetstream::types::DecodeError;

/// What a pull request asks for. Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PullRequest {
    /// How many messages.
    #[serde(deserialize_with = "or_default")]
    pub batch: i64,
    /// How long it waits; 0 is for ever.
    #[serde(rename = "expires", deserialize_with = "or_default")]
    pub expires_ns: i64,
    /// How many bytes; 0 is any.
    #[serde(rename = "max_bytes", deserialize_with = "or_default")]
    pub bytes_max: i64,
    /// Take what is there and do not wait for more.
    #[serde(deserialize_with = "or_default")]
    pub no_wait: bool,
    /// How often to hear that it still waits; 0 is never.
    #[serde(rename = "idle_heartbeat", deserialize_with = "or_default")]
    pub idle_heartbeat_ns: i64,
    /// Its priority group.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// Only when at least this much is pending.
    #[serde(deserialize_with = "or_default")]
    pub min_pending: i64,
    /// Only when at least this much waits for acks.
    #[serde(deserialize_with = "or_default")]
    pub min_ack_pending: i64,
    /// The pin it was given.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// Lower is served first.
    #[serde(deserialize_with = "or_default")]
    pub priority: i64,
    /// Whether the body was an object, which alone can name a group.
    #[serde(skip)]
    pub is_object: bool,
}

/// Clients write `null` for what they leave open.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl PullRequest {
    /// Reads a body: nothing, a number, or an object; anything else asks for one message. The error is what follows
    /// `Bad Request - `.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let body = body.trim_ascii();
        let one = Self {
            batch: 1,
            ..Self::default()
        };
        if body.first() == Some(&b'{') {
            let mut request: Self =
                serde_json::from_slice(body).map_err(|error| DecodeError::of(&error).0)?;
            let heartbeat_ns = request.idle_heartbeat_ns;
            if heartbeat_ns > 0 && heartbeat_ns.saturating_mul(2) > request.expires_ns {
                return Err("heartbeat value too large".to_owned());
            }
            request.is_object = true;
            return Ok(request);
        }
        let number = std::str::from_utf8(body)
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(match number {
            Some(batch) => Self { batch, ..one },
            None => one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_nothing_a_number_an_object_or_one_message() {
        for (body, batch) in [("", 1), ("5", 5), (" 7 ", 7), ("junk", 1), ("{}", 0)] {
            assert_eq!(
                PullRequest::parse(body.as_bytes()).map(|r| r.batch),
                Ok(batch),
                "{body}"
            );
        }
        let request = PullRequest::parse(
            br#"{"batch":2,"expires":1000,"no_wait":true,"max_bytes":9,"group":"g","priority":3}"#,
        )
        .expect("parses");
        assert_eq!(
            (request.batch, request.expires_ns, request.bytes_max),
            (2, 1000, 9)
        );
        assert!(request.no_wait && request.is_object);
        assert_eq!((request.group.as_str(), request.priority), ("g", 3));
        let cut = PullRequest::parse(b"{");
        assert_eq!(cut, Err("unexpected end of JSON input".to_owned()));
        let open = PullRequest::parse(br#"{"batch":2,"group":null,"id":null,"expires":null}"#);
        assert_eq!(open.map(|request| request.batch), Ok(2));
    }

    #[test]
    fn a_heartbeat_fits_twice_into_the_wait() {
        let body = br#"{"batch":1,"expires":100,"idle_heartbeat":51}"#;
        assert_eq!(
            PullRequest::parse(body),
            Err("heartbeat value too large".to_owned())
        );
        assert!(PullRequest::parse(br#"{"idle_heartbeat":1}"#).is_err());
        assert!(PullRequest::parse(br#"{"expires":100,"idle_heartbeat":50}"#).is_ok());
        assert!(PullRequest::parse(b"{junk").is_err());
    }
}

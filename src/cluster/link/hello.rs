//! The line with which either side of a link says who it is: `LINK {json}`.
//!
//! The dialler says it first, in the place of a route's `CONNECT`; the acceptor answers with a line of the same form about itself, or with
//! `-ERR '…'`. After the two lines only frames travel.

use raft::group::Channel;
use serde::{Deserialize, Serialize};

/// The word that the line begins with.
pub const HELLO_VERB: &[u8] = b"LINK";
/// The longest line.
pub const HELLO_LINE_BYTES_MAX: usize = 4096;
/// The version of what travels on a link.
pub(super) const LINK_VERSION: u32 = 1;
const ERROR_VERB: &[u8] = b"-ERR";
/// The longest name that is believed.
const NAME_BYTES_MAX: usize = 256;

/// What a side says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version of what travels.
    pub link: u32,
    pub server_name: String,
    /// The identity of this run of the server.
    pub server_id: String,
    pub cluster: String,
    #[serde(with = "channel")]
    pub channel: Channel,
    #[serde(default)]
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}

mod channel {
    use raft::group::Channel;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(channel: &Channel, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match channel {
            Channel::Control => "control",
            Channel::Bulk => "bulk",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Channel, D::Error> {
        let said = String::deserialize(deserializer)?;
        match said.as_str() {
            "control" => Ok(Channel::Control),
            "bulk" => Ok(Channel::Bulk),
            _ => Err(D::Error::unknown_variant(&said, &["control", "bulk"])),
        }
    }
}

/// Why the other side is no peer of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The line is not of that form.
    #[error("no LINK line: {0}")]
    Malformed(String),
    /// It refused us, with these words.
    #[error("refused: {0}")]
    Refused(String),
    /// It speaks another version.
    #[error("link version {0} is not spoken here")]
    Version(u32),
    /// It is in another cluster.
    #[error("cluster name {theirs:?} does not match {ours:?}")]
    Cluster {
        /// The name it gave.
        theirs: String,
        /// Our cluster's name.
        ours: String,
    },
    /// It is called as this server is.
    #[error("server name {0:?} is this server's own")]
    OwnName(String),
    /// Its name is empty, too long or unprintable.
    #[error("server name is not valid")]
    Name,
    /// Its user or password is wrong.
    #[error("Authorization Violation")]
    Authorization,
    /// It answered for another channel than it was asked for.
    #[error("the answer is about another channel")]
    Channel,
    /// The address belongs to another server than was thought.
    #[error("server {found:?} answers where {expected:?} was expected")]
    OtherServer {
        /// Who answers.
        found: String,
        /// Who was expected.
        expected: String,
    },
    /// There is a connection that counts before this one.
    #[error("duplicate link")]
    Duplicate,
}

impl Hello {
    /// Reads a line without its end.
    pub fn parse(line: &[u8]) -> Result<Self, HelloError> {
        if let Some(rest) = line.strip_prefix(ERROR_VERB) {
            let text = String::from_utf8_lossy(rest);
            let text = text.trim().trim_matches('\'');
            return Err(HelloError::Refused(text.escape_debug().to_string()));
        }
        let json = line
            .strip_prefix(HELLO_VERB)
            .filter(|rest| rest.starts_with(b" "))
            .ok_or_else(|| HelloError::Malformed("another line was read".to_owned()))?;
        let hello: Self =
            serde_json::from_slice(json).map_err(|e| HelloError::Malformed(e.to_string()))?;
        for name in [&hello.server_name, &hello.server_id, &hello.cluster] {
            let printable = !name.chars().any(|c| c.is_control() || c.is_whitespace());
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !printable {
                return Err(HelloError::Name);
            }
        }
        Ok(hello)
    }

    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        // Strings and numbers only: there is always JSON of it.
        let json = serde_json::to_vec(self).unwrap_or_default();
        [HELLO_VERB, b" ", &json, b"\r\n"].concat()
    }

    /// What both sides check of each other.
    pub fn check(&self, own_name: &str, own_cluster: &str) -> Result<(), HelloError> {
        if self.link != LINK_VERSION {
            return Err(HelloError::Version(self.link));
        }
        if self.cluster != own_cluster {
            return Err(HelloError::Cluster {
                theirs: self.cluster.clone(),
                ours: own_cluster.to_owned(),
            });
        }
        if self.server_name == own_name {
            return Err(HelloError::OwnName(own_name.to_owned()));
        }
        Ok(())
    }
}

/// How a refusal is said.
pub(super) fn refusal(error: &HelloError) -> Vec<u8> {
    format!("-ERR '{error}'\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            link: LINK_VERSION,
            server_name: "a".to_owned(),
            server_id: "N1".to_owned(),
            cluster: "c".to_owned(),
            channel: Channel::Bulk,
            version: "2".to_owned(),
            user: None,
            pass: Some("p".to_owned()),
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = hello().line();
        assert!(line.starts_with(b"LINK {") && line.ends_with(b"}\r\n"));
        assert_eq!(Hello::parse(&line[..line.len() - 2]), Ok(hello()));
    }

    #[test]
    fn another_cluster_version_or_our_own_name_is_refused() {
        assert_eq!(hello().check("b", "c"), Ok(()));
        let own = hello().check("a", "c");
        assert_eq!(own, Err(HelloError::OwnName("a".to_owned())));
        let other = hello().check("b", "d");
        assert!(matches!(other, Err(HelloError::Cluster { .. })));
        let later = Hello { link: 2, ..hello() };
        assert_eq!(later.check("b", "c"), Err(HelloError::Version(2)));
    }

    #[test]
    fn names_must_be_names_and_a_refusal_is_read_as_one() {
        for name in ["", "a b", "a\nb", &"x".repeat(300)] {
            let said = Hello {
                server_name: name.to_owned(),
                ..hello()
            };
            let line = said.line();
            let read = Hello::parse(&line[..line.len() - 2]);
            assert_eq!(read, Err(HelloError::Name), "{name:?}");
        }
        let refusal = refusal(&HelloError::Authorization);
        let read = Hello::parse(&refusal[..refusal.len() - 2]);
        let said = "Authorization Violation".to_owned();
        assert_eq!(read, Err(HelloError::Refused(said)));
        assert!(matches!(
            Hello::parse(b"CONNECT {}"),
            Err(HelloError::Malformed(_))
        ));
    }
}

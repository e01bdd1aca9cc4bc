//! Which operation an API subject names.

/// What stands before every API subject.
pub const PREFIX: &str = "$JS.API.";

/// What the API listens to, also in accounts without JetStream, which are told that they have none, and in the system account, whose requests
/// are about the cluster itself. Pull requests and direct gets stand apart: they are heard only where there is a consumer or a
/// stream for them, so that a requester learns at once when there is none.
pub const PATTERNS: &[&str] = &[
    "$JS.API.*",
    "$JS.API.STREAM.>",
    "$JS.API.CONSUMER.*",
    "$JS.API.CONSUMER.CREATE.>",
    "$JS.API.CONSUMER.DURABLE.>",
    "$JS.API.CONSUMER.INFO.>",
    "$JS.API.CONSUMER.DELETE.>",
    "$JS.API.CONSUMER.NAMES.>",
    "$JS.API.CONSUMER.LIST.>",
    "$JS.API.CONSUMER.PAUSE.>",
    "$JS.API.CONSUMER.RESET.>",
    "$JS.API.CONSUMER.UNPIN.>",
    "$JS.API.CONSUMER.LEADER.>",
    "$JS.API.META.>",
    "$JS.API.SERVER.>",
    "$JS.API.ACCOUNT.>",
];

/// An operation of the API with what its subject says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// What the account uses and may use.
    AccountInfo,
    /// Make a stream.
    StreamCreate(&'a str),
    /// Change a stream.
    StreamUpdate(&'a str),
    /// Show a stream.
    StreamInfo(&'a str),
    /// Remove a stream.
    StreamDelete(&'a str),
    /// Remove messages of a stream.
    StreamPurge(&'a str),
    /// Name all streams.
    StreamNames,
    /// Show all streams.
    StreamList,
    /// Read a message.
    MessageGet(&'a str),
    /// Remove a message.
    MessageDelete(&'a str),
    /// Back a stream up.
    StreamSnapshot(&'a str),
    /// Bring a stream back.
    StreamRestore(&'a str),
    /// Take a replica away.
    StreamPeerRemove(&'a str),
    /// Have another replica lead.
    StreamStepDown(&'a str),
    /// Make or change a consumer.
    ConsumerCreate(ConsumerSubject<'a>),
    /// Show a consumer.
    ConsumerInfo(&'a str, &'a str),
    /// Remove a consumer.
    ConsumerDelete(&'a str, &'a str),
    /// Name the consumers of a stream.
    ConsumerNames(&'a str),
    /// Show the consumers of a stream.
    ConsumerList(&'a str),
    /// Stop or resume a consumer.
    ConsumerPause(&'a str, &'a str),
    /// Move a consumer.
    ConsumerReset(&'a str, &'a str),
    /// Release the pinned client of a consumer.
    ConsumerUnpin(&'a str, &'a str),
    /// Have another replica lead.
    ConsumerStepDown(&'a str, &'a str),
}

/// How the subject of a consumer creation names the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerSubject<'a> {
    /// Not at all: the request may, or the server makes a name up.
    Unnamed {
        /// Its stream.
        stream: &'a str,
    },
    /// With a name and perhaps a filter.
    Named {
        /// Its stream.
        stream: &'a str,
        /// Its name.
        consumer: &'a str,
        /// Its filter, which the request must repeat.
        filter: Option<&'a str>,
    },
    /// As a durable one, in the older form.
    Durable {
        /// Its stream.
        stream: &'a str,
        /// Its name, missing when the subject has too few or too many tokens.
        consumer: Option<&'a str>,
    },
}

impl<'a> ConsumerSubject<'a> {
    /// The stream it is about.
    pub fn stream(&self) -> &'a str {
        match self {
            Self::Unnamed { stream }
            | Self::Named { stream, .. }
            | Self::Durable { stream, .. } => stream,
        }
    }
}

impl<'a> Operation<'a> {
    /// Reads a whole subject; `None` when no operation has it (and nobody answers).
    pub fn parse(subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix(PREFIX)?;
        let (room, rest) = match rest.split_once('.') {
            None => return (rest == "INFO").then_some(Self::AccountInfo),
            Some(split) => split,
        };
        match room {
            "STREAM" => Self::stream(rest),
            "CONSUMER" => Self::consumer(rest),
            _ => None,
        }
    }

    fn stream(rest: &'a str) -> Option<Self> {
        let Some((verb, rest)) = rest.split_once('.') else {
            return match rest {
                "NAMES" => Some(Self::StreamNames),
                "LIST" => Some(Self::StreamList),
                _ => None,
            };
        };
        let operation: fn(&'a str) -> Self = match verb {
            "CREATE" => Self::StreamCreate,
            "UPDATE" => Self::StreamUpdate,
            "INFO" => Self::StreamInfo,
            "DELETE" => Self::StreamDelete,
            "PURGE" => Self::StreamPurge,
            "SNAPSHOT" => Self::StreamSnapshot,
            "RESTORE" => Self::StreamRestore,
            _ => {
                let (second, name) = rest.split_once('.')?;
                let operation: fn(&'a str) -> Self = match (verb, second) {
                    ("MSG", "GET") => Self::MessageGet,
                    ("MSG", "DELETE") => Self::MessageDelete,
                    ("PEER", "REMOVE") => Self::StreamPeerRemove,
                    ("LEADER", "STEPDOWN") => Self::StreamStepDown,
                    _ => return None,
                };
                return one(name).map(operation);
            }
        };
        one(rest).map(operation)
    }

    fn consumer(rest: &'a str) -> Option<Self> {
        let (verb, rest) = rest.split_once('.')?;
        let operation: fn(&'a str, &'a str) -> Self = match verb {
            "CREATE" => return Self::create(rest),
            "NAMES" => return one(rest).map(Self::ConsumerNames),
            "LIST" => return one(rest).map(Self::ConsumerList),
            "DURABLE" => return Self::create_durable(rest.strip_prefix("CREATE.")?),
            "LEADER" => {
                let (stream, consumer) = two(rest.strip_prefix("STEPDOWN.")?)?;
                return Some(Self::ConsumerStepDown(stream, consumer));
            }
            "INFO" => Self::ConsumerInfo,
            "DELETE" => Self::ConsumerDelete,
            "PAUSE" => Self::ConsumerPause,
            "RESET" => Self::ConsumerReset,
            "UNPIN" => Self::ConsumerUnpin,
            _ => return None,
        };
        two(rest).map(|(stream, consumer)| operation(stream, consumer))
    }

    fn create(rest: &'a str) -> Option<Self> {
        let Some((stream, rest)) = rest.split_once('.') else {
            return one(rest)
                .map(|stream| Self::ConsumerCreate(ConsumerSubject::Unnamed { stream }));
        };
        let (consumer, filter) = match rest.split_once('.') {
            Some((consumer, filter)) => (consumer, Some(filter)),
            None => (rest, None),
        };
        Some(Self::ConsumerCreate(ConsumerSubject::Named {
            stream: one(stream)?,
            consumer: one(consumer)?,
            filter,
        }))
    }

    fn create_durable(rest: &'a str) -> Option<Self> {
        let (stream, consumer) = two(rest)?;
        Some(Self::ConsumerCreate(ConsumerSubject::Durable {
            stream,
            consumer: Some(consumer),
        }))
    }
}

fn one(token: &str) -> Option<&str> {
    (!token.is_empty() && !token.contains('.')).then_some(token)
}

fn two(rest: &str) -> Option<(&str, &str)> {
    let (first, second) = rest.split_once('.')?;
    Some((one(first)?, one(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_name_operations() {
        for (subject, operation) in [
            ("$JS.API.INFO", Some(Operation::AccountInfo)),
            ("$JS.API.STREAM.NAMES", Some(Operation::StreamNames)),
            (
                "$JS.API.STREAM.CREATE.S",
                Some(Operation::StreamCreate("S")),
            ),
            ("$JS.API.STREAM.MSG.GET.S", Some(Operation::MessageGet("S"))),
            (
                "$JS.API.STREAM.LEADER.STEPDOWN.S",
                Some(Operation::StreamStepDown("S")),
            ),
            (
                "$JS.API.CONSUMER.INFO.S.C",
                Some(Operation::ConsumerInfo("S", "C")),
            ),
            (
                "$JS.API.CONSUMER.CREATE.S",
                Some(Operation::ConsumerCreate(ConsumerSubject::Unnamed {
                    stream: "S",
                })),
            ),
            (
                "$JS.API.CONSUMER.CREATE.S.C.a.>",
                Some(Operation::ConsumerCreate(ConsumerSubject::Named {
                    stream: "S",
                    consumer: "C",
                    filter: Some("a.>"),
                })),
            ),
            (
                "$JS.API.CONSUMER.DURABLE.CREATE.S.C",
                Some(Operation::ConsumerCreate(ConsumerSubject::Durable {
                    stream: "S",
                    consumer: Some("C"),
                })),
            ),
        ] {
            assert_eq!(Operation::parse(subject), operation, "{subject}");
        }
    }

    #[test]
    fn what_nobody_answers_is_no_operation() {
        for subject in [
            "$JS.API.NOPE",
            "$JS.API.STREAM.CREATE.S.2",
            "$JS.API.STREAM.CREATE",
            "$JS.API.STREAM.CREATE.",
            "$JS.API.META.LEADER.STEPDOWN",
            "$JS.API.SERVER.REMOVE",
            "$JS.API.ACCOUNT.PURGE.$G",
            "$JS.API.CONSUMER.INFO.S",
            "$JS.API.CONSUMER.INFO.S.C.D",
            "$JS.API",
            "other",
        ] {
            assert_eq!(Operation::parse(subject), None, "{subject}");
        }
    }
}

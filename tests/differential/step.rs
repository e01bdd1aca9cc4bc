//! What is done to both servers, one step at a time.

use std::fmt;

/// Whether something must come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It comes, or its absence is waited for.
    Due,
    /// It may come.
    Perhaps,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// A message with a reply subject: requests of the API, publishes, pulls.
    Request {
        /// What differences of such steps are sorted under.
        kind: &'static str,
        /// With placeholders.
        subject: String,
        /// Keys and values.
        headers: Vec<(String, String)>,
        /// With placeholders.
        payload: String,
        /// Whether an answer is due.
        answer: Answer,
    },
    /// An ack of a message that was delivered to both.
    Ack {
        /// Which of all that were delivered.
        delivery: usize,
        /// Its body.
        payload: String,
        /// Whether it asks for a confirmation.
        confirmed: bool,
    },
    /// Somebody begins to listen where a push consumer delivers to.
    Subscribe {
        /// The subject.
        subject: String,
        /// The queue group, or nothing.
        queue: String,
    },
    /// Everybody who listens there ends.
    Unsubscribe {
        /// The subject.
        subject: String,
    },
    /// Nothing, for that long.
    Wait {
        /// Milliseconds.
        pause_ms: u64,
    },
    /// The state of everything that the scenario knows is asked for.
    Look,
}

impl Step {
    /// What differences of this step are sorted under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request { kind, .. } => kind,
            Self::Ack { .. } => "ack",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Wait { .. } => "wait",
            Self::Look => "look",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request {
                kind,
                subject,
                headers,
                payload,
                ..
            } => {
                write!(out, "{kind}: {subject}")?;
                for (key, value) in headers {
                    write!(out, " [{key}: {value}]")?;
                }
                let shown: String = payload.chars().take(1200).collect();
                write!(out, " {shown}")
            }
            Self::Ack {
                delivery,
                payload,
                confirmed,
            } => write!(
                out,
                "ack of delivery {delivery}: {payload:?}{}",
                if *confirmed { ", confirmed" } else { "" }
            ),
            Self::Subscribe { subject, queue } => write!(out, "subscribe {subject} {queue}"),
            Self::Unsubscribe { subject } => write!(out, "unsubscribe {subject}"),
            Self::Wait { pause_ms } => write!(out, "wait {pause_ms} ms"),
            Self::Look => write!(out, "look"),
        }
    }
}

//! The recordings: one JSON object a line, the first one the server's configuration.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// One recorded file.
pub struct Recording {
    /// The file's name without its ending.
    pub name: String,
    /// The configuration the server ran with; `@DIR@` is a fresh directory.
    pub config: String,
    /// What was sent and answered.
    pub script: Script,
}

/// The two kinds of recordings.
pub enum Script {
    /// Connections on the client port, byte for byte.
    Raw(Vec<Numbered<Connection>>),
    /// Requests on one connection, with a look at the monitoring port between them.
    Api(Vec<Numbered<Step>>),
}

/// A recorded line with its number in the file, from 1.
pub struct Numbered<T> {
    /// The line's number.
    pub line: usize,
    /// What it holds.
    pub value: T,
}

/// One raw connection.
#[derive(Deserialize)]
pub struct Connection {
    /// What it shows.
    pub title: String,
    /// What was sent and what came back; the first step is what the server says unasked.
    pub steps: Vec<Exchange>,
}

/// One send and what came back until the line was quiet.
#[derive(Deserialize)]
pub struct Exchange {
    /// Bytes sent, none in a connection's first step.
    pub send: Option<String>,
    /// Bytes received.
    pub recv: String,
    /// Whether the server then closed the connection.
    #[serde(default)]
    pub closed: bool,
}

/// One step of an API recording.
#[derive(Deserialize)]
pub struct Step {
    /// `req`, `collect:N`, `http` or `sleep`.
    #[serde(rename = "do")]
    pub action: String,
    /// The subject, the path on the monitoring port, or the seconds to pause.
    pub subject: String,
    /// The request's payload.
    #[serde(default)]
    pub payload: String,
    /// The request's headers, in the order sent.
    #[serde(default)]
    pub headers: Option<serde_json::Map<String, Value>>,
    /// Messages that came back.
    #[serde(default)]
    pub replies: Vec<Reply>,
    /// The status on the monitoring port.
    #[serde(default)]
    pub status: u16,
    /// The body from the monitoring port.
    #[serde(default)]
    pub body: String,
}

/// One message that came back.
#[derive(Debug, Clone, Deserialize)]
pub struct Reply {
    /// Where it was delivered; `<reply>` is the request's own reply subject.
    pub subject: String,
    /// Its own reply subject, or empty.
    pub reply: String,
    /// Its header block, or empty.
    pub headers: String,
    /// Its payload.
    pub payload: String,
}

#[derive(Deserialize)]
struct Head {
    config: String,
    kind: String,
}

/// Where the recordings are looked for.
pub fn folder() -> PathBuf {
    std::env::var_os("GOLDEN_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
        PathBuf::from,
    )
}

impl Recording {
    /// Reads a recording; none where the folder does not hold it.
    pub fn load(name: &str) -> Option<Self> {
        let text = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).ok()?;
        let mut lines = text.lines();
        let head: Head =
            serde_json::from_str(lines.next().expect("a first line")).expect("a recording's head");
        let script = match head.kind.as_str() {
            "raw" => Script::Raw(parse(lines)),
            "api" => Script::Api(parse(lines)),
            other => panic!("{name}: unknown kind of recording {other:?}"),
        };
        Some(Self {
            name: name.to_owned(),
            config: head.config,
            script,
        })
    }

    /// The stable name of a line.
    pub fn id(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }
}

fn parse<'a, T: Deserialize<'a>>(lines: impl Iterator<Item = &'a str>) -> Vec<Numbered<T>> {
    lines
        .zip(2..)
        .map(|(text, line)| Numbered {
            line,
            value: serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("recording line {line}: {error}")),
        })
        .collect()
}

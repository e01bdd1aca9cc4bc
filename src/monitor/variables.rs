//! `/debug/vars`: the command line, and what the process holds of memory.

use axum::response::Response;
use serde::Serialize;

use super::answer::json;
use super::process::memory;

/// What programs in Go publish of themselves.
#[derive(Serialize)]
pub struct Variables {
    cmdline: Vec<String>,
    memstats: Memory,
}

/// The figures among Go's that have a meaning here.
#[derive(Serialize)]
struct Memory {
    /// Bytes that are in use: memory of the process itself that is resident.
    #[serde(rename = "Alloc")]
    alloc: u64,
    /// The same.
    #[serde(rename = "HeapAlloc")]
    heap_alloc: u64,
    /// Bytes that came from the system: all that is resident, files that are mapped included.
    #[serde(rename = "Sys")]
    sys: u64,
}

/// Answers over HTTP.
pub fn answer() -> Response {
    json(&variables())
}

/// The variables as they are now.
pub fn variables() -> Variables {
    let memory = memory();
    Variables {
        cmdline: command_line(),
        memstats: Memory {
            alloc: memory.anonymous,
            heap_alloc: memory.anonymous,
            sys: memory.resident,
        },
    }
}

/// Flags whose values are secrets.
const SECRET_FLAGS: [&str; 2] = ["pass", "auth"];
const HIDDEN: &str = "[REDACTED]";

/// The words of the command line, without secrets.
pub fn command_line() -> Vec<String> {
    redacted(std::env::args_os().map(|word| word.to_string_lossy().into_owned()))
}

/// Passwords and tokens are not for everybody who may look at monitoring.
fn redacted(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut shown = Vec::new();
    let mut hides_next = false;
    for word in words {
        let flag = word.trim_start_matches('-');
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let is_secret = word.starts_with('-') && SECRET_FLAGS.contains(&name);
        match (hides_next, is_secret, value.is_empty()) {
            (true, ..) => shown.push(HIDDEN.to_owned()),
            (false, true, false) => shown.push(format!("--{name}={HIDDEN}")),
            // A URL may name a user and a password.
            _ if word.contains('@') && word.contains("://") => shown.push(without_user(&word)),
            _ => shown.push(word.clone()),
        }
        hides_next = !hides_next && is_secret && value.is_empty();
    }
    shown
}

/// Each URL of a list without what stands before its host.
fn without_user(word: &str) -> String {
    let hide = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{HIDDEN}@{place}"),
        _ => url.to_owned(),
    };
    word.split(',').map(hide).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_command_line_are_not_shown() {
        let line = "nats-server -p 4222 --user u --pass s3cret -auth=t0ken --pass=x \
                    --routes nats://a:b@h:1,nats://h:2 -c f.conf";
        let shown = redacted(line.split_whitespace().map(str::to_owned)).join(" ");
        assert_eq!(
            shown,
            "nats-server -p 4222 --user u --pass [REDACTED] --auth=[REDACTED] --pass=[REDACTED] \
             --routes nats://[REDACTED]@h:1,nats://h:2 -c f.conf"
        );
    }
}

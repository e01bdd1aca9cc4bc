//! Compares JSON and header blocks under the rules of the recordings' README.
//!
//! Which keys are there is always compared. Values that vary from run to run are compared by shape: the same JSON type,
//! empty where the recording is empty, a zero time where the recording has one.

use serde_json::Value;

/// Where a document comes from: some keys vary in one place and are exact in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place<'a> {
    /// INFO of the client protocol.
    Info,
    /// An API reply or a publish ack.
    Reply,
    /// A page of the monitoring port.
    Page(&'a str),
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Exact,
    Shape,
    /// Not part of the contract, not even whether it is there.
    Free,
    /// An array whose order is not part of the contract.
    AnyOrder,
}

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Ids and keys, times and durations, addresses, build fields and resource figures.
const SHAPE: &[&str] = &[
    "server_id",
    "client_id",
    "nonce",
    "xkey",
    "cid",
    "created",
    "ts",
    "first_ts",
    "last_ts",
    "now",
    "start",
    "uptime",
    "active",
    "pause_remaining",
    "time",
    "last_active",
    "last_activity",
    "stop",
    "idle",
    "rtt",
    "config_load_time",
    "update_time",
    "pinned_ts",
    "host",
    "port",
    "client_ip",
    "ip",
    "http_host",
    "http_port",
    "connect_urls",
    "version",
    "git_commit",
    "go",
    "_nats.ver",
    "mem",
    "cpu",
    "cores",
    "reserved_memory",
    "reserved_storage",
    "config_digest",
    "store_dir",
    "pinned_client_id",
];

/// What the durable default changes, and figures of the reference's runtime.
const FREE: &[&str] = &["sync_interval", "sync_always", "gomaxprocs"];

/// Figures of the reference's subscription cache, and counters that hang on timing.
const SHAPE_ON_PAGES: &[&str] = &[
    "num_cache",
    "cache_hit_rate",
    "num_inserts",
    "num_removes",
    "num_matches",
    "max_fanout",
    "avg_fanout",
    "num_subscriptions",
    "out_msgs",
    "out_bytes",
    "out_client_msgs",
    "out_client_bytes",
    "wait_time",
    "max_wait_time",
    "waits",
];

fn rule(place: Place<'_>, path: &[String]) -> Rule {
    let key = path.last().map_or("", String::as_str);
    let within = |parent: &str| path.iter().rev().nth(1).is_some_and(|word| word == parent);
    if FREE.contains(&key) {
        return Rule::Free;
    }
    if SHAPE.contains(&key) {
        return Rule::Shape;
    }
    // The sources that a stream reports come in no order, those of its configuration in the given one.
    if key == "sources" && !within("config") {
        return Rule::AnyOrder;
    }
    let Place::Page(page) = place else {
        return Rule::Exact;
    };
    let page = page.split('?').next().unwrap_or(page);
    match (page, key) {
        ("/subsz", "subscriptions_list") => Rule::Free,
        ("/subsz", "total") | ("/varz" | "/accountz", "subscriptions") => Rule::Shape,
        ("/accstatz", "msgs" | "bytes") if within("sent") => Rule::Shape,
        ("/connz", "msgs") if within("subscriptions_list_detail") => Rule::Shape,
        (_, "stream_detail" | "consumer_detail" | "imports" | "exports" | "account_statz") => {
            Rule::AnyOrder
        }
        _ if SHAPE_ON_PAGES.contains(&key) => Rule::Shape,
        _ => Rule::Exact,
    }
}

/// What differs between a recorded and an actual document, one line each.
pub fn json(place: Place<'_>, expected: &Value, actual: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        place,
        path: Vec::new(),
        differences: Vec::new(),
    };
    comparison.value(expected, actual);
    comparison.differences
}

struct Comparison<'a> {
    place: Place<'a>,
    path: Vec<String>,
    differences: Vec<String>,
}

impl Comparison<'_> {
    fn value(&mut self, expected: &Value, actual: &Value) {
        match (rule(self.place, &self.path), expected, actual) {
            (Rule::Free, ..) => {}
            (Rule::Shape, ..) => {
                if !same_shape(expected, actual) {
                    self.differ(&expected.to_string(), &actual.to_string());
                }
            }
            (_, Value::Object(expected), Value::Object(actual)) => self.objects(expected, actual),
            (rule, Value::Array(expected), Value::Array(actual)) => {
                self.arrays(expected, actual, rule == Rule::AnyOrder);
            }
            (_, Value::String(expected), Value::String(actual)) => self.strings(expected, actual),
            _ if expected == actual => {}
            _ => self.differ(&expected.to_string(), &actual.to_string()),
        }
    }

    fn objects(
        &mut self,
        expected: &serde_json::Map<String, Value>,
        actual: &serde_json::Map<String, Value>,
    ) {
        // A server without a name of its own is called by its id.
        let named_by_id = expected.contains_key("server_name")
            && expected.get("server_name") == expected.get("server_id");
        for (key, value) in expected {
            self.path.push(key.clone());
            match actual.get(key) {
                Some(found) if key == "server_name" && named_by_id => {
                    if Some(found) != actual.get("server_id") {
                        self.differ("the server's id", &found.to_string());
                    }
                }
                Some(found) => self.value(value, found),
                None if rule(self.place, &self.path) == Rule::Free => {}
                None => self.differ(&value.to_string(), "absent"),
            }
            self.path.pop();
        }
        for (key, value) in actual {
            self.path.push(key.clone());
            if !expected.contains_key(key) && rule(self.place, &self.path) != Rule::Free {
                self.differ("absent", &value.to_string());
            }
            self.path.pop();
        }
    }

    fn arrays(&mut self, expected: &[Value], actual: &[Value], any_order: bool) {
        if expected.len() != actual.len() {
            let list = |values: &[Value]| Value::Array(values.to_vec()).to_string();
            self.differ(&list(expected), &list(actual));
            return;
        }
        let (mut expected, mut actual) = (expected.to_vec(), actual.to_vec());
        if any_order {
            expected.sort_by_key(sort_key);
            actual.sort_by_key(sort_key);
        }
        for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
            // Items carry no key of their own: an index in the path would hide their parent from the rules.
            let before = self.differences.len();
            if expected.is_object() {
                self.value_of_item(expected, actual);
            } else {
                self.value(expected, actual);
            }
            for difference in self.differences.iter_mut().skip(before) {
                *difference = format!("[{index}] {difference}");
            }
        }
    }

    fn value_of_item(&mut self, expected: &Value, actual: &Value) {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => self.objects(expected, actual),
            _ => self.differ(&expected.to_string(), &actual.to_string()),
        }
    }

    fn strings(&mut self, expected: &str, actual: &str) {
        let (expected, actual) = (comparable_text(expected), comparable_text(actual));
        if expected != actual {
            self.differ(&format!("{expected:?}"), &format!("{actual:?}"));
        }
    }

    fn differ(&mut self, expected: &str, actual: &str) {
        let path = self.path.join(".");
        self.differences.push(format!(
            "{path}: recorded {}, now {}",
            shorten(expected),
            shorten(actual)
        ));
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 300 {
        text.to_owned()
    } else {
        text.chars().take(300).chain("…".chars()).collect()
    }
}

/// What orders the items of arrays without an order.
fn sort_key(value: &Value) -> String {
    ["name", "acc", "local_subject", "subject"]
        .iter()
        .filter_map(|key| value.get(key))
        .map(Value::to_string)
        .collect()
}

fn same_shape(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(expected), Value::String(actual)) => {
            expected.is_empty() == actual.is_empty()
                && (expected == ZERO_TIME) == (actual == ZERO_TIME)
                && is_time(expected) == is_time(actual)
        }
        (Value::Array(expected), Value::Array(actual)) => expected.is_empty() == actual.is_empty(),
        _ => std::mem::discriminant(expected) == std::mem::discriminant(actual),
    }
}

/// Whether a text is an RFC 3339 time in UTC.
fn is_time(text: &str) -> bool {
    text.ends_with('Z')
        && text.len() >= ZERO_TIME.len()
        && text
            .bytes()
            .zip(ZERO_TIME.bytes())
            .take(19)
            .all(|(byte, model)| {
                if model.is_ascii_digit() {
                    byte.is_ascii_digit()
                } else {
                    byte == model
                }
            })
}

/// A text without the parts that vary: inboxes, and what a JSON parser complains about.
fn comparable_text(text: &str) -> String {
    const INVALID_JSON: &str = "invalid JSON:";
    if text.starts_with(INVALID_JSON) {
        return INVALID_JSON.to_owned();
    }
    if text.starts_with("_INBOX.") {
        return if text.ends_with('>') {
            "_INBOX.>"
        } else {
            "_INBOX"
        }
        .to_owned();
    }
    text.to_owned()
}

/// A header block without time stamps and pin ids.
pub fn comparable_headers(headers: &str) -> String {
    headers
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some((key @ "Nats-Time-Stamp", time)) if is_time(time) => format!("{key}: <time>"),
            Some((key @ "Nats-Pin-Id", id)) if !id.is_empty() => format!("{key}: <id>"),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\r\n")
}

/// A reply subject without the time stamp that an ack subject carries.
pub fn comparable_ack_subject(subject: &str) -> String {
    let mut tokens: Vec<&str> = subject.split('.').collect();
    if let ["$JS", "ACK", _, _, _, _, _, time, _] = &mut tokens[..]
        && time.parse::<u64>().is_ok()
    {
        *time = "<time>";
    }
    tokens.join(".")
}

mod promises {
    use serde_json::json as value;

    use super::{Place, comparable_ack_subject, comparable_headers, json};

    #[test]
    fn a_key_that_is_missing_or_new_is_a_difference() {
        let recorded = value!({"a": 1});
        assert_eq!(json(Place::Reply, &recorded, &value!({})).len(), 1);
        assert_eq!(
            json(Place::Reply, &recorded, &value!({"a": 1, "b": 2})).len(),
            1
        );
        assert!(json(Place::Reply, &recorded, &recorded).is_empty());
    }

    #[test]
    fn times_differ_only_when_one_of_them_is_zero() {
        let recorded = value!({"created": "2026-11-23T08:36:59.652120111Z"});
        let later = value!({"created": "2027-01-01T00:00:00.1Z"});
        let zero = value!({"created": "0001-01-01T00:00:00Z"});
        assert!(json(Place::Reply, &recorded, &later).is_empty());
        assert_eq!(json(Place::Reply, &recorded, &zero).len(), 1);
        assert_eq!(
            json(Place::Reply, &recorded, &value!({"created": "soon"})).len(),
            1
        );
    }

    #[test]
    fn numbers_that_do_not_vary_are_exact() {
        let recorded = value!({"state": {"messages": 3}});
        let other = value!({"state": {"messages": 4}});
        assert_eq!(json(Place::Reply, &recorded, &other).len(), 1);
    }

    #[test]
    fn a_server_without_a_name_is_called_by_its_id() {
        let recorded = value!({"server_id": "NA", "server_name": "NA"});
        assert!(
            json(
                Place::Info,
                &recorded,
                &value!({"server_id": "NB", "server_name": "NB"})
            )
            .is_empty()
        );
        assert_eq!(
            json(
                Place::Info,
                &recorded,
                &value!({"server_id": "NB", "server_name": "x"})
            )
            .len(),
            1
        );
    }

    #[test]
    fn header_lines_and_ack_subjects_are_exact_but_for_their_times() {
        let recorded =
            comparable_headers("NATS/1.0\r\nNats-Time-Stamp: 2026-11-23T08:37:02.66Z\r\n\r\n");
        let now = comparable_headers("NATS/1.0\r\nNats-Time-Stamp: 2027-11-23T08:37:02.1Z\r\n\r\n");
        assert_eq!(recorded, now);
        assert_ne!(
            recorded,
            comparable_headers("NATS/1.0\r\nNats-Sequence: 1\r\n\r\n")
        );
        let ack = comparable_ack_subject;
        assert_eq!(ack("$JS.ACK.S.C.1.2.3.44.5"), ack("$JS.ACK.S.C.1.2.3.55.5"));
        assert_ne!(ack("$JS.ACK.S.C.1.2.3.44.5"), ack("$JS.ACK.S.C.2.2.3.44.5"));
    }
}

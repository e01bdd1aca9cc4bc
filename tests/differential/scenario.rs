//! What a seed does: a few streams, their consumers, and everything that can be asked of them.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::draw::Draw;
use super::fields::{self, Field};
use super::session::Seen;
use super::step::{Answer, Step};

/// Names that streams have.
const STREAMS: [&str; 3] = ["S1", "S2", "S3"];
/// Names that consumers have.
const CONSUMERS: [&str; 4] = ["C1", "C2", "C3", "C4"];
const NAMES_WILD: [&str; 6] = ["", "a.b", "a*", "a b", "a/b", "a\\b"];
const SUBJECTS: [&str; 9] = [
    "s.a.1",
    "s.a.1",
    "s.a.2",
    "s.a.3",
    "s.b.x",
    "s.b.x.y",
    "s.c",
    "s.t.1",
    "s.a.target",
];

/// What a scenario is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum About {
    /// Configurations of streams.
    Streams,
    /// Configurations of consumers.
    Consumers,
    /// Publishes and gets.
    Messages,
    /// Deliveries and acks.
    Delivery,
}

struct Consumer {
    stream: String,
    name: String,
    /// Where it pushes to.
    push: Option<String>,
    grouped: bool,
    /// Whether one ack is for all messages before it, too.
    cumulative: bool,
}

/// The scenario of a seed, as far as it has come.
pub struct Scenario {
    draw: Draw,
    about: About,
    streams: Vec<String>,
    consumers: Vec<Consumer>,
    mark: String,
    last: u64,
    copied: bool,
    step: usize,
}

impl Scenario {
    /// The scenario of that seed.
    pub fn new(seed: u64) -> Self {
        let about = [
            About::Streams,
            About::Consumers,
            About::Messages,
            About::Delivery,
        ];
        Self {
            draw: Draw::new(seed),
            about: about[usize::try_from(seed % 4).expect("it is below four")],
            streams: Vec::new(),
            consumers: Vec::new(),
            mark: now(0),
            last: 0,
            copied: false,
            step: 0,
        }
    }

    /// Every stream that there can be.
    pub fn all_streams(&self) -> Vec<String> {
        STREAMS.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Whether a stream copied from others: the reference asks for that over the API and counts what it asks.
    pub fn counts_copying(&self) -> bool {
        self.copied
    }

    /// What a look asks for.
    pub fn known(&self) -> Vec<(String, String)> {
        let mut known = vec![("$JS.API.STREAM.NAMES".to_owned(), String::new())];
        for stream in &self.streams {
            known.push((
                format!("$JS.API.STREAM.INFO.{stream}"),
                r#"{"subjects_filter":">","deleted_details":true}"#.to_owned(),
            ));
            known.push((format!("$JS.API.CONSUMER.NAMES.{stream}"), String::new()));
        }
        for Consumer { stream, name, .. } in &self.consumers {
            known.push((
                format!("$JS.API.CONSUMER.INFO.{stream}.{name}"),
                String::new(),
            ));
        }
        known
    }

    /// The next step; `deliveries` can be acknowledged.
    pub fn next(&mut self, deliveries: usize) -> Step {
        self.step += 1;
        if self.streams.is_empty() {
            return self.stream_create(self.about != About::Streams);
        }
        if self.step.is_multiple_of(9) {
            return Step::Look;
        }
        let delivery = self.about == About::Delivery;
        if self.consumers.is_empty()
            && (delivery || (self.about == About::Consumers && self.draw.percent(40)))
        {
            return self.consumer_create(delivery);
        }
        if self.draw.percent(4) {
            self.mark = now(0);
            return Step::Wait { pause_ms: 3 };
        }
        let drawn = self.draw.below(100);
        match self.about {
            About::Streams => match drawn {
                0..30 => self.stream_create(false),
                30..65 => self.stream_update(),
                65..80 => self.publish(),
                80..90 => self.stream_question(),
                90..93 => self.stream_delete(),
                93..96 => self.purge(),
                _ => self.consumer_create(true),
            },
            About::Consumers => match drawn {
                0..30 => self.consumer_create(false),
                30..55 => self.consumer_update(),
                55..70 => self.consumer_question(),
                70..75 => self.consumer_delete(),
                75..85 => self.publish(),
                85..95 => self.pull(false),
                _ => self.stream_update(),
            },
            About::Messages => match drawn {
                0..60 => self.publish(),
                60..68 => self.get(),
                68..85 => self.direct_get(),
                85..89 => self.purge(),
                89..95 => self.delete_message(),
                _ => self.stream_update(),
            },
            About::Delivery => match drawn {
                0..25 => self.plain_publish(),
                25..50 => self.pull(true),
                50..78 if deliveries > 0 => self.ack(deliveries),
                50..78 => self.plain_publish(),
                78..82 => self.consumer_create(true),
                82..85 => self.consumer_question(),
                // The reference takes a message that leaves for acknowledged, and under `all` with it those before: they are lost.
                85..90 if self.consumers.iter().any(|known| known.cumulative) => {
                    self.plain_publish()
                }
                85..87 => self.purge(),
                87..90 => self.delete_message(),
                90..95 => self.subscribe(),
                95..97 => self.consumer_update(),
                97..98 => self.consumer_delete(),
                _ => Step::Wait { pause_ms: 60 },
            },
        }
    }

    /// Takes in what a step led to.
    pub fn learn(&mut self, step: &Step, seen: &[Seen]) {
        let Step::Request {
            kind,
            subject,
            payload,
            ..
        } = step
        else {
            return;
        };
        self.copied |= payload.contains("NOWHERE");
        let Some(answer) = seen
            .iter()
            .filter(|message| message.subject.starts_with("_INBOX."))
            .find_map(Seen::json)
        else {
            return;
        };
        if answer.get("error").is_some() {
            return;
        }
        let target = subject.split('.').nth(4).unwrap_or_default().to_owned();
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        match *kind {
            "stream create" if !self.streams.contains(&target) => self.streams.push(target),
            "stream delete" => {
                self.streams.retain(|name| *name != target);
                self.consumers.retain(|consumer| consumer.stream != target);
            }
            "consumer create" | "consumer update" => {
                let name = text(answer.get("name"));
                let stream = text(answer.get("stream_name"));
                let config = answer.get("config");
                let field = |key: &str| config.and_then(|config| config.get(key));
                self.consumers
                    .retain(|known| (&known.stream, &known.name) != (&stream, &name));
                self.consumers.push(Consumer {
                    stream,
                    name,
                    push: field("deliver_subject")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                    grouped: field("priority_groups").is_some(),
                    cumulative: matches!(
                        field("ack_policy").and_then(Value::as_str),
                        Some("all" | "flow_control")
                    ),
                });
            }
            "consumer delete" => {
                let consumer = subject.split('.').nth(5).unwrap_or_default().to_owned();
                self.consumers
                    .retain(|known| known.stream != target || known.name != consumer);
            }
            "publish" => {
                if let Some(sequence) = answer.get("seq").and_then(Value::as_u64) {
                    self.last = sequence;
                }
            }
            _ => {}
        }
    }

    fn stream(&mut self) -> String {
        if self.streams.is_empty() || self.draw.percent(2) {
            return (*self.draw.one(&STREAMS)).to_owned();
        }
        self.draw.one(&self.streams.clone()).clone()
    }

    fn consumer(&mut self) -> (String, String) {
        if self.consumers.is_empty() || self.draw.percent(2) {
            return (self.stream(), (*self.draw.one(&CONSUMERS)).to_owned());
        }
        let drawn = self.draw.below(self.consumers.len());
        let consumer = &self.consumers[drawn];
        (consumer.stream.clone(), consumer.name.clone())
    }

    /// Values with the placeholders of the scenario filled in.
    fn filled(&mut self, value: &str) -> String {
        let number = self.draw.between(1, 2).to_string();
        value
            .replace("@LONG@", &"x".repeat(5000))
            .replace("@PAST@", &now(-3600))
            .replace("@FUTURE@", &now(3600))
            .replace("@MARK@", &self.mark)
            .replace("@LAST@", &self.last.to_string())
            .replace("@N@", &number)
    }

    /// Members of an object: about `often` in a hundred of the fields, and some of them with values that are not good.
    fn members(&mut self, fields: &[Field], often: usize, wild: usize) -> Vec<String> {
        let mut members = Vec::new();
        for (key, good, bad) in fields {
            if !self.draw.percent(often) {
                continue;
            }
            let values = if good.is_empty() || (!bad.is_empty() && self.draw.percent(wild)) {
                // What is good nowhere is not drawn where nothing is to be refused.
                if wild == 0 {
                    continue;
                }
                bad
            } else {
                good
            };
            let value = (*self.draw.one(values)).to_owned();
            let value = self.filled(&value);
            members.push(format!("\"{key}\":{value}"));
        }
        members
    }

    /// How often fields are there, and how often they are not good.
    fn temper(&mut self, tame: bool) -> (usize, usize) {
        match self.draw.below(3) {
            _ if tame => (18, 0),
            0 => (12, 0),
            1 => (12, 15),
            _ => (25, 10),
        }
    }

    fn stream_create(&mut self, tame: bool) -> Step {
        let name = (*self.draw.one(&STREAMS)).to_owned();
        self.stream_config("stream create", "$JS.API.STREAM.CREATE", name, tame)
    }

    fn stream_update(&mut self) -> Step {
        let name = self.stream();
        self.stream_config("stream update", "$JS.API.STREAM.UPDATE", name, false)
    }

    fn stream_config(
        &mut self,
        kind: &'static str,
        prefix: &str,
        name: String,
        tame: bool,
    ) -> Step {
        let (often, wild) = self.temper(tame);
        let mut members = self.members(fields::STREAM, often, wild);
        // A reference alone takes updates to more replicas than it has, and only a new stream hears that there are none.
        if kind == "stream update" {
            members.retain(|member| {
                !["\"num_replicas\":2", "\"num_replicas\":3"].contains(&member.as_str())
            });
        }
        let subjects = if !tame && self.draw.percent(10) {
            self.draw.one(fields::STREAM_SUBJECTS_WILD)
        } else if name == "S1" {
            self.draw.one(fields::STREAM_SUBJECTS)
        } else if self.draw.percent(80) {
            // Another stream's subjects would be refused each time.
            &r#"["t.@N@.>"]"#
        } else {
            self.draw.one(fields::STREAM_SUBJECTS)
        };
        let subjects = subjects.replace("@N@", &name);
        if tame || self.draw.percent(92) {
            members.insert(0, format!("\"subjects\":{subjects}"));
        }
        if tame && self.about == About::Messages {
            for feature in [
                "allow_direct",
                "allow_rollup_hdrs",
                "allow_msg_ttl",
                "allow_atomic",
                "allow_msg_schedules",
            ] {
                let key = format!("\"{feature}\":");
                if self.draw.percent(70) && !members.iter().any(|m| m.starts_with(&key)) {
                    members.push(format!("{key}true"));
                }
            }
        }
        let (mut named, mut token) = (name.clone(), name);
        if !tame && self.draw.percent(3) {
            named = (*self.draw.one(&NAMES_WILD)).to_owned();
            named = named.replace('\\', "\\\\");
        }
        if !tame && self.draw.percent(2) {
            token = (*self.draw.one(&STREAMS)).to_owned();
        }
        members.insert(0, format!("\"name\":\"{named}\""));
        self.request(
            kind,
            format!("{prefix}.{token}"),
            format!("{{{}}}", members.join(",")),
        )
    }

    fn request(&mut self, kind: &'static str, subject: String, payload: String) -> Step {
        let headers = if self.draw.percent(1) {
            let level = *self.draw.one(&["0", "4", "5", "x"]);
            vec![("Nats-Required-Api-Level".to_owned(), level.to_owned())]
        } else {
            Vec::new()
        };
        Step::Request {
            kind,
            subject,
            headers,
            payload,
            answer: Answer::Due,
        }
    }

    fn stream_question(&mut self) -> Step {
        let stream = self.stream();
        match self.draw.below(5) {
            0 => {
                let payload = *self.draw.one(&[
                    "",
                    "{}",
                    r#"{"offset":1}"#,
                    r#"{"offset":-1}"#,
                    r#"{"subject":"s.a.1"}"#,
                    r#"{"subject":"s..1"}"#,
                    "7",
                    "[]",
                    "{",
                    r#"{"nonsense":1}"#,
                ]);
                self.request(
                    "stream names",
                    "$JS.API.STREAM.NAMES".to_owned(),
                    payload.to_owned(),
                )
            }
            1 => {
                let payload = *self.draw.one(&[
                    "",
                    "{}",
                    r#"{"offset":1}"#,
                    r#"{"offset":-1}"#,
                    r#"{"subject":"s.>"}"#,
                    "x",
                ]);
                self.request(
                    "stream list",
                    "$JS.API.STREAM.LIST".to_owned(),
                    payload.to_owned(),
                )
            }
            2 => {
                let payload = *self.draw.one(&[
                    "",
                    "{}",
                    r#"{"subjects_filter":"s.a.*"}"#,
                    r#"{"subjects_filter":">","offset":2}"#,
                    r#"{"subjects_filter":"s..a"}"#,
                    r#"{"deleted_details":true}"#,
                    r#"{"offset":1}"#,
                    "[]",
                    "x",
                ]);
                self.request(
                    "stream info",
                    format!("$JS.API.STREAM.INFO.{stream}"),
                    payload.to_owned(),
                )
            }
            3 => {
                let subject = match self.draw.below(5) {
                    0 => format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"),
                    1 => format!("$JS.API.STREAM.PEER.REMOVE.{stream}"),
                    2 => "$JS.API.META.LEADER.STEPDOWN".to_owned(),
                    3 => "$JS.API.SERVER.REMOVE".to_owned(),
                    _ => format!("$JS.API.STREAM.{stream}"),
                };
                self.request("administration", subject, String::new())
            }
            _ => {
                let payload = *self.draw.one(&["", "", "{}", r#"{"a":1}"#]);
                self.request(
                    "account info",
                    "$JS.API.INFO".to_owned(),
                    payload.to_owned(),
                )
            }
        }
    }

    fn stream_delete(&mut self) -> Step {
        let stream = self.stream();
        let payload = *self.draw.one(&["", "", "{}", r#"{"a":1}"#, "x"]);
        self.request(
            "stream delete",
            format!("$JS.API.STREAM.DELETE.{stream}"),
            payload.to_owned(),
        )
    }

    fn purge(&mut self) -> Step {
        let stream = self.stream();
        let payload = *self.draw.one(&[
            "",
            r#"{"keep":1}"#,
            r#"{"seq":4}"#,
            r#"{"filter":"s.a.1"}"#,
            r#"{"filter":"s.a.*","keep":1}"#,
            r#"{"filter":"s.>","seq":6}"#,
            r#"{"seq":3,"keep":1}"#,
            r#"{"filter":"s..a"}"#,
            r#"{"filter":"nothing"}"#,
            r#"{"keep":100}"#,
            r#"{"seq":1000000}"#,
            "x",
            r#"{"keep":-1}"#,
        ]);
        self.request(
            "purge",
            format!("$JS.API.STREAM.PURGE.{stream}"),
            payload.to_owned(),
        )
    }

    fn delete_message(&mut self) -> Step {
        let stream = self.stream();
        let sequence = match self.draw.below(10) {
            0 => 0,
            1 => self.last + 5,
            _ => self.last.saturating_sub(self.draw.below(10) as u64),
        };
        let more = *self.draw.one(&[
            "",
            "",
            r#","no_erase":true"#,
            r#","no_erase":false"#,
            r#","x":1"#,
        ]);
        self.request(
            "message delete",
            format!("$JS.API.STREAM.MSG.DELETE.{stream}"),
            format!("{{\"seq\":{sequence}{more}}}"),
        )
    }

    fn get(&mut self) -> Step {
        let stream = self.stream();
        let wild = if self.draw.percent(30) { 30 } else { 0 };
        let mut members = self.members(fields::GET, 30, wild);
        if members.is_empty() && self.draw.percent(90) {
            members.push(format!("\"seq\":{}", self.last));
        }
        self.request(
            "get",
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("{{{}}}", members.join(",")),
        )
    }

    fn direct_get(&mut self) -> Step {
        let stream = self.stream();
        let (subject, payload) = if self.draw.percent(20) {
            let last = *self
                .draw
                .one(&["s.a.1", "s.b.x", "s.a.*", "nothing", "s.>"]);
            let payload = *self
                .draw
                .one(&["", "", r#"{"no_hdr":true}"#, r#"{"seq":1}"#, "x"]);
            (
                format!("$JS.API.DIRECT.GET.{stream}.{last}"),
                payload.to_owned(),
            )
        } else {
            let wild = if self.draw.percent(30) { 30 } else { 0 };
            let mut members = self.members(fields::GET, 20, wild);
            members.extend(self.members(fields::GET_BATCH, 20, wild));
            (
                format!("$JS.API.DIRECT.GET.{stream}"),
                if members.is_empty() && self.draw.percent(50) {
                    String::new()
                } else {
                    format!("{{{}}}", members.join(","))
                },
            )
        };
        self.request("direct get", subject, payload)
    }

    fn publish(&mut self) -> Step {
        let subject = (*self.draw.one(&SUBJECTS)).to_owned();
        let wild = if self.draw.percent(40) { 30 } else { 0 };
        let often = *self.draw.one(&[0, 5, 10, 15]);
        let stream = self.stream();
        let mut headers = Vec::new();
        for (key, good, bad) in fields::HEADERS {
            if !self.draw.percent(often) {
                continue;
            }
            let values =
                if good.is_empty() || (wild > 0 && !bad.is_empty() && self.draw.percent(wild)) {
                    bad
                } else {
                    good
                };
            if values.is_empty() {
                continue;
            }
            let value = (*self.draw.one(values)).to_owned();
            headers.push((
                (*key).to_owned(),
                self.filled(&value).replace("@STREAM@", &stream),
            ));
        }
        // A batch needs two headers to be one.
        let batched =
            |headers: &[(String, String)]| headers.iter().any(|(key, _)| key == "Nats-Batch-Id");
        if self.draw.percent(8) && !batched(&headers) && self.about == About::Messages {
            let sequence = self.draw.between(1, 3).to_string();
            headers.push(("Nats-Batch-Id".to_owned(), "batch1".to_owned()));
            headers.push(("Nats-Batch-Sequence".to_owned(), sequence));
            if self.draw.percent(40) {
                headers.push(("Nats-Batch-Commit".to_owned(), "1".to_owned()));
            }
        }
        let size = *self.draw.one(&[0, 1, 10, 10, 40, 200]);
        let silent = batched(&headers);
        Step::Request {
            kind: "publish",
            subject,
            headers,
            payload: "x".repeat(size),
            answer: if silent { Answer::Perhaps } else { Answer::Due },
        }
    }

    fn plain_publish(&mut self) -> Step {
        if self.draw.percent(8) {
            return self.publish();
        }
        Step::Request {
            kind: "publish",
            subject: (*self.draw.one(&SUBJECTS)).to_owned(),
            headers: Vec::new(),
            payload: "x".repeat(*self.draw.one(&[0, 10, 100])),
            answer: Answer::Due,
        }
    }

    fn consumer_create(&mut self, tame: bool) -> Step {
        let stream = self.stream();
        let name = (*self.draw.one(&CONSUMERS)).to_owned();
        self.consumer_config("consumer create", stream, name, tame)
    }

    fn consumer_update(&mut self) -> Step {
        let (stream, name) = self.consumer();
        self.consumer_config("consumer update", stream, name, false)
    }

    fn consumer_config(
        &mut self,
        kind: &'static str,
        stream: String,
        name: String,
        tame: bool,
    ) -> Step {
        let (often, wild) = self.temper(tame);
        let mut members = Vec::new();
        let mut special = (*self.draw.one(fields::CONSUMER_KINDS)).to_owned();
        // The reference counts as pending what comes before the start of a consumer that begins in the future.
        if self.last < 3 {
            special = special.replace("\"opt_start_seq\":3", "\"opt_start_seq\":1");
        }
        if !special.is_empty() {
            members.push(self.filled(&special));
        }
        for member in self.members(fields::CONSUMER, often, wild) {
            let key = member.split(':').next().unwrap_or_default().to_owned();
            // Said twice, the last would count for one and the first for another.
            if !special.contains(&format!("{key}:")) {
                members.push(member);
            }
        }
        let way = self.draw.below(10);
        let mut filter = String::new();
        let subject = match way {
            0 | 1 => {
                if self.draw.percent(20) {
                    members.push(format!("\"name\":\"{name}\""));
                }
                format!("$JS.API.CONSUMER.CREATE.{stream}")
            }
            2 | 3 => {
                members.push(format!("\"durable_name\":\"{name}\""));
                format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}")
            }
            _ => {
                let named = if !tame && self.draw.percent(5) {
                    "other".to_owned()
                } else {
                    name.clone()
                };
                if self.draw.percent(70) {
                    members.push(format!("\"name\":\"{named}\""));
                }
                if self.draw.percent(60) {
                    members.push(format!("\"durable_name\":\"{name}\""));
                }
                if self.draw.percent(20) {
                    let filters = ["s.a.*", "s.a.1", "s.>", "s.b.x"];
                    filter = format!(".{}", self.draw.one(&filters));
                }
                format!("$JS.API.CONSUMER.CREATE.{stream}.{name}{filter}")
            }
        };
        if !filter.is_empty() && self.draw.percent(80) {
            members.retain(|member| !member.starts_with("\"filter_subject"));
            members.push(format!("\"filter_subject\":\"{}\"", &filter[1..]));
        }
        // A consumer of the reference that loses its filters hears of no new message any more.
        let is_known = self.consumers.iter().any(|known| known.name == name);
        let is_filtered = |member: &String| {
            member.starts_with("\"filter_subject")
                && !(member.ends_with("[]") || member.ends_with("null") || member.ends_with("\"\""))
        };
        if is_known && !members.iter().any(is_filtered) {
            members.retain(|member| !member.starts_with("\"filter_subject"));
            members.push(r#""filter_subject":">""#.to_owned());
        }
        let mut outer = vec![format!("\"stream_name\":\"{stream}\"")];
        if !tame && self.draw.percent(3) {
            outer[0] = r#""stream_name":"OTHER""#.to_owned();
        }
        outer.push(format!("\"config\":{{{}}}", members.join(",")));
        if self.draw.percent(20) {
            let action = *self.draw.one(&["", "create", "update", "nonsense"]);
            outer.push(format!("\"action\":\"{action}\""));
        }
        if !tame && self.draw.percent(4) {
            outer.push("\"pedantic\":true".to_owned());
        }
        self.request(kind, subject, format!("{{{}}}", outer.join(",")))
    }

    fn consumer_question(&mut self) -> Step {
        let (stream, name) = self.consumer();
        match self.draw.below(8) {
            // Names that the server makes up stand in no order that two servers have in common.
            0 | 1 if self.consumers.iter().any(|one| one.name.starts_with('@')) => {
                let kind = *self.draw.one(&["NAMES", "LIST"]);
                self.request(
                    "consumer names",
                    format!("$JS.API.CONSUMER.{kind}.{stream}"),
                    String::new(),
                )
            }
            0 => {
                let payload =
                    *self
                        .draw
                        .one(&["", "{}", r#"{"offset":1}"#, r#"{"offset":-1}"#, "x"]);
                self.request(
                    "consumer names",
                    format!("$JS.API.CONSUMER.NAMES.{stream}"),
                    payload.to_owned(),
                )
            }
            1 => {
                let payload = *self.draw.one(&["", "{}", r#"{"offset":1}"#, "[]"]);
                self.request(
                    "consumer list",
                    format!("$JS.API.CONSUMER.LIST.{stream}"),
                    payload.to_owned(),
                )
            }
            2 => {
                let payload = *self.draw.one(&["", "", "{}", "x"]);
                self.request(
                    "consumer info",
                    format!("$JS.API.CONSUMER.INFO.{stream}.{name}"),
                    payload.to_owned(),
                )
            }
            3 | 4 => {
                let payload = *self.draw.one(&[
                    "",
                    "{}",
                    r#"{"pause_until":"@FUTURE@"}"#,
                    r#"{"pause_until":"@PAST@"}"#,
                    r#"{"pause_until":"x"}"#,
                    "x",
                ]);
                let payload = self.filled(payload);
                self.request(
                    "consumer pause",
                    format!("$JS.API.CONSUMER.PAUSE.{stream}.{name}"),
                    payload,
                )
            }
            5 => {
                // Not beyond the end: a consumer of the reference whose floor is there has a stream by interest lose, when its filters change, what others
                // have not had.
                let last = format!(r#"{{"seq":{}}}"#, self.last.max(1));
                let payload = *self.draw.one(&[
                    "",
                    "{}",
                    r#"{"seq":1}"#,
                    last.as_str(),
                    r#"{"seq":0}"#,
                    "x",
                    r#"{"x":1}"#,
                ]);
                self.request(
                    "consumer reset",
                    format!("$JS.API.CONSUMER.RESET.{stream}.{name}"),
                    payload.to_owned(),
                )
            }
            6 => {
                let payload =
                    *self
                        .draw
                        .one(&["", r#"{"group":"g"}"#, r#"{"group":"h"}"#, "{}", "x"]);
                self.request(
                    "consumer unpin",
                    format!("$JS.API.CONSUMER.UNPIN.{stream}.{name}"),
                    payload.to_owned(),
                )
            }
            _ => self.request(
                "administration",
                format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{stream}.{name}"),
                String::new(),
            ),
        }
    }

    fn consumer_delete(&mut self) -> Step {
        let (stream, name) = self.consumer();
        let payload = *self.draw.one(&["", "", "", "{}", "x"]);
        self.request(
            "consumer delete",
            format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"),
            payload.to_owned(),
        )
    }

    fn pull(&mut self, tame: bool) -> Step {
        let grouped = self.consumers.iter().any(|consumer| consumer.grouped);
        let (stream, name) = self.consumer();
        let wild = if !tame || self.draw.percent(10) {
            20
        } else {
            0
        };
        let payload = if self.draw.percent(10) {
            (*self.draw.one(&["", "1", "3", "0", "x", "-1", "{", "{}"])).to_owned()
        } else {
            let mut members = self.members(&fields::PULL[..5], 40, wild);
            // They are refused where there are no groups.
            if grouped || self.draw.percent(5) {
                members.extend(self.members(&fields::PULL[5..], 35, wild));
            }
            if !members
                .iter()
                .any(|m| m.starts_with("\"expires\"") || m.starts_with("\"no_wait\""))
                && self.draw.percent(70)
            {
                members.push("\"no_wait\":true".to_owned());
            }
            format!("{{{}}}", members.join(","))
        };
        Step::Request {
            kind: "pull",
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            headers: Vec::new(),
            payload,
            answer: Answer::Perhaps,
        }
    }

    fn ack(&mut self, deliveries: usize) -> Step {
        let back = self.draw.below(deliveries.min(6));
        let payload = (*self.draw.one(fields::ACKS)).to_owned();
        Step::Ack {
            delivery: deliveries - 1 - back,
            payload,
            confirmed: self.draw.percent(50),
        }
    }

    fn subscribe(&mut self) -> Step {
        let pushing: Vec<&str> = self
            .consumers
            .iter()
            .filter_map(|consumer| consumer.push.as_deref())
            .collect();
        let subject = match pushing.as_slice() {
            [] => "push.1".to_owned(),
            some => (*self.draw.one(some)).to_owned(),
        };
        if self.draw.percent(25) {
            return Step::Unsubscribe { subject };
        }
        let queue = *self.draw.one(&["", "", "q", "other"]);
        Step::Subscribe {
            subject,
            queue: queue.to_owned(),
        }
    }
}

/// The time that many seconds from now.
fn now(seconds: i64) -> String {
    (OffsetDateTime::now_utc() + time::Duration::seconds(seconds))
        .format(&Rfc3339)
        .expect("the present can be written")
}

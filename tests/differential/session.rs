//! One connection to one server: what is sent on it, and what came back in a form that two servers have in common.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::common::{Server, Wire};
use super::compare;
use super::frames::{self, Frame, Message};

const CONNECT: &str = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"differential","version":"0"}"#;
/// As long as client libraries make them: the size of a reply subject counts in some limits.
const INBOX: &str = "_INBOX.0123456789abcdefgh";
const POLL: Duration = Duration::from_millis(1);

/// A message that came, without what varies from run to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it was sent to.
    pub subject: String,
    /// Its reply subject, without its time.
    pub reply: String,
    /// Its headers, without times.
    pub headers: String,
    /// Its payload.
    pub payload: String,
    /// Its reply subject as it was, to acknowledge it.
    pub reply_raw: String,
}

impl Seen {
    /// The payload where it is a JSON object.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.payload)
            .ok()
            .filter(Value::is_object)
    }
}

/// A connection.
pub struct Session {
    wire: Wire,
    requests: u32,
    subscriptions: Vec<(String, u32)>,
    sids: u32,
    /// Requests whose answers tell a name that the server made up, and what they sent.
    unnamed: HashMap<String, String>,
    /// Names that the server made up, and what they are called here.
    names: Vec<(String, String)>,
    /// Reply subjects of all that was delivered.
    deliveries: Vec<String>,
    /// Who is pinned, as the last delivery told.
    pin: String,
    /// The first figures that the server gave of all its requests since it was told to count anew.
    requests_before: Option<[u64; 2]>,
    seen: Vec<Seen>,
}

impl Session {
    /// Connects and listens to answers and to what streams republish.
    pub fn open(server: &Server) -> Self {
        let mut session = Self {
            wire: Wire::ready(server.address(), CONNECT),
            requests: 0,
            subscriptions: Vec::new(),
            sids: 0,
            unnamed: HashMap::new(),
            names: Vec::new(),
            deliveries: Vec::new(),
            pin: String::new(),
            requests_before: None,
            seen: Vec::new(),
        };
        session.subscribe(&format!("{INBOX}.>"), "");
        session.subscribe("repub.>", "");
        session.wire.round_trip();
        session
    }

    /// Forgets what belongs to one scenario only.
    pub fn begin(&mut self) {
        for (_, sid) in self.subscriptions.split_off(2) {
            self.wire.send(format!("UNSUB {sid}\r\n"));
        }
        self.names.clear();
        self.deliveries.clear();
        self.pin.clear();
        self.requests_before = None;
    }

    /// Listens, as a member of a queue group where one is named.
    pub fn subscribe(&mut self, subject: &str, queue: &str) {
        self.sids += 1;
        let sid = self.sids;
        self.wire.send(format!("SUB {subject} {queue} {sid}\r\n"));
        self.subscriptions.push((subject.to_owned(), sid));
    }

    /// Ends all subscriptions of a subject.
    pub fn unsubscribe(&mut self, subject: &str) {
        let wire = &mut self.wire;
        self.subscriptions.retain(|(known, sid)| {
            if known == subject {
                wire.send(format!("UNSUB {sid}\r\n"));
            }
            known != subject
        });
    }

    /// Publishes with a reply subject, which is returned; placeholders are filled in.
    pub fn request(
        &mut self,
        subject: &str,
        headers: &[(String, String)],
        payload: &str,
    ) -> String {
        self.requests += 1;
        let inbox = format!("{INBOX}.{:08}", self.requests);
        let (subject, payload) = (self.filled(subject), self.filled(payload));
        if subject.starts_with("$JS.API.CONSUMER.CREATE.") && subject.split('.').count() == 5 {
            self.unnamed.insert(inbox.clone(), payload.clone());
        }
        self.publish(&subject, &inbox, headers, &payload);
        inbox
    }

    /// Acknowledges a message that was delivered; returns where the confirmation goes to.
    pub fn acknowledge(
        &mut self,
        delivery: usize,
        payload: &str,
        confirmed: bool,
    ) -> Option<String> {
        let subject = self.deliveries.get(delivery)?.clone();
        // A request for the next message is answered there, too.
        let inbox = if confirmed || payload.starts_with("+NXT") {
            self.requests += 1;
            format!("{INBOX}.{:08}", self.requests)
        } else {
            String::new()
        };
        self.publish(&subject, &inbox, &[], payload);
        (!inbox.is_empty()).then_some(inbox)
    }

    fn publish(&mut self, subject: &str, reply: &str, headers: &[(String, String)], payload: &str) {
        if headers.is_empty() {
            self.wire.send(format!(
                "PUB {subject} {reply} {}\r\n{payload}\r\n",
                payload.len()
            ));
            return;
        }
        let mut block = "NATS/1.0\r\n".to_owned();
        for (key, value) in headers {
            block.push_str(&format!("{key}: {value}\r\n"));
        }
        block.push_str("\r\n");
        self.wire.send(format!(
            "HPUB {subject} {reply} {} {}\r\n{block}{payload}\r\n",
            block.len(),
            block.len() + payload.len()
        ));
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text.replace("@PIN@", &self.pin);
        for (name, placeholder) in &self.names {
            text = text.replace(placeholder, name);
        }
        text
    }

    /// Reads what has come; true when there was something.
    pub fn poll(&mut self) -> bool {
        self.wire.read_until(POLL, |_, _| false);
        let mut came = false;
        while let Some((frame, length)) = frames::first(self.wire.received()) {
            self.wire.take_first(length);
            match frame {
                Frame::Line(line) if line == "PING\r\n" => self.wire.send("PONG\r\n"),
                Frame::Message(message) => came |= self.take_in(&message),
                _ => {}
            }
        }
        came
    }

    fn take_in(&mut self, message: &Message) -> bool {
        let headers = String::from_utf8_lossy(&message.headers).into_owned();
        // How many come hangs on the pace of the servers.
        if headers.contains(" Idle Heartbeat") {
            return false;
        }
        if headers.contains(" FlowControl Request") {
            self.publish(&message.reply, "", &[], "");
        }
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        if let Some(sent) = self.unnamed.remove(&message.subject)
            && let Ok(Value::Object(answer)) = serde_json::from_str(&payload)
            && let Some(Value::String(name)) = answer.get("name")
            && !sent.contains(name.as_str())
        {
            let number = message.subject.rsplit('.').next().unwrap_or_default();
            let placeholder = format!("@E{number}@");
            // What it delivers may come before the answer.
            for seen in &mut self.seen {
                for text in [&mut seen.reply, &mut seen.headers, &mut seen.payload] {
                    *text = text.replace(name, &placeholder);
                }
            }
            self.names.push((name.clone(), placeholder));
        }
        for line in headers.split("\r\n") {
            if let Some(pin) = line.strip_prefix("Nats-Pin-Id: ") {
                pin.clone_into(&mut self.pin);
            }
        }
        let called_here = |text: &str| {
            self.names
                .iter()
                .fold(text.to_owned(), |text, (name, placeholder)| {
                    text.replace(name, placeholder)
                })
        };
        let [subject, reply, headers, payload] = [
            &message.subject,
            &compare::comparable_ack_subject(&message.reply),
            &compare::comparable_headers(&headers),
            &payload,
        ]
        .map(|text| called_here(text));
        let payload = self.since_beginning(payload);
        self.seen.push(Seen {
            subject,
            reply,
            headers,
            payload,
            reply_raw: message.reply.clone(),
        });
        true
    }

    /// The account's figures count what was done since the scenario began.
    fn since_beginning(&mut self, payload: String) -> String {
        let Ok(mut body) = serde_json::from_str::<Value>(&payload) else {
            return payload;
        };
        let Some(Value::Object(api)) = body.get_mut("api") else {
            return payload;
        };
        let figures = ["total", "errors"].map(|key| api.get(key).and_then(Value::as_u64));
        let [Some(total), Some(errors)] = figures else {
            return payload;
        };
        let before = *self.requests_before.get_or_insert([total, errors]);
        api.insert("total".to_owned(), (total - before[0]).into());
        api.insert("errors".to_owned(), (errors - before[1]).into());
        body.to_string()
    }

    /// The account's figures count from what they are told next.
    pub fn count_anew(&mut self) {
        self.requests_before = None;
    }

    /// All that has come and was not taken: of each subject in its order, and of each consumer that delivers it in its own.
    pub fn seen(&mut self) -> &[Seen] {
        fn place(seen: &Seen) -> (&str, &str) {
            let ack = seen.reply.strip_prefix("$JS.ACK.").unwrap_or_default();
            let names = ack.match_indices('.').nth(1).map_or(0, |(end, _)| end);
            (&seen.subject, &ack[..names])
        }
        self.seen
            .sort_by(|one, other| place(one).cmp(&place(other)));
        &self.seen
    }

    /// Takes it; what can be acknowledged is remembered.
    pub fn take(&mut self) -> Vec<Seen> {
        self.seen();
        let seen = std::mem::take(&mut self.seen);
        for message in &seen {
            if message.reply_raw.starts_with("$JS.ACK.") {
                self.deliveries.push(message.reply_raw.clone());
            }
        }
        seen
    }

    /// Forgets what has come, where it does not count.
    pub fn drop_seen(&mut self) {
        self.seen.clear();
    }

    /// How many deliveries can be acknowledged.
    pub fn deliveries(&self) -> usize {
        self.deliveries.len()
    }
}

//! Two servers that are told the same.

use std::path::Path;
use std::time::{Duration, Instant};

use super::common::{Server, ServerOptions};
use super::judge;
use super::session::{Seen, Session};
use super::step::{Answer, Step};

/// How long both must have been silent until a step is over.
const QUIET: Duration = Duration::from_millis(12);
/// How long an answer that is due may take, and how long what differs has to become the same.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How long two servers that agree in silence are waited for.
const SILENCE: Duration = Duration::from_millis(400);

/// What came of a step.
pub struct Outcome {
    /// What the reference did.
    pub reference: Vec<Seen>,
    /// What ours did.
    pub ours: Vec<Seen>,
    /// What differs.
    pub differences: Vec<String>,
    /// Whether what follows can still be compared.
    pub goes_on: bool,
}

/// The reference and ours.
pub struct Pair {
    reference: Session,
    ours: Session,
    _servers: [Server; 2],
}

impl Pair {
    /// Starts both.
    pub fn start(reference: &Path) -> Self {
        let options = || {
            ServerOptions::default()
                .jetstream()
                .arguments(["--name", "both"])
        };
        let servers = [options().binary(reference).start(), options().start()];
        Self {
            reference: Session::open(&servers[0]),
            ours: Session::open(&servers[1]),
            _servers: servers,
        }
    }

    /// Forgets what belongs to one scenario, and deletes its streams.
    pub fn begin(&mut self, streams: &[String]) {
        for session in [&mut self.reference, &mut self.ours] {
            session.begin();
            for stream in streams {
                session.request(&format!("$JS.API.STREAM.DELETE.{stream}"), &[], "");
            }
            let last = session.request("$JS.API.STREAM.NAMES", &[], "");
            let deadline = Instant::now() + PATIENCE;
            while !session.seen().iter().any(|message| message.subject == last)
                && Instant::now() < deadline
            {
                session.poll();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
        for session in [&mut self.reference, &mut self.ours] {
            session.poll();
            session.drop_seen();
        }
    }

    /// How many deliveries can be acknowledged.
    pub fn deliveries(&self) -> usize {
        self.reference.deliveries()
    }

    /// Does a step on both; `known` is what a look asks for, and the account's figures are looked at where they can be compared.
    pub fn step(&mut self, step: &Step, known: &[(String, String)], figures: bool) -> Outcome {
        let mut due = None;
        for session in [&mut self.reference, &mut self.ours] {
            match step {
                Step::Request {
                    subject,
                    headers,
                    payload,
                    answer,
                    ..
                } => {
                    let inbox = session.request(subject, headers, payload);
                    due = (*answer == Answer::Due).then_some(inbox);
                }
                Step::Ack {
                    delivery,
                    payload,
                    confirmed,
                } => {
                    due = session.acknowledge(*delivery, payload, *confirmed);
                }
                Step::Subscribe { subject, queue } => session.subscribe(subject, queue),
                Step::Unsubscribe { subject } => session.unsubscribe(subject),
                Step::Wait { .. } | Step::Look => {}
            }
        }
        match step {
            Step::Wait { pause_ms } => std::thread::sleep(Duration::from_millis(*pause_ms)),
            Step::Look => return self.look(known, figures),
            _ => {}
        }
        self.settle(step.kind(), due.as_deref())
    }

    fn settle(&mut self, kind: &str, due: Option<&str>) -> Outcome {
        let begun = Instant::now();
        let mut last_arrival = begun;
        loop {
            let came = self.reference.poll() | self.ours.poll();
            let now = Instant::now();
            if came {
                last_arrival = now;
                continue;
            }
            if now - last_arrival < QUIET {
                continue;
            }
            let same = judge::differences(kind, self.reference.seen(), self.ours.seen()).is_empty();
            let answered =
                due.is_none_or(|inbox| self.reference.seen().iter().any(|m| m.subject == inbox));
            let waited = now - begun;
            if (same && (answered || waited > SILENCE)) || waited > PATIENCE {
                break;
            }
        }
        let differences = judge::differences(kind, self.reference.seen(), self.ours.seen());
        let goes_on =
            differences.is_empty() || judge::both_refused(self.reference.seen(), self.ours.seen());
        Outcome {
            ours: self.ours.take(),
            reference: self.reference.take(),
            differences,
            goes_on,
        }
    }

    /// Asks for what is known until both say the same, or too long.
    fn look(&mut self, known: &[(String, String)], figures: bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Alone: what is asked at the same time may or may not be counted yet.
            let account = [("$JS.API.INFO".to_owned(), String::new())];
            let mut outcome = self.ask(if figures { &account } else { &[] });
            let rest = self.ask(known);
            outcome.reference.extend(rest.reference);
            outcome.ours.extend(rest.ours);
            outcome.differences.extend(rest.differences);
            outcome.goes_on &= rest.goes_on;
            if outcome.differences.is_empty() || Instant::now() > deadline {
                return outcome;
            }
            // Asking for what one of them has dropped a moment before the other is an error there only.
            if !outcome.differences.iter().all(|it| it.starts_with("api.")) {
                self.reference.count_anew();
                self.ours.count_anew();
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    fn ask(&mut self, questions: &[(String, String)]) -> Outcome {
        for session in [&mut self.reference, &mut self.ours] {
            for (subject, payload) in questions {
                session.request(subject, &[], payload);
            }
        }
        let (kind, answers) = ("look", questions.len());
        let deadline = Instant::now() + PATIENCE;
        let missing = |session: &mut Session| session.seen().len() < answers;
        while (missing(&mut self.reference) || missing(&mut self.ours)) && Instant::now() < deadline
        {
            self.reference.poll();
            self.ours.poll();
        }
        let differences = judge::differences(kind, self.reference.seen(), self.ours.seen());
        Outcome {
            ours: self.ours.take(),
            reference: self.reference.take(),
            goes_on: differences.is_empty(),
            differences,
        }
    }
}

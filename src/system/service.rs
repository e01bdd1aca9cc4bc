//! The thread that sends events and answers questions.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::compress;
use super::envelope::Sequence;
use super::events::{self, Snapshot};
use super::question::{
    ACCOUNT_SERVICES, ALL_FIGURES, OLD_PING, ORDERS, OWN_SERVICES, Question, SERVER_SERVICES,
    SUBSCRIBERS, SUBSCRIPTION_COUNT, ServerService, USER_INFO,
};
use super::requests::Desk;
use super::spoken;
use super::statsz;
use super::subscribers::{Counted, Counts, Wanted};
use super::trace;
use crate::broker::{
    Account, Broker, Client, CloseReason, Inbound, InternalSubscription, InternalTarget, Outgoing,
    PublishCache, TraceReport, TraceSink,
};
use crate::connection::ConnectionObserver;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::QueueFigures;
use crate::subject::InvalidSubject;
use crate::tls::ocsp::PeerRefusal;

/// What may wait for the thread; more is dropped and counted.
const QUEUE_MAX: u64 = 64 * 1024;
/// What reports on traced messages may take while they wait; more are dropped and counted.
const REPORT_BYTES_MAX: usize = 64 << 20;
/// The first figures are sent after this, the next after twice as long, and so on up to [`FIGURES_EVERY`].
const FIGURES_FIRST: Duration = Duration::from_millis(250);
/// How often figures are sent in the end.
const FIGURES_EVERY: Duration = Duration::from_secs(10);
/// How often answers are forgotten that other accounts wait for in vain.
const REPLIES_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether servers have come or gone: then figures are sent at once.
const CHANGES_EVERY: Duration = Duration::from_secs(1);
/// How often it is told how many connections each account has that has any.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(30);

/// Why the system account has no services.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The thread did not start.
    #[error("system account thread: {0}")]
    Thread(#[from] io::Error),
    /// A service's subject is no subject.
    #[error("system account: {0}")]
    Subject(#[from] InvalidSubject),
}

/// What there is to do.
enum Work {
    Question(Inbound),
    Connected(Snapshot),
    Disconnected(Snapshot, CloseReason),
    Refused(Snapshot, CloseReason),
    CertificateRefused(Box<PeerRefusal>),
    LameDuck,
    Traced(Box<TraceReport>),
    Stop,
}

/// The events and services of a running server. They end when this is dropped.
pub struct System {
    queue: Arc<Queue>,
    running: Mutex<Option<Running>>,
}

struct Running {
    broker: Arc<Broker>,
    _of_server: Vec<InternalSubscription>,
    /// By the account's name.
    of_accounts: HashMap<String, OfAccount>,
    thread: JoinHandle<()>,
}

/// The services about one account.
struct OfAccount {
    account: Arc<Account>,
    _subscriptions: Vec<InternalSubscription>,
}

impl Running {
    /// Accounts have come or gone: there are services about those that are here.
    fn review_accounts(&mut self, queue: &Arc<Queue>) -> Result<(), InvalidSubject> {
        let accounts = self.broker.accounts();
        self.of_accounts.retain(|_, known| {
            let mut accounts = accounts.iter();
            accounts.any(|account| Arc::ptr_eq(account, &known.account))
        });
        for account in accounts {
            if !self.of_accounts.contains_key(account.name()) {
                let subscriptions = subscribe_about(&account, self.broker.system(), queue)?;
                let of_account = OfAccount {
                    account: Arc::clone(&account),
                    _subscriptions: subscriptions,
                };
                (self.of_accounts).insert(account.name().to_owned(), of_account);
            }
        }
        Ok(())
    }
}

/// What waits for the thread.
struct Queue {
    sender: Sender<Work>,
    waiting: AtomicU64,
    dropped: AtomicU64,
    /// Bytes of the reports on traced messages that wait.
    report_bytes: AtomicUsize,
}

impl Queue {
    /// Whether it waits now.
    fn push(&self, work: Work) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // When the thread has ended nobody is told anything any more.
        self.sender.send(work).is_ok()
    }
}

impl InternalTarget for Queue {
    fn deliver(&self, batch: Vec<Inbound>) {
        for request in batch {
            self.push(Work::Question(request));
        }
    }
}

impl TraceSink for Queue {
    fn report(&self, report: TraceReport) {
        let bytes = report.bytes();
        if self.report_bytes.load(Ordering::Relaxed) + bytes > REPORT_BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.report_bytes.fetch_add(bytes, Ordering::Relaxed);
        if !self.push(Work::Traced(Box::new(report))) {
            self.report_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// What the system account may have done on this server. Called on a thread of its own, which may wait.
pub trait Operator: Send + Sync {
    /// Reads the configuration again.
    fn reload(&self) -> Result<(), String>;
    /// Closes the connection of this number.
    fn kick(&self, cid: u64) -> Result<(), String>;
    /// Tells the client of this connection to look for another server.
    fn send_away(&self, cid: u64) -> Result<(), String>;
}

impl System {
    /// Answers questions in the system account from now on, and sends what happens.
    pub fn start(
        monitor: Arc<Monitor>,
        broker: &Arc<Broker>,
        operator: Arc<dyn Operator>,
    ) -> Result<Self, StartError> {
        // One that is bounded by itself would have all of its room from the start.
        let (sender, receiver) = channel();
        let queue = Arc::new(Queue {
            sender,
            waiting: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            report_bytes: AtomicUsize::new(0),
        });
        let of_server = subscribe(&monitor, broker.system(), &queue)?;
        broker.set_trace_sink(Arc::clone(&queue) as Arc<dyn TraceSink>);
        let worker = Worker {
            operator,
            monitor,
            broker: Arc::clone(broker),
            queue: Arc::clone(&queue),
            sequence: Arc::default(),
            cache: PublishCache::new(),
            counts: Counts::default(),
        };
        let thread = std::thread::Builder::new()
            .name("system".into())
            .spawn(move || worker.run(&receiver))?;
        let mut running = Running {
            broker: Arc::clone(broker),
            _of_server: of_server,
            of_accounts: HashMap::new(),
            thread,
        };
        running.review_accounts(&queue)?;
        Ok(Self {
            queue,
            running: Mutex::new(Some(running)),
        })
    }

    /// Accounts have come or gone with a new configuration: questions about those that came are answered from now on.
    pub fn review_accounts(&self) {
        if let Some(running) = &mut *self.running.lock()
            && let Err(error) = running.review_accounts(&self.queue)
        {
            tracing::error!("There are no services about a new account: {error}");
        }
    }

    /// What waits for the thread.
    pub fn queue(&self) -> QueueFigures {
        QueueFigures {
            name: "System account".into(),
            pending: self.queue.waiting.load(Ordering::Relaxed),
            in_progress: 0,
        }
    }

    /// Tells others that this server lets its clients go.
    pub fn enter_lame_duck(&self) {
        self.queue.push(Work::LameDuck);
    }

    /// Tells others that this server ends, and ends its services. A second call does nothing.
    pub fn shutdown(&self) {
        let running = self.running.lock().take();
        if let Some(running) = running {
            // A full queue is worked off first.
            self.queue.waiting.fetch_add(1, Ordering::Relaxed);
            let _ = self.queue.sender.send(Work::Stop);
            // A thread that panicked has said so already.
            let _ = running.thread.join();
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl ConnectionObserver for System {
    fn connected(&self, client: &Client) {
        self.queue.push(Work::Connected(Snapshot::of(client)));
    }

    fn disconnected(&self, client: &Client, reason: CloseReason) {
        let snapshot = Snapshot::of(client);
        self.queue.push(Work::Disconnected(snapshot, reason));
    }

    fn refused(&self, client: &Client, reason: CloseReason) {
        self.queue.push(Work::Refused(Snapshot::of(client), reason));
    }

    fn certificate_refused(&self, refusal: &PeerRefusal) {
        let refusal = Box::new(refusal.clone());
        self.queue.push(Work::CertificateRefused(refusal));
    }
}

/// The services about the server.
fn subscribe(
    monitor: &Monitor,
    system: &Arc<Account>,
    queue: &Arc<Queue>,
) -> Result<Vec<InternalSubscription>, InvalidSubject> {
    let id = &monitor.server.facts().server_id;
    let mut subscriptions = Vec::new();
    let mut add = |subject: &str| {
        let target = Arc::clone(queue) as Arc<dyn InternalTarget>;
        subscriptions.push(system.subscribe(subject, None, target, 0)?);
        spoken::listens(subject, subscriptions.len());
        Ok::<(), InvalidSubject>(())
    };
    add(OLD_PING)?;
    add(ALL_FIGURES)?;
    add(SUBSCRIPTION_COUNT)?;
    add(&format!("{}*", inbox(id)))?;
    for (service, _) in SERVER_SERVICES {
        add(&format!("$SYS.REQ.SERVER.{id}.{service}"))?;
        add(&format!("$SYS.REQ.SERVER.PING.{service}"))?;
    }
    for (order, _) in ORDERS {
        add(&format!("$SYS.REQ.SERVER.{id}.{order}"))?;
    }
    Ok(subscriptions)
}

/// The services about an account, for the system account and for its own clients.
fn subscribe_about(
    account: &Arc<Account>,
    system: &Arc<Account>,
    queue: &Arc<Queue>,
) -> Result<Vec<InternalSubscription>, InvalidSubject> {
    let mut subscriptions = Vec::new();
    let target = || Arc::clone(queue) as Arc<dyn InternalTarget>;
    for (service, _) in ACCOUNT_SERVICES {
        // The name of an account may have several tokens.
        let subject = format!("$SYS.REQ.ACCOUNT.{}.{service}", account.name());
        subscriptions.push(system.subscribe(&subject, None, target(), 0)?);
    }
    if !Arc::ptr_eq(account, system) {
        for (subject, _) in OWN_SERVICES {
            subscriptions.push(account.subscribe(subject, None, target(), 0)?);
        }
    }
    // Only the server of a client knows who it is.
    subscriptions.push(account.subscribe_here(USER_INFO, None, target(), 0)?);
    // That server asks the others.
    subscriptions.push(account.subscribe_here(SUBSCRIBERS, None, target(), 0)?);
    Ok(subscriptions)
}

/// What the subjects begin with that other servers answer to.
fn inbox(server_id: &str) -> String {
    format!("$SYS._INBOX.{server_id}.")
}

struct Worker {
    operator: Arc<dyn Operator>,
    monitor: Arc<Monitor>,
    broker: Arc<Broker>,
    queue: Arc<Queue>,
    sequence: Arc<Sequence>,
    cache: PublishCache,
    /// What other servers have been asked.
    counts: Counts,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Work>) {
        let mut pause = FIGURES_FIRST;
        let mut figures_at = Instant::now() + pause;
        let mut connections_at = Instant::now() + CONNECTIONS_EVERY;
        let mut replies_at = Instant::now() + REPLIES_EVERY;
        // A server on its own has nothing to look for.
        let looks_every = self.remotes().map(|_| CHANGES_EVERY);
        let mut looked_at = Instant::now();
        let mut remotes = self.remotes();
        loop {
            let next = figures_at.min(connections_at).min(replies_at);
            let next = looks_every.map_or(next, |every| next.min(looked_at + every));
            let next = self.counts.next_end().map_or(next, |end| end.min(next));
            match receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(work) => {
                    self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.work(work);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            for counted in self.counts.ended(Instant::now()) {
                self.tell_count(&counted);
            }
            if looks_every.is_some_and(|every| looked_at.elapsed() >= every) {
                looked_at = Instant::now();
                let now = self.remotes();
                if now != remotes {
                    remotes = now;
                    // Whoever has come learns of this server, and the others of the change.
                    pause = FIGURES_FIRST;
                    figures_at = looked_at;
                }
            }
            if Instant::now() >= figures_at {
                self.send_figures();
                pause = (pause * 2).min(FIGURES_EVERY);
                figures_at = Instant::now() + pause;
            }
            if Instant::now() >= replies_at {
                self.broker.expire_replies();
                replies_at = Instant::now() + REPLIES_EVERY;
            }
            if Instant::now() >= connections_at {
                self.tell_connections_of_all();
                connections_at = Instant::now() + CONNECTIONS_EVERY;
            }
        }
        self.say_of_itself("SHUTDOWN");
    }

    /// How many other servers there are; `None` outside of a cluster.
    fn remotes(&self) -> Option<usize> {
        Some(self.monitor.server.routes()?.remotes)
    }

    fn work(&mut self, work: Work) {
        let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!("System account queue limit reached, {dropped} events were dropped");
        }
        match work {
            Work::Question(request) => self.answer(&request),
            Work::Connected(who) => {
                let server = &*self.monitor.server;
                let (subject, payload) = events::connect(server, &self.sequence, &who);
                self.send(subject, payload);
                self.tell_connections(&who.info.account);
            }
            Work::Disconnected(who, reason) => {
                let server = &*self.monitor.server;
                let (subject, payload) = events::disconnect(server, &self.sequence, &who, reason);
                self.send(subject, payload);
                self.tell_connections(&who.info.account);
            }
            Work::Refused(who, reason) => {
                let server = &*self.monitor.server;
                let (subject, payload) = events::refused(server, &self.sequence, &who, reason);
                self.send(subject, payload);
            }
            Work::CertificateRefused(refusal) => {
                let server = &*self.monitor.server;
                let told = events::certificate_refused(server, &self.sequence, &refusal);
                for (subject, payload) in told {
                    self.send(subject, payload);
                }
            }
            Work::LameDuck => self.say_of_itself("LAMEDUCK"),
            Work::Traced(report) => self.send_report(&report),
            Work::Stop => {}
        }
    }

    fn answer(&mut self, request: &Inbound) {
        let Ok(subject) = std::str::from_utf8(&request.subject) else {
            return;
        };
        let is_system = Arc::ptr_eq(&request.account, self.broker.system());
        let own_inbox = inbox(&self.monitor.server.facts().server_id);
        if is_system && let Some(number) = subject.strip_prefix(&own_inbox) {
            let number = number.parse().unwrap_or(0);
            if let Some(counted) = self.counts.answered(number, &request.payload) {
                self.tell_count(&counted);
            }
            return;
        }
        let question = match is_system {
            true => Question::parse(subject),
            false => Question::parse_of(subject, request.account.name()),
        };
        let Some(question) = question else {
            return;
        };
        // Without a reply, figures go to all who listen to them; there is nobody to give other answers to.
        if request.reply.is_empty() {
            if question == Question::Server(ServerService::Statistics) {
                self.send_figures();
            }
            return;
        }
        match question {
            Question::Subscribers => return self.count_subscribers(request),
            Question::SubscriptionCount => return self.count_for_server(request),
            // It takes seconds, and the others go on meanwhile.
            Question::Server(ServerService::Profile) => return self.profile(request.clone()),
            _ => {}
        }
        let desk = Desk {
            monitor: &self.monitor,
            broker: &self.broker,
            sequence: &self.sequence,
            operator: &*self.operator,
        };
        if let Some(payload) = desk.answer(question, request) {
            self.reply(request, payload);
        }
    }

    /// Answers a question for a profile on a thread of its own. Only one at a time takes one; the others are told so at once.
    fn profile(&self, request: Inbound) {
        let (monitor, broker) = (Arc::clone(&self.monitor), Arc::clone(&self.broker));
        let (sequence, operator) = (Arc::clone(&self.sequence), Arc::clone(&self.operator));
        let spawned = std::thread::Builder::new()
            .name("profile".into())
            .spawn(move || {
                let desk = Desk {
                    monitor: &monitor,
                    broker: &broker,
                    sequence: &sequence,
                    operator: &*operator,
                };
                let question = Question::Server(ServerService::Profile);
                if let Some(payload) = desk.answer(question, &request) {
                    let answer = answer_to(&request, payload);
                    spoken::says(&*monitor.server, &answer);
                    broker.publish(&request.account, &[answer], &mut PublishCache::new());
                }
            });
        if let Err(error) = spawned {
            tracing::warn!("No thread for a profile: {error}");
        }
    }

    fn count_subscribers(&mut self, request: &Inbound) {
        let account = &request.account;
        let wanted = Wanted::parse(&request.payload);
        let mut counted = Counted {
            account: Arc::clone(account),
            reply: request.reply.clone(),
            sum: 0,
        };
        let Some(wanted) = wanted else {
            return self.tell_count(&counted);
        };
        counted.sum = wanted.count(account);
        let servers = self.monitor.server.routes().map_or(0, |view| view.remotes);
        let number = match servers {
            0 => None,
            servers => self
                .counts
                .begin(account, &request.reply, counted.sum, servers),
        };
        let Some(number) = number else {
            return self.tell_count(&counted);
        };
        let id = &self.monitor.server.facts().server_id;
        let question = Outgoing {
            subject: Bytes::from_static(SUBSCRIPTION_COUNT.as_bytes()),
            reply: format!("{}{number}", inbox(id)).into(),
            payload: wanted.for_servers(account).into(),
            ..Outgoing::default()
        };
        let system = Arc::clone(self.broker.system());
        self.publish(&system, question);
    }

    /// Another server asks. This one's own question comes here, too, and has been answered already.
    fn count_for_server(&mut self, request: &Inbound) {
        let own_inbox = inbox(&self.monitor.server.facts().server_id);
        if request.reply.starts_with(own_inbox.as_bytes()) {
            return;
        }
        let count = Wanted::of_server(&request.payload).map_or(0, |(account, wanted)| {
            let account = self.broker.account(&account);
            account.map_or(0, |account| wanted.count(&account))
        });
        self.reply(request, count.to_string().into_bytes());
    }

    fn tell_count(&mut self, counted: &Counted) {
        let answer = Outgoing {
            subject: counted.reply.clone(),
            payload: counted.sum.to_string().into(),
            ..Outgoing::default()
        };
        self.publish(&counted.account, answer);
    }

    fn send_figures(&mut self) {
        let subject = format!(
            "$SYS.SERVER.{}.STATSZ",
            self.monitor.server.facts().server_id
        );
        if self.broker.system().has_interest(&subject) {
            let payload = statsz::payload(&self.monitor, &self.broker, &self.sequence);
            self.send(subject, payload);
        }
    }

    fn tell_connections_of_all(&mut self) {
        for account in self.broker.accounts() {
            if account.connection_count() > 0 {
                self.tell_connections(account.name());
            }
        }
    }

    /// Everybody has the global account, so nobody is told of it.
    fn tell_connections(&mut self, account: &str) {
        let Some(account) = self.broker.account(account) else {
            return;
        };
        if Arc::ptr_eq(&account, self.broker.global()) {
            return;
        }
        let name = account.name();
        for subject in [
            format!("$SYS.SERVER.ACCOUNT.{name}.CONNS"),
            format!("$SYS.ACCOUNT.{name}.SERVER.CONNS"),
        ] {
            if self.broker.system().has_interest(&subject) {
                let server = &*self.monitor.server;
                let payload = events::account_connections(server, &self.sequence, &account);
                self.send(subject, payload);
            }
        }
    }

    fn send_report(&mut self, report: &TraceReport) {
        self.queue
            .report_bytes
            .fetch_sub(report.bytes(), Ordering::Relaxed);
        let info = self.sequence.info(&*self.monitor.server);
        let payload = trace::payload(info, report);
        let accepted = report.headers.get(compress::ACCEPTED);
        let accepted = accepted.and_then(|values| values.first());
        let (headers, payload) = match accepted {
            Some(accepted) => compress::as_accepted(accepted, payload),
            None => (Bytes::new(), payload.into()),
        };
        let message = Outgoing {
            subject: Bytes::copy_from_slice(report.destination.as_bytes()),
            headers,
            payload,
            ..Outgoing::default()
        };
        self.publish(&report.account, message);
    }

    /// Says that the server does this now.
    fn say_of_itself(&mut self, what: &str) {
        let server = &*self.monitor.server;
        let subject = format!("$SYS.SERVER.{}.{what}", server.facts().server_id);
        let payload = events::server_alone(server, &self.sequence);
        self.send(subject, payload);
    }

    fn send(&mut self, subject: String, payload: Vec<u8>) {
        let message = Outgoing {
            subject: Bytes::from(subject),
            payload: payload.into(),
            ..Outgoing::default()
        };
        let system = Arc::clone(self.broker.system());
        self.publish(&system, message);
    }

    fn publish(&mut self, account: &Arc<Account>, message: Outgoing) {
        spoken::says(&*self.monitor.server, &message);
        self.broker.publish(account, &[message], &mut self.cache);
    }

    fn reply(&mut self, request: &Inbound, payload: Vec<u8>) {
        let answer = answer_to(request, payload);
        self.publish(&request.account, answer);
    }
}

/// An answer that goes where the question came from, as small as who asks can read it.
fn answer_to(request: &Inbound, payload: Vec<u8>) -> Outgoing {
    let (headers, payload) = compress::for_asker(&request.headers, payload);
    Outgoing {
        subject: request.reply.clone(),
        headers,
        payload,
        ..Outgoing::default()
    }
}

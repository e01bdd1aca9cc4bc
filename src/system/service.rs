//! The thread that sends events and answers questions.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::compress;
use super::envelope::Sequence;
use super::events::{self, Snapshot};
use super::question::{
    ACCOUNT_SERVICES, ALL_FIGURES, OLD_PING, ORDERS, OWN_SERVICES, Question, SERVER_SERVICES,
    ServerService, USER_INFO,
};
use super::requests::Desk;
use super::statsz;
use crate::broker::{
    Account, Broker, Client, CloseReason, Inbound, InternalSubscription, InternalTarget, Outgoing,
    PublishCache,
};
use crate::connection::ConnectionObserver;
use crate::monitor::endpoints::Monitor;
use crate::subject::InvalidSubject;

/// What may wait for the thread; more is dropped and counted.
const QUEUE_MAX: usize = 64 * 1024;
/// The first figures are sent after this, the next after twice as long, and so on up to [`FIGURES_EVERY`].
const FIGURES_FIRST: Duration = Duration::from_millis(250);
/// How often figures are sent in the end.
const FIGURES_EVERY: Duration = Duration::from_secs(10);
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
    LameDuck,
    Stop,
}

/// The events and services of a running server. They end when this is dropped.
pub struct System {
    queue: Arc<Queue>,
    running: Mutex<Option<Running>>,
}

struct Running {
    _subscriptions: Vec<InternalSubscription>,
    thread: JoinHandle<()>,
}

/// What waits for the thread.
struct Queue {
    sender: SyncSender<Work>,
    dropped: AtomicU64,
}

impl Queue {
    fn push(&self, work: Work) {
        match self.sender.try_send(work) {
            // When the thread has ended nobody is told anything any more.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl InternalTarget for Queue {
    fn deliver(&self, batch: Vec<Inbound>) {
        for request in batch {
            self.push(Work::Question(request));
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
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Queue {
            sender,
            dropped: AtomicU64::new(0),
        });
        let subscriptions = subscribe(&monitor, broker, &queue)?;
        let worker = Worker {
            operator,
            monitor,
            broker: Arc::clone(broker),
            queue: Arc::clone(&queue),
            sequence: Sequence::default(),
            cache: PublishCache::new(),
        };
        let thread = std::thread::Builder::new()
            .name("system".into())
            .spawn(move || worker.run(&receiver))?;
        Ok(Self {
            queue,
            running: Mutex::new(Some(Running {
                _subscriptions: subscriptions,
                thread,
            })),
        })
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
}

fn subscribe(
    monitor: &Monitor,
    broker: &Arc<Broker>,
    queue: &Arc<Queue>,
) -> Result<Vec<InternalSubscription>, InvalidSubject> {
    let id = &monitor.server.facts().server_id;
    let mut subscriptions = Vec::new();
    let mut add = |account: &Arc<Account>, subject: &str| {
        let target = Arc::clone(queue) as Arc<dyn InternalTarget>;
        subscriptions.push(account.subscribe(subject, None, target, 0)?);
        Ok::<(), InvalidSubject>(())
    };
    let system = broker.system();
    add(system, OLD_PING)?;
    add(system, ALL_FIGURES)?;
    for (service, _) in SERVER_SERVICES {
        add(system, &format!("$SYS.REQ.SERVER.{id}.{service}"))?;
        add(system, &format!("$SYS.REQ.SERVER.PING.{service}"))?;
    }
    for (order, _) in ORDERS {
        add(system, &format!("$SYS.REQ.SERVER.{id}.{order}"))?;
    }
    for (service, _) in ACCOUNT_SERVICES {
        // The name of an account may have several tokens.
        for account in broker.accounts() {
            let name = account.name();
            add(system, &format!("$SYS.REQ.ACCOUNT.{name}.{service}"))?;
        }
    }
    for account in broker.accounts() {
        if !Arc::ptr_eq(&account, system) {
            for (subject, _) in OWN_SERVICES {
                add(&account, subject)?;
            }
        }
    }
    for account in broker.accounts() {
        let target = Arc::clone(queue) as Arc<dyn InternalTarget>;
        // Only the server of a client knows who it is.
        subscriptions.push(account.subscribe_here(USER_INFO, None, target, 0)?);
    }
    Ok(subscriptions)
}

struct Worker {
    operator: Arc<dyn Operator>,
    monitor: Arc<Monitor>,
    broker: Arc<Broker>,
    queue: Arc<Queue>,
    sequence: Sequence,
    cache: PublishCache,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Work>) {
        let mut pause = FIGURES_FIRST;
        let mut figures_at = Instant::now() + pause;
        let mut connections_at = Instant::now() + CONNECTIONS_EVERY;
        loop {
            let wait = figures_at.min(connections_at) - Instant::now();
            match receiver.recv_timeout(wait) {
                Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(work) => self.work(work),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= figures_at {
                self.send_figures();
                pause = (pause * 2).min(FIGURES_EVERY);
                figures_at = Instant::now() + pause;
            }
            if Instant::now() >= connections_at {
                self.tell_connections_of_all();
                connections_at = Instant::now() + CONNECTIONS_EVERY;
            }
        }
        self.say_of_itself("SHUTDOWN");
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
            Work::LameDuck => self.say_of_itself("LAMEDUCK"),
            Work::Stop => {}
        }
    }

    fn answer(&mut self, request: &Inbound) {
        let Ok(subject) = std::str::from_utf8(&request.subject) else {
            return;
        };
        let is_system = Arc::ptr_eq(&request.account, self.broker.system());
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
        let desk = Desk {
            monitor: &self.monitor,
            broker: &self.broker,
            sequence: &self.sequence,
            operator: &*self.operator,
        };
        if let Some(payload) = desk.answer(question, request) {
            let (headers, payload) = compress::for_asker(&request.headers, payload);
            let answer = Outgoing {
                subject: request.reply.clone(),
                headers,
                payload,
                ..Outgoing::default()
            };
            self.broker
                .publish(&request.account, &[answer], &mut self.cache);
        }
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
        self.broker.publish(&system, &[message], &mut self.cache);
    }
}

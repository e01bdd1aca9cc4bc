//! The threads that answer API requests.
//!
//! Requests wait in one queue of limited length. When it is full, all that wait are dropped without an answer and an
//! advisory says how many: whoever floods the API must not make it slower for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::super::accounts::Accounts;
use super::super::advisory::{API_AUDIT, API_LIMIT_REACHED, ApiAudit, api_limit_reached};
use super::super::registry::AccountStreams;
use super::super::types::{ApiError, ErrorCode};
use super::administration::Administration;
use super::backup::{self, Answered, FollowUp};
use super::elsewhere::{Asked, AskingClient, Carried, Elsewhere, Way, Whither};
use super::handler::{
    Answer, Context, Handled, Outcome, Server, administer, answer_administration, handle,
    refuse_operation,
};
use super::route::Operation;
use crate::broker::{
    Account, Broker, ClientInfo, Inbound, InternalTarget, Outgoing, PublishCache, TracedAs,
};
use crate::protocol::headers;

/// The header that says which API level a request needs.
pub(crate) const REQUIRED_LEVEL: &str = "Nats-Required-Api-Level";
/// Requests wait for shards and disks, so more of them are in work than there are processors.
const THREADS: usize = 4;

/// What all workers share.
pub(crate) struct ApiQueue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    requests_max: usize,
    inflight: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Asked>,
    /// Requests that were dropped and not yet reported, with an account of those who asked.
    dropped: Option<(Arc<Account>, u64)>,
    closed: bool,
}

impl ApiQueue {
    /// Requests that wait or are being answered.
    pub(crate) fn inflight(&self) -> u64 {
        self.inflight.load(Ordering::Relaxed)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.lock().requests.len() as u64
    }

    /// Takes a request that another server carried here; `done` hears the answer, unless the request is dropped.
    pub(crate) fn carried(&self, carried: Carried, done: Box<dyn FnOnce(Answer) + Send>) {
        let mut waiting = self.waiting.lock();
        if waiting.closed || waiting.requests.len() >= self.requests_max {
            return;
        }
        self.inflight.fetch_add(1, Ordering::Relaxed);
        waiting.requests.push_back(Asked::Server(carried, done));
        drop(waiting);
        self.ready.notify_one();
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.requests.clear();
        self.ready.notify_all();
    }
}

impl InternalTarget for ApiQueue {
    fn deliver(&self, batch: Vec<Inbound>) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        self.inflight
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        let account = batch.first().map(|request| Arc::clone(&request.account));
        waiting
            .requests
            .extend(batch.into_iter().map(Asked::Client));
        let length = waiting.requests.len();
        if let Some(account) = account.filter(|_| length >= self.requests_max) {
            waiting.requests.clear();
            let dropped = length as u64;
            self.inflight.fetch_sub(dropped, Ordering::Relaxed);
            let earlier = waiting.dropped.take().map_or(0, |(_, count)| count);
            waiting.dropped = Some((account, earlier + dropped));
        }
        drop(waiting);
        if length == 1 {
            self.ready.notify_one();
        } else {
            self.ready.notify_all();
        }
    }

    fn traced_as(&self, _tag: u64) -> TracedAs<'_> {
        TracedAs::Service
    }
}

/// The running workers.
pub(crate) struct ApiWorkers {
    queue: Arc<ApiQueue>,
    threads: Vec<JoinHandle<()>>,
}

impl ApiWorkers {
    /// Starts the threads.
    pub(crate) fn start(
        server: &Arc<Server>,
        accounts: &Arc<Accounts>,
        broker: &Arc<Broker>,
        elsewhere: Option<&Arc<dyn Elsewhere>>,
        requests_max: usize,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(ApiQueue {
            waiting: Mutex::default(),
            ready: Condvar::new(),
            requests_max,
            inflight: AtomicU64::new(0),
        });
        let mut workers = Self {
            queue,
            threads: Vec::new(),
        };
        for number in 0..THREADS {
            let worker = Worker {
                voice: Arc::new(Voice {
                    server: Arc::clone(server),
                    broker: Arc::clone(broker),
                    queue: Arc::clone(&workers.queue),
                }),
                accounts: Arc::clone(accounts),
                elsewhere: elsewhere.map(Arc::clone),
                cache: PublishCache::new(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("js-api-{number}"))
                .spawn(move || worker.run())?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Where requests go.
    pub(crate) fn queue(&self) -> Arc<ApiQueue> {
        Arc::clone(&self.queue)
    }
}

impl Drop for ApiWorkers {
    /// Drops what waits and returns when the last answer has gone out.
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    voice: Arc<Voice>,
    accounts: Arc<Accounts>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
    cache: PublishCache,
}

enum Work {
    Request(Asked),
    Dropped(Arc<Account>, u64),
}

impl Worker {
    fn run(mut self) {
        while let Some(work) = self.next() {
            match work {
                Work::Request(Asked::Client(request)) => {
                    if self.serve(&request) == Progress::Answered {
                        self.voice.queue.inflight.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Work::Request(Asked::Server(carried, done)) => {
                    if let Some(handled) = self.serve_server(&carried) {
                        done(handled.answer);
                        let account = self.accounts.get(&carried.account);
                        self.follow_up(handled.follow_up, account.as_ref(), carried.client);
                    }
                    self.voice.queue.inflight.fetch_sub(1, Ordering::Relaxed);
                }
                Work::Dropped(account, count) => {
                    self.voice.report_dropped(&account, count, &mut self.cache);
                }
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let queue = &self.voice.queue;
        let mut waiting = queue.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some((account, count)) = waiting.dropped.take() {
                return Some(Work::Dropped(account, count));
            }
            if let Some(request) = waiting.requests.pop_front() {
                return Some(Work::Request(request));
            }
            queue.ready.wait(&mut waiting);
        }
    }

    fn serve(&mut self, request: &Inbound) -> Progress {
        let Ok(subject) = std::str::from_utf8(&request.subject) else {
            return Progress::Answered;
        };
        if let Some(asked) = Administration::parse(subject) {
            return self.serve_administration(request, subject, asked);
        }
        let Some(operation) = Operation::parse(subject) else {
            return Progress::Answered;
        };
        let Some(account) = self.accounts.get(request.account.name()) else {
            let refused = refuse_operation(operation, ErrorCode::NotEnabledForAccount.into());
            let (voice, cache) = (&self.voice, &mut self.cache);
            voice.answer(request, subject, None, refused, cache);
            return Progress::Answered;
        };
        let required_level = headers::get(&request.headers, REQUIRED_LEVEL).unwrap_or_default();
        let whither = match &self.elsewhere {
            Some(elsewhere) => elsewhere.whither(&account.name, operation),
            None => Whither::Here,
        };
        // Whoever asks for a backup stands in what others hear of it.
        let client = match operation {
            Operation::StreamSnapshot(_) | Operation::StreamRestore(_) => {
                self.voice.asking(request)
            }
            _ => None,
        };
        let handled = match whither {
            Whither::Here => handle(
                &Context {
                    server: &self.voice.server,
                    account: &account,
                    required_level,
                    client: client.as_deref(),
                    body: &request.payload,
                },
                operation,
            ),
            Whither::Refused(error) => refuse_operation(operation, error).into(),
            Whither::Elsewhere(way) => {
                let carried = Carried {
                    account: account.name.clone(),
                    subject: subject.to_owned(),
                    required_level: Bytes::copy_from_slice(required_level),
                    client,
                    body: request.payload.clone(),
                };
                self.have_answered(way, carried, request, Some(&account));
                return Progress::UnderWay;
            }
        };
        let (voice, cache) = (&self.voice, &mut self.cache);
        voice.answer(request, subject, Some(&account), handled.answer, cache);
        self.follow_up(handled.follow_up, Some(&account), client);
        Progress::Answered
    }

    /// Begins what was to begin once the answer is out.
    fn follow_up(
        &self,
        follow_up: Option<FollowUp>,
        account: Option<&Arc<AccountStreams>>,
        client: Option<Box<AskingClient>>,
    ) {
        if let (Some(follow_up), Some(account)) = (follow_up, account) {
            follow_up(Answered {
                server: Arc::clone(&self.voice.server),
                account: Arc::clone(account),
                client,
            });
        }
    }

    /// A request about the cluster itself. A server alone does not answer, nor is anybody answered who may not ask.
    fn serve_administration(
        &mut self,
        request: &Inbound,
        subject: &str,
        asked: Administration<'_>,
    ) -> Progress {
        let name = request.account.name();
        let Some(elsewhere) = self
            .elsewhere
            .as_ref()
            .filter(|_| self.is_open(asked, name))
        else {
            return Progress::Answered;
        };
        let account = self.accounts.get(name);
        let required_level = headers::get(&request.headers, REQUIRED_LEVEL).unwrap_or_default();
        let server = &self.voice.server;
        let answer = match elsewhere.whither_administration() {
            Whither::Here => administer(server, asked, required_level, &request.payload),
            Whither::Refused(error) => answer_administration(asked, Err(error)),
            Whither::Elsewhere(way) => {
                let carried = Carried {
                    account: name.to_owned(),
                    subject: subject.to_owned(),
                    required_level: Bytes::copy_from_slice(required_level),
                    client: None,
                    body: request.payload.clone(),
                };
                self.have_answered(way, carried, request, account.as_ref());
                return Progress::UnderWay;
            }
        };
        let account = account.as_deref();
        let (voice, cache) = (&self.voice, &mut self.cache);
        voice.answer(request, subject, account, answer, cache);
        Progress::Answered
    }

    fn is_open(&self, asked: Administration<'_>, account: &str) -> bool {
        asked.is_open_to(account, account == self.voice.broker.system().name())
    }

    /// Another server answers, and this one passes the answer on.
    fn have_answered(
        &self,
        way: Way,
        carried: Carried,
        request: &Inbound,
        account: Option<&Arc<AccountStreams>>,
    ) {
        let Some(elsewhere) = &self.elsewhere else {
            return;
        };
        let (voice, account, request) = (
            Arc::clone(&self.voice),
            account.map(Arc::clone),
            request.clone(),
        );
        let done = Box::new(move |answer: Result<Answer, ErrorCode>| {
            voice.queue.inflight.fetch_sub(1, Ordering::Relaxed);
            let subject = String::from_utf8_lossy(&request.subject).into_owned();
            let answer = answer.map_or_else(|code| refuse(&subject, code.into()), Some);
            let Some(answer) = answer else {
                return;
            };
            let (in_broker, about) = (Arc::clone(&request.account), subject.clone());
            let backups = Arc::clone(&voice.server.backups);
            let say = move |answer: Answer| {
                let (account, cache) = (account.as_deref(), &mut PublishCache::new());
                voice.answer(&request, &about, account, answer, cache);
            };
            match backup::deliver_subject(Operation::parse(&subject), &answer) {
                // Interest comes over a route, and may come later than the answer.
                Some(deliver) => backups.once_heard(in_broker, deliver, move || say(answer)),
                None => say(answer),
            }
        });
        elsewhere.ask(way, carried, done);
    }

    /// A request that another server carried here because it belongs here; it is not carried any further. `None` when there is nothing to answer.
    fn serve_server(&self, carried: &Carried) -> Option<Handled> {
        if let Some(asked) = Administration::parse(&carried.subject) {
            return self
                .administer_for_server(carried, asked)
                .map(Handled::from);
        }
        let operation = Operation::parse(&carried.subject)?;
        let Some(account) = self.accounts.get(&carried.account) else {
            let error = ErrorCode::NotEnabledForAccount.into();
            return Some(refuse_operation(operation, error).into());
        };
        let whither = match &self.elsewhere {
            Some(elsewhere) => elsewhere.whither(&account.name, operation),
            None => Whither::Here,
        };
        let context = Context {
            server: &self.voice.server,
            account: &account,
            required_level: &carried.required_level,
            client: carried.client.as_deref(),
            body: &carried.body,
        };
        Some(match whither {
            Whither::Here => handle(&context, operation),
            Whither::Refused(error) => refuse_operation(operation, error).into(),
            // It moved meanwhile.
            Whither::Elsewhere(_) => {
                refuse_operation(operation, ErrorCode::ClusterNotAvail.into()).into()
            }
        })
    }

    fn administer_for_server(
        &self,
        carried: &Carried,
        asked: Administration<'_>,
    ) -> Option<Answer> {
        let elsewhere = self.elsewhere.as_ref()?;
        if !self.is_open(asked, &carried.account) {
            // Servers of one cluster have one system account; where not, this one's counts.
            return Some(answer_administration(
                asked,
                Err(ErrorCode::BadRequest.into()),
            ));
        }
        let server = &self.voice.server;
        Some(match elsewhere.whither_administration() {
            Whither::Here => administer(server, asked, &carried.required_level, &carried.body),
            Whither::Refused(error) => answer_administration(asked, Err(error)),
            // It moved meanwhile.
            Whither::Elsewhere(_) => {
                answer_administration(asked, Err(ErrorCode::ClusterNotAvail.into()))
            }
        })
    }
}

/// Refuses a request in the form of its answer.
fn refuse(subject: &str, error: ApiError) -> Option<Answer> {
    match Administration::parse(subject) {
        Some(asked) => Some(answer_administration(asked, Err(error))),
        None => Operation::parse(subject).map(|operation| refuse_operation(operation, error)),
    }
}

/// Whether a request is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Answered,
    UnderWay,
}

/// What says something to clients.
struct Voice {
    server: Arc<Server>,
    broker: Arc<Broker>,
    queue: Arc<ApiQueue>,
}

impl Voice {
    /// Who asks, and where.
    fn asking(&self, request: &Inbound) -> Option<Box<AskingClient>> {
        let client = request.client.as_ref()?;
        Some(Box::new(AskingClient {
            info: ClientInfo::clone(client),
            server: self.server.name.clone(),
            cluster: self.server.cluster.clone(),
        }))
    }

    fn answer(
        &self,
        request: &Inbound,
        subject: &str,
        account: Option<&AccountStreams>,
        answer: Answer,
        cache: &mut PublishCache,
    ) {
        if let Some(account) = account.filter(|_| answer.outcome != Outcome::Unreported) {
            account.api.count(answer.outcome == Outcome::Refused);
        }
        let payload = Bytes::from(answer.payload);
        let mut messages = Vec::with_capacity(2);
        if !request.reply.is_empty() {
            messages.push(Outgoing {
                subject: request.reply.clone(),
                payload: payload.clone(),
                ..Outgoing::default()
            });
        }
        if answer.outcome != Outcome::Unreported && request.account.has_interest(API_AUDIT) {
            let audit = ApiAudit {
                server: &self.server.name,
                cluster: &self.server.cluster,
                client: request.client.as_deref(),
                subject,
                request: &request.payload,
                response: &payload,
                domain: &self.server.domain,
            };
            messages.push(Outgoing {
                subject: Bytes::from_static(API_AUDIT.as_bytes()),
                payload: audit.payload((self.server.now)()).into(),
                ..Outgoing::default()
            });
        }
        self.broker.publish(&request.account, &messages, cache);
    }

    fn report_dropped(&self, account: &Arc<Account>, count: u64, cache: &mut PublishCache) {
        tracing::warn!("JetStream API queue limit reached, dropping {count} requests");
        let Server {
            name, domain, now, ..
        } = &*self.server;
        let payload = api_limit_reached(name, domain, count, now());
        let message = Outgoing {
            subject: Bytes::from_static(API_LIMIT_REACHED.as_bytes()),
            payload: payload.into(),
            ..Outgoing::default()
        };
        self.broker.publish(account, &[message], cache);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(broker: &Broker) -> Inbound {
        Inbound {
            account: Arc::clone(broker.global()),
            tag: 0,
            subject: Bytes::from_static(b"$JS.API.INFO"),
            reply: Bytes::new(),
            headers: Bytes::new(),
            payload: Bytes::new(),
            client: None,
            trace: None,
        }
    }

    #[test]
    fn a_full_queue_drops_all_that_waits_and_counts_it() {
        let broker = Broker::new();
        let queue = ApiQueue {
            waiting: Mutex::default(),
            ready: Condvar::new(),
            requests_max: 3,
            inflight: AtomicU64::new(0),
        };
        queue.deliver(vec![request(&broker), request(&broker)]);
        assert_eq!(queue.inflight(), 2);
        queue.deliver(vec![request(&broker)]);
        queue.deliver(vec![request(&broker)]);
        let waiting = queue.waiting.lock();
        assert_eq!(waiting.requests.len(), 1);
        assert_eq!(waiting.dropped.as_ref().map(|(_, count)| *count), Some(3));
        assert_eq!(queue.inflight(), 1);
    }
}

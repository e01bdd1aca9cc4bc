//! The threads that answer API requests.
//!
//! Requests wait in one queue of limited length. When it is full, all that wait are dropped without an answer and an
//! advisory says how many: whoever floods the API must not make it slower for ever.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::super::advisory::{API_AUDIT, API_LIMIT_REACHED, ApiAudit, api_limit_reached};
use super::super::registry::AccountStreams;
use super::handler::{Context, Outcome, Server, handle};
use super::response::not_enabled_for_account;
use super::route::Operation;
use crate::broker::{Account, Broker, Inbound, InternalTarget, Outgoing, PublishCache};
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
    requests: VecDeque<Inbound>,
    /// Requests that were dropped and not yet reported, with an account of those who asked.
    dropped: Option<(Arc<Account>, u64)>,
    closed: bool,
}

impl ApiQueue {
    /// Requests that wait or are being answered.
    pub(crate) fn inflight(&self) -> u64 {
        self.inflight.load(Ordering::Relaxed)
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
        waiting.requests.extend(batch);
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
}

/// The running workers.
pub(crate) struct ApiWorkers {
    queue: Arc<ApiQueue>,
    threads: Vec<JoinHandle<()>>,
}

/// The accounts that have JetStream, by name.
pub(crate) type Accounts = HashMap<String, Arc<AccountStreams>>;

impl ApiWorkers {
    /// Starts the threads.
    pub(crate) fn start(
        server: &Arc<Server>,
        accounts: &Arc<Accounts>,
        broker: &Arc<Broker>,
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
                server: Arc::clone(server),
                accounts: Arc::clone(accounts),
                broker: Arc::clone(broker),
                queue: Arc::clone(&workers.queue),
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
    server: Arc<Server>,
    accounts: Arc<Accounts>,
    broker: Arc<Broker>,
    queue: Arc<ApiQueue>,
    cache: PublishCache,
}

enum Work {
    Request(Inbound),
    Dropped(Arc<Account>, u64),
}

impl Worker {
    fn run(mut self) {
        while let Some(work) = self.next() {
            match work {
                Work::Request(request) => {
                    self.serve(&request);
                    self.queue.inflight.fetch_sub(1, Ordering::Relaxed);
                }
                Work::Dropped(account, count) => self.report_dropped(&account, count),
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut waiting = self.queue.waiting.lock();
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
            self.queue.ready.wait(&mut waiting);
        }
    }

    fn serve(&mut self, request: &Inbound) {
        let Some(account) = self.accounts.get(request.account.name()) else {
            return self.refuse_account(request);
        };
        let Ok(subject) = std::str::from_utf8(&request.subject) else {
            return;
        };
        let Some(operation) = Operation::parse(subject) else {
            return;
        };
        let context = Context {
            server: &self.server,
            account,
            required_level: headers::get(&request.headers, REQUIRED_LEVEL).unwrap_or_default(),
            body: &request.payload,
        };
        let answer = handle(&context, operation);
        if answer.outcome != Outcome::Unreported {
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
                client: request.client.as_deref(),
                subject,
                request: &request.payload,
                response: &payload,
            };
            messages.push(Outgoing {
                subject: Bytes::from_static(API_AUDIT.as_bytes()),
                payload: audit.payload((self.server.now)()).into(),
                ..Outgoing::default()
            });
        }
        self.broker
            .publish(&request.account, &messages, &mut self.cache);
    }

    /// The account has no JetStream.
    fn refuse_account(&mut self, request: &Inbound) {
        if request.reply.is_empty() {
            return;
        }
        let answer = Outgoing {
            subject: request.reply.clone(),
            payload: not_enabled_for_account().into(),
            ..Outgoing::default()
        };
        self.broker
            .publish(&request.account, &[answer], &mut self.cache);
    }

    fn report_dropped(&mut self, account: &Arc<Account>, count: u64) {
        tracing::warn!("JetStream API queue limit reached, dropping {count} requests");
        let payload = api_limit_reached(&self.server.name, count, (self.server.now)());
        let message = Outgoing {
            subject: Bytes::from_static(API_LIMIT_REACHED.as_bytes()),
            payload: payload.into(),
            ..Outgoing::default()
        };
        self.broker.publish(account, &[message], &mut self.cache);
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

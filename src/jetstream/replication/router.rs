//! Which server answers an API request, and how it gets there.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::group::Channel;

use super::super::api::elsewhere::{Answered, Carried, Elsewhere, Way, Whither};
use super::super::api::handler::Answer;
use super::super::api::route::Operation;
use super::super::api::workers::ApiQueue;
use super::super::types::{ApiError, ErrorCode};
use super::carry::{decode_answer, decode_request, encode_answer, encode_request};
use super::gather;
use super::kinds::{API, GATHER};
use crate::cluster::link::{Links, Request, Responder};

/// How long another server may take to answer a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits until it is known who leads its stream, and how often that is looked at.
const LEADER_TIMEOUT: Duration = Duration::from_secs(2);
const LEADER_POLL: Duration = Duration::from_millis(10);
/// The same when none of the stream's servers can be reached: one that only just lost its link may come back.
const OFFLINE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long all servers may take to say what they have.
const GATHER_TIMEOUT: Duration = Duration::from_secs(4);

/// Who leads a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamLeader {
    /// There is no such stream, as far as this server knows.
    NoStream,
    /// Nobody, for now.
    Nobody,
    /// Nobody, and none of its servers can be reached.
    Offline,
    /// Nobody that is known here, and this server's version cannot run it, for that reason.
    Unsupported(String),
    /// The server of that name.
    Server(Arc<str>),
}

/// What is known here of who leads what.
pub(crate) trait Directory: Send + Sync + 'static {
    /// The server that leads the meta group.
    fn meta_leader(&self) -> Option<Arc<str>>;
    /// The server that leads a stream.
    fn stream_leader(&self, account: &str, stream: &str) -> StreamLeader;
    /// What this server has of an account, for an operation that is answered by all; opaque to everybody but [`Directory::merge`].
    fn share(&self, carried: &Carried) -> Bytes;
    /// The answer to an operation, of the shares of all servers that gave one; and how many did not.
    fn merge(&self, carried: &Carried, shares: Vec<Bytes>, silent: usize) -> Answer;
    /// The other servers that are to give their share.
    fn sharers(&self) -> Vec<Arc<str>>;
}

/// Knows where requests belong, and has other servers answer them.
pub(crate) struct Router {
    own: Arc<str>,
    links: Arc<Links>,
    directory: Arc<dyn Directory>,
    runtime: tokio::runtime::Handle,
    queue: OnceLock<Arc<ApiQueue>>,
}

impl Router {
    /// Of the server of that name.
    pub fn new(
        own: impl Into<Arc<str>>,
        links: Arc<Links>,
        directory: Arc<dyn Directory>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            own: own.into(),
            links,
            directory,
            runtime,
            queue: OnceLock::new(),
        })
    }

    /// Answers what other servers carry here, from now on.
    pub fn listen(self: &Arc<Self>, queue: Arc<ApiQueue>) {
        // Once per server: a second call changes nothing.
        let _ = self.queue.set(queue);
        let weak = Arc::downgrade(self);
        let api = move |request: Request| match (weak.upgrade(), decode_request(request.body)) {
            (Some(router), Ok(carried)) => router.carried(carried, request.responder),
            (_, Err(error)) => request.responder.refuse(error.to_string()),
            (None, _) => {}
        };
        self.links.handle(API, Arc::new(api));
        let weak = Arc::downgrade(self);
        let gathered = move |request: Request| {
            let Some(router) = weak.upgrade() else {
                return;
            };
            match decode_request(request.body) {
                Err(error) => request.responder.refuse(error.to_string()),
                Ok(carried) => {
                    // Asks shards, which a link's task must not wait for.
                    let runtime = router.runtime.clone();
                    runtime.spawn_blocking(move || {
                        request.responder.answer(router.directory.share(&carried));
                    });
                }
            }
        };
        self.links.handle(GATHER, Arc::new(gathered));
    }

    /// Answers what another server carried here. Of a stream that was just made that server may not have heard: it asks the leader of the meta group,
    /// which knows where the request belongs. And this one may not have heard yet that it leads the stream.
    fn carried(self: &Arc<Self>, carried: Carried, responder: Responder) {
        let stream = match Operation::parse(&carried.subject).map(scope) {
            Some(Scope::Stream(stream)) => Some(Box::<str>::from(stream)),
            _ => None,
        };
        let Some(stream) = stream else {
            return self.serve(carried, responder);
        };
        match self.to_stream_leader(&carried.account, &stream) {
            Whither::Here | Whither::Refused(_) => self.serve(carried, responder),
            Whither::Elsewhere(way) if self.leads_meta() => {
                let done = move |answer: Result<Answer, ErrorCode>| match answer {
                    Ok(answer) => responder.answer(encode_answer(&answer)),
                    Err(error) => responder.refuse(ApiError::from(error).description.to_string()),
                };
                self.ask(way, carried, Box::new(done));
            }
            Whither::Elsewhere(_) => {
                let router = Arc::clone(self);
                self.runtime.spawn(async move {
                    let begun = Instant::now();
                    while begun.elapsed() < LEADER_TIMEOUT
                        && matches!(
                            router.to_stream_leader(&carried.account, &stream),
                            Whither::Elsewhere(_)
                        )
                    {
                        tokio::time::sleep(LEADER_POLL).await;
                    }
                    router.serve(carried, responder);
                });
            }
        }
    }

    fn leads_meta(&self) -> bool {
        self.directory.meta_leader().as_ref() == Some(&self.own)
    }

    fn serve(&self, carried: Carried, responder: Responder) {
        match self.queue.get() {
            Some(queue) => queue.carried(
                carried,
                Box::new(move |answer| responder.answer(encode_answer(&answer))),
            ),
            None => responder.refuse("not ready"),
        }
    }

    fn to(&self, server: Arc<str>) -> Whither {
        match server == self.own {
            true => Whither::Here,
            false => Whither::Elsewhere(Way::Server(server)),
        }
    }

    fn to_meta_leader(&self) -> Whither {
        match self.directory.meta_leader() {
            Some(server) => self.to(server),
            None => Whither::Refused(ErrorCode::ClusterNotAvail.into()),
        }
    }

    fn to_stream_leader(&self, account: &str, stream: &str) -> Whither {
        match self.directory.stream_leader(account, stream) {
            StreamLeader::Server(server) => self.to(server),
            // Of a stream that was just made, this server may not have heard yet who leads it.
            StreamLeader::Nobody | StreamLeader::Offline => Whither::Elsewhere(Way::Leader {
                account: account.into(),
                stream: stream.into(),
            }),
            StreamLeader::Unsupported(reason) => {
                Whither::Refused(ErrorCode::StreamOfflineReason.with(reason))
            }
            // What this server has not heard of yet its leader may have.
            StreamLeader::NoStream => self.to_meta_leader(),
        }
    }
}

impl Elsewhere for Router {
    fn whither(&self, account: &str, operation: Operation<'_>) -> Whither {
        match scope(operation) {
            Scope::Meta => self.to_meta_leader(),
            Scope::Stream(stream) => self.to_stream_leader(account, stream),
            Scope::All => match self.directory.meta_leader() {
                Some(_) => Whither::Elsewhere(Way::All),
                None => Whither::Refused(ErrorCode::ClusterNotAvail.into()),
            },
        }
    }

    fn whither_administration(&self) -> Whither {
        self.to_meta_leader()
    }

    fn ask(&self, way: Way, carried: Carried, done: Answered) {
        let (links, directory) = (Arc::clone(&self.links), Arc::clone(&self.directory));
        let (own, queue) = (Arc::clone(&self.own), self.queue.get().map(Arc::clone));
        self.runtime.spawn(async move {
            match way {
                Way::Leader { account, stream } => {
                    let leader = leader_of(directory.as_ref(), &account, &stream).await;
                    match (leader, queue) {
                        // This server, since it was asked.
                        (Ok(leader), Some(queue)) if leader == own => {
                            queue.carried(carried, Box::new(|answer| done(Ok(answer))));
                        }
                        (Ok(leader), _) if leader != own => {
                            done(ask_server(&links, &leader, &carried).await);
                        }
                        (Err(ErrorCode::StreamOffline), _) => done(Err(offline(&carried))),
                        (Err(error), _) => done(Err(error)),
                        (Ok(_), _) => done(Err(ErrorCode::ClusterNotAvail)),
                    }
                }
                Way::Server(server) => done(ask_server(&links, &server, &carried).await),
                Way::All => done(gather::from_all(links, directory, carried, GATHER_TIMEOUT).await),
            }
        });
    }
}

/// The server that leads a stream, as soon as it is known, or why there is none when that takes too long.
async fn leader_of(
    directory: &dyn Directory,
    account: &str,
    stream: &str,
) -> Result<Arc<str>, ErrorCode> {
    let begun = Instant::now();
    loop {
        let (error, patience) = match directory.stream_leader(account, stream) {
            StreamLeader::Server(server) => return Ok(server),
            StreamLeader::Nobody => (ErrorCode::ClusterNotAvail, LEADER_TIMEOUT),
            StreamLeader::Offline => (ErrorCode::StreamOffline, OFFLINE_TIMEOUT),
            StreamLeader::NoStream | StreamLeader::Unsupported(_) => {
                return Err(ErrorCode::ClusterNotAvail);
            }
        };
        if begun.elapsed() >= patience {
            return Err(error);
        }
        tokio::time::sleep(LEADER_POLL).await;
    }
}

/// What is said of a stream of which no server can be reached, or of its consumer, when that is what was asked about.
fn offline(carried: &Carried) -> ErrorCode {
    match Operation::parse(&carried.subject) {
        Some(Operation::ConsumerInfo(..)) => ErrorCode::ConsumerOffline,
        _ => ErrorCode::StreamOffline,
    }
}

async fn ask_server(links: &Links, server: &str, carried: &Carried) -> Result<Answer, ErrorCode> {
    let unavailable = ErrorCode::ClusterNotAvail;
    let body = encode_request(carried).map_err(|_| unavailable)?;
    let asked = links.request(server, Channel::Control, API, body, ANSWER_TIMEOUT);
    let answer = asked.await.map_err(|error| {
        tracing::debug!("{server:?} did not answer {}: {error}", carried.subject);
        unavailable
    })?;
    decode_answer(answer).map_err(|error| {
        tracing::warn!("The answer of {server:?} cannot be read: {error}");
        unavailable
    })
}

/// Whom an operation concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope<'a> {
    /// Which streams there are.
    Meta,
    /// One stream.
    Stream(&'a str),
    /// What each server has.
    All,
}

fn scope(operation: Operation<'_>) -> Scope<'_> {
    match operation {
        Operation::AccountInfo | Operation::StreamList => Scope::All,
        Operation::StreamCreate(_)
        | Operation::StreamUpdate(_)
        | Operation::StreamDelete(_)
        | Operation::StreamNames
        | Operation::StreamRestore(_)
        | Operation::StreamPeerRemove(_) => Scope::Meta,
        Operation::StreamInfo(stream)
        | Operation::StreamPurge(stream)
        | Operation::MessageGet(stream)
        | Operation::MessageDelete(stream)
        | Operation::StreamSnapshot(stream)
        | Operation::StreamStepDown(stream)
        | Operation::ConsumerInfo(stream, _)
        | Operation::ConsumerDelete(stream, _)
        | Operation::ConsumerNames(stream)
        | Operation::ConsumerList(stream)
        | Operation::ConsumerPause(stream, _)
        | Operation::ConsumerReset(stream, _)
        | Operation::ConsumerUnpin(stream, _)
        | Operation::ConsumerStepDown(stream, _) => Scope::Stream(stream),
        Operation::ConsumerCreate(subject) => Scope::Stream(subject.stream()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Says one thing after the other, and the last one for ever.
    struct Says(Vec<StreamLeader>, AtomicUsize);

    impl Directory for Says {
        fn meta_leader(&self) -> Option<Arc<str>> {
            None
        }

        fn stream_leader(&self, _account: &str, _stream: &str) -> StreamLeader {
            let at = self.1.fetch_add(1, Ordering::Relaxed);
            self.0[at.min(self.0.len() - 1)].clone()
        }

        fn share(&self, _carried: &Carried) -> Bytes {
            Bytes::new()
        }

        fn merge(&self, _carried: &Carried, _shares: Vec<Bytes>, _silent: usize) -> Answer {
            unreachable!("nothing is merged")
        }

        fn sharers(&self) -> Vec<Arc<str>> {
            Vec::new()
        }
    }

    async fn asked(says: &[StreamLeader]) -> (Result<Arc<str>, ErrorCode>, Duration) {
        let directory = Says(says.to_vec(), AtomicUsize::new(0));
        let begun = tokio::time::Instant::now();
        let leader = leader_of(&directory, "A", "S").await;
        (leader, begun.elapsed())
    }

    #[tokio::test]
    async fn a_leader_that_comes_in_time_answers_and_no_error_goes_out_before() {
        let leads = || StreamLeader::Server("n1".into());
        let says = [StreamLeader::Nobody, StreamLeader::Offline, leads()];
        assert_eq!(asked(&says).await.0, Ok("n1".into()));
        let (refused, after) = asked(&[StreamLeader::Offline]).await;
        assert_eq!(refused, Err(ErrorCode::StreamOffline));
        assert!(after >= OFFLINE_TIMEOUT, "{after:?}");
        let (refused, after) = asked(&[StreamLeader::Nobody]).await;
        assert_eq!(refused, Err(ErrorCode::ClusterNotAvail));
        assert!(after >= LEADER_TIMEOUT, "{after:?}");
        let (refused, _) = asked(&[StreamLeader::Nobody, StreamLeader::NoStream]).await;
        assert_eq!(refused, Err(ErrorCode::ClusterNotAvail));
    }

    #[test]
    fn the_info_of_a_consumer_says_that_the_consumer_is_offline() {
        let carried = |subject: &str| Carried {
            account: "A".to_owned(),
            subject: format!("$JS.API.{subject}"),
            required_level: Bytes::new(),
            client: None,
            body: Bytes::new(),
        };
        let said = |subject| offline(&carried(subject));
        assert_eq!(said("CONSUMER.INFO.S.C"), ErrorCode::ConsumerOffline);
        assert_eq!(said("STREAM.INFO.S"), ErrorCode::StreamOffline);
        assert_eq!(said("STREAM.PURGE.S"), ErrorCode::StreamOffline);
    }
}

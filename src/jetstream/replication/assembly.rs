//! Servers coming together: each asks the others what they are, until all belong to one meta group.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use raft::group::Channel;
use raft::types::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::founding::{Proposal, Standing, State, Step, View, accepts};
use super::kinds::{GREET, JOIN, PROMISE, STILL};
use crate::cluster::link::{Links, Request};

/// How often a server without a group looks around.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a question to another server may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long being taken into a group may take: a new member has to catch up first.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a member looks whether it still hears of a leader.
const MEMBER_INTERVAL: Duration = Duration::from_secs(1);
/// How long it believes what it was told of being a member, as long as it hears of one.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// How long a server that was not taken in waits before it asks again.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// Work that ends with a reason when it fails.
pub(super) type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Starts this server's replica of the meta group, and takes others in.
pub(super) trait MetaHost: Send + Sync + 'static {
    /// Begins as one of the founders.
    fn found(&self, proposal: Proposal) -> Attempt<'_, ()>;
    /// Begins without knowing anybody, under that id, in the group of that founding.
    fn join(&self, node: NodeId, founding: u64) -> Attempt<'_, ()>;
    /// Gives a server that wants to join an id of its own. Only the leader does.
    fn register(&self, server: String) -> Attempt<'_, NodeId>;
    /// Takes a server in as a voter under the id that it was given, in the place of any earlier one. Only the leader does.
    fn admit(&self, server: String, node: NodeId) -> Attempt<'_, ()>;
    /// This server's id in the group, once it has begun.
    fn node(&self) -> Option<NodeId>;
    /// Whether this server's replica is among the voters, as far as it knows.
    fn is_member(&self) -> bool;
    /// Whether the state that it has knows this server under its id. A quiet group tells one that was removed nothing more.
    fn is_in_state(&self) -> bool;
    /// Whether it knows of a leader.
    fn has_leader(&self) -> bool;
    /// Whether the group knows a server under that id. Only the leader can tell.
    fn knows(&self, server: String, node: NodeId) -> Attempt<'_, bool>;
    /// Gives this server's replica up: the group is not this server's any more.
    fn leave(&self) -> Attempt<'_, ()>;
}

/// A server that wants to be taken in.
#[derive(Debug, Serialize, Deserialize)]
struct Joining {
    server: String,
    founding: u64,
    /// The id that it was given and has begun under; before that it asks for one.
    node: Option<NodeId>,
}

/// What this server is to the meta group, told to whoever asks.
pub(super) struct Assembly {
    links: Arc<Links>,
    host: Arc<dyn MetaHost>,
    runtime: tokio::runtime::Handle,
    own: Mutex<Own>,
    /// Whom to tell that this server was removed while it ran.
    removal_listener: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct Own {
    standing: Standing,
    since: Instant,
    /// Whether the group knew this server at some time since the start.
    was_known: bool,
}

impl Assembly {
    /// A server of that standing. Questions of others are answered from now on.
    pub fn new(
        links: Arc<Links>,
        host: Arc<dyn MetaHost>,
        standing: Standing,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let assembly = Arc::new(Self {
            links,
            host,
            runtime,
            own: Mutex::new(Own {
                standing,
                since: Instant::now(),
                was_known: false,
            }),
            removal_listener: OnceLock::new(),
        });
        assembly.listen();
        assembly
    }

    /// Whom to tell when this server is removed while it runs: it joins again only after a start. Set once.
    pub fn on_removal(&self, listener: impl Fn() + Send + Sync + 'static) {
        let _ = self.removal_listener.set(Box::new(listener));
    }

    fn listen(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        let greeted = move |request: Request| {
            if let Some(assembly) = weak.upgrade() {
                request.responder.answer(encode(&assembly.standing()));
            }
        };
        self.links.handle(GREET, Arc::new(greeted));
        let weak = Arc::downgrade(self);
        let promised = move |request: Request| {
            if let Some(assembly) = weak.upgrade() {
                match decode::<Proposal>(&request.body) {
                    Some(proposal) if proposal.by == *request.from => {
                        match assembly.promise(proposal) {
                            true => request.responder.answer(Bytes::new()),
                            false => request.responder.refuse("not free"),
                        }
                    }
                    _ => request.responder.refuse("malformed"),
                }
            }
        };
        self.links.handle(PROMISE, Arc::new(promised));
        let weak = Arc::downgrade(self);
        let joining = move |request: Request| {
            if let Some(assembly) = weak.upgrade() {
                assembly.asked_to_admit(request);
            }
        };
        self.links.handle(JOIN, Arc::new(joining));
        let weak = Arc::downgrade(self);
        let asked = move |request: Request| {
            if let Some(assembly) = weak.upgrade() {
                assembly.asked_whether_known(request);
            }
        };
        self.links.handle(STILL, Arc::new(asked));
    }

    /// What this server says of itself.
    pub fn standing(&self) -> Standing {
        self.own.lock().standing.clone()
    }

    fn change(&self, state: State) {
        let mut own = self.own.lock();
        if own.standing.state != state {
            own.standing.state = state;
            own.since = Instant::now();
        }
    }

    fn promise(&self, proposal: Proposal) -> bool {
        let mut own = self.own.lock();
        if !accepts(&own.standing, &proposal) {
            return false;
        }
        own.standing.state = State::Promised(proposal);
        own.since = Instant::now();
        true
    }

    fn asked_to_admit(self: &Arc<Self>, request: Request) {
        let founding = match self.standing().state {
            State::Belongs { founding } => founding,
            _ => return request.responder.refuse("no group here"),
        };
        let Some(joining) = decode::<Joining>(&request.body) else {
            return request.responder.refuse("malformed");
        };
        if joining.server != *request.from || joining.founding != founding {
            return request.responder.refuse("another group");
        }
        let assembly = Arc::clone(self);
        self.runtime.spawn(async move {
            let host = &assembly.host;
            let done = match joining.node {
                None => host.register(joining.server).await,
                Some(node) => host.admit(joining.server, node).await.map(|()| node),
            };
            match done {
                Ok(node) => request.responder.answer(encode(&node)),
                Err(reason) => request.responder.refuse(reason),
            }
        });
    }

    /// Whether another server, under the id that it has, is still part of the group.
    fn asked_whether_known(self: &Arc<Self>, request: Request) {
        let Some(Joining {
            server,
            founding,
            node: Some(node),
        }) = decode::<Joining>(&request.body)
        else {
            return request.responder.refuse("malformed");
        };
        let State::Belongs { founding: own } = self.standing().state else {
            return request.responder.refuse("no group here");
        };
        if own != founding || *request.from != *server {
            return request.responder.refuse("another group");
        }
        let assembly = Arc::clone(self);
        self.runtime.spawn(async move {
            match assembly.host.knows(server, node).await {
                Ok(known) => request.responder.answer(encode(&known)),
                Err(reason) => request.responder.refuse(reason),
            }
        });
    }

    /// Looks around until this server belongs to a group and is one of its members, and whenever it hears of no leader there. Ends when this server is removed
    /// although it runs.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.links.changes();
        // A start does not know what has become of this server since.
        let mut known: Option<Instant> = None;
        loop {
            if let State::Belongs { founding } = self.standing().state {
                let is_known = known.is_some_and(|at| at.elapsed() < KNOWN_FOR);
                let seems_well = self.host.is_member() && self.host.has_leader();
                if is_known && seems_well && self.host.is_in_state() {
                    tokio::time::sleep(MEMBER_INTERVAL).await;
                    continue;
                }
                let told = self.ask_whether_known(founding).await;
                let was_known = {
                    let mut own = self.own.lock();
                    own.was_known |= told == Some(true);
                    own.was_known
                };
                known = told.is_some().then(Instant::now).or(known);
                match told {
                    Some(false) if was_known => return self.is_removed(),
                    Some(false) => self.leave().await,
                    _ if self.host.is_member() => tokio::time::sleep(MEMBER_INTERVAL).await,
                    _ => self.ask_to_be_admitted(founding).await,
                }
                continue;
            }
            self.look_around().await;
            let pause = tokio::time::sleep(LOOK_INTERVAL);
            tokio::select! {
                () = pause => {}
                _ = changes.changed() => {}
            }
        }
    }

    async fn look_around(&self) {
        let others = self.greet_all().await;
        let (own, since) = {
            let own = self.own.lock();
            (own.standing.clone(), own.since.elapsed())
        };
        let view = View {
            own: &own,
            others: &others,
            since,
        };
        match view.step() {
            Step::Wait => {}
            Step::Withdraw => {
                tracing::info!("The founding of the JetStream meta group was given up");
                self.change(State::Blank);
            }
            Step::Propose(founders) => self.propose(own, founders).await,
            Step::Found(proposal) => self.found(proposal).await,
            Step::Join { founding } => self.join(founding).await,
        }
    }

    async fn greet_all(&self) -> Vec<Standing> {
        let connected = self.links.connected();
        let asking = connected.iter().map(|server| async move {
            let question = self.links.request(
                server,
                Channel::Control,
                GREET,
                Bytes::new(),
                QUESTION_TIMEOUT,
            );
            let standing = decode::<Standing>(&question.await.ok()?)?;
            (standing.server == **server).then_some(standing)
        });
        join_all(asking).await.into_iter().flatten().collect()
    }

    /// Asks all for their promise, and begins the group when all have given it.
    async fn propose(&self, own: Standing, founders: BTreeSet<String>) {
        let proposal = Proposal {
            founding: random_id(),
            by: own.server.clone(),
            founders,
        };
        {
            let mut mine = self.own.lock();
            if mine.standing.state != State::Blank {
                return;
            }
            mine.standing.state = State::Promised(proposal.clone());
            mine.since = Instant::now();
        }
        let others = proposal.founders.iter();
        let asking = others.filter(|name| **name != own.server).map(|server| {
            let body = encode(&proposal);
            self.links
                .request(server, Channel::Control, PROMISE, body, QUESTION_TIMEOUT)
        });
        if join_all(asking).await.iter().all(Result::is_ok) {
            self.found(proposal).await;
        } else {
            self.change(State::Blank);
        }
    }

    async fn found(&self, proposal: Proposal) {
        let (founding, servers) = (proposal.founding, proposal.founders.len());
        match self.host.found(proposal).await {
            Ok(()) => {
                tracing::info!("JetStream meta group founded by {servers} servers");
                self.own.lock().was_known = true;
                self.change(State::Belongs { founding });
            }
            Err(error) => {
                tracing::error!("The JetStream meta group could not be founded: {error}");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
        }
    }

    async fn join(&self, founding: u64) {
        let Some(node) = self.ask_to_join(founding, None).await else {
            return;
        };
        match self.host.join(node, founding).await {
            Ok(()) => self.change(State::Belongs { founding }),
            Err(error) => {
                tracing::error!("The JetStream meta group could not be joined: {error}");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
        }
    }

    /// Asks the servers in turn; the leader is among them, or will be.
    async fn ask_to_join(&self, founding: u64, node: Option<NodeId>) -> Option<NodeId> {
        let joining = encode(&Joining {
            server: self.standing().server,
            founding,
            node,
        });
        for server in self.links.connected() {
            let body = joining.clone();
            let asked = self
                .links
                .request(&server, Channel::Control, JOIN, body, JOIN_TIMEOUT);
            match asked.await.map(|answer| decode::<NodeId>(&answer)) {
                Ok(Some(node)) => return Some(node),
                Ok(None) => tracing::warn!("The answer of {server:?} cannot be read"),
                Err(error) => tracing::debug!("{server:?} does not admit this server: {error}"),
            }
            if node.is_some() && self.host.is_member() {
                return node;
            }
        }
        tokio::time::sleep(JOIN_PAUSE).await;
        None
    }

    /// Whether the group still knows this server. Nothing when nobody can tell.
    async fn ask_whether_known(&self, founding: u64) -> Option<bool> {
        let (server, node) = (self.standing().server, self.host.node()?);
        if let Ok(known) = self.host.knows(server.clone(), node).await {
            return Some(known);
        }
        let joining = encode(&Joining {
            server,
            founding,
            node: Some(node),
        });
        let connected = self.links.connected();
        let asking = connected.iter().map(|to| {
            let body = joining.clone();
            let asked = self
                .links
                .request(to, Channel::Control, STILL, body, QUESTION_TIMEOUT);
            async move { decode::<bool>(&asked.await.ok()?) }
        });
        join_all(asking).await.into_iter().flatten().next()
    }

    /// This server was removed while it ran: somebody wants it out. What it has of the group stays, so that the next start asks and joins anew.
    fn is_removed(&self) {
        if let Some(listener) = self.removal_listener.get() {
            listener();
        }
    }

    /// This server was removed while it was away: what it has of the group counts no more, and it may join again.
    async fn leave(&self) {
        tracing::warn!(
            "This server was removed from the JetStream meta group while it was away: it joins again under a new id"
        );
        match self.host.leave().await {
            Ok(()) => self.change(State::Blank),
            Err(error) => {
                tracing::error!("The JetStream meta group could not be left: {error}");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
        }
    }

    async fn ask_to_be_admitted(&self, founding: u64) {
        let node = self.host.node();
        if self.ask_to_join(founding, node).await.is_some() {
            tracing::info!("JetStream meta group joined");
        }
        if !self.host.is_member() {
            // Admitted, and not told yet by the group itself.
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A number that nobody else has; never 0.
pub(super) fn random_id() -> u64 {
    getrandom::u64().map_or_else(|_| u64::from_le_bytes(time_seed()), |random| random.max(1))
}

/// Where the system has no randomness, the clock must do.
fn time_seed() -> [u8; 8] {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let nanoseconds = now.map_or(1, |now| now.as_nanos());
    let mut seed = [1; 8];
    for (to, from) in seed.iter_mut().zip(nanoseconds.to_le_bytes()) {
        *to = from;
    }
    seed
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // Numbers and strings only: there is always JSON of it.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {

    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::net::TcpListener;

    use super::*;
    use crate::cluster::link::testing::{Neighbour, until};

    /// A meta group that consists of who was told to be in it.
    #[derive(Default)]
    struct Group {
        nodes_next: Mutex<NodeId>,
        voters: Mutex<BTreeSet<(String, NodeId)>>,
        removed: Mutex<BTreeSet<(String, NodeId)>>,
        leader: Mutex<Option<String>>,
        foundings: Mutex<BTreeSet<u64>>,
    }

    struct Host {
        server: String,
        group: Arc<Group>,
        node: Mutex<Option<NodeId>>,
    }

    impl Host {
        fn leads(&self) -> Result<(), String> {
            match self.group.leader.lock().as_deref() == Some(self.server.as_str()) {
                true => Ok(()),
                false => Err("not the leader".to_owned()),
            }
        }
    }

    impl MetaHost for Host {
        fn found(&self, proposal: Proposal) -> Attempt<'_, ()> {
            Box::pin(async move {
                for (at, server) in proposal.founders.iter().enumerate() {
                    let node = at as u64 + 1;
                    self.group.voters.lock().insert((server.clone(), node));
                    if *server == self.server {
                        *self.node.lock() = Some(node);
                    }
                }
                *self.group.nodes_next.lock() = proposal.founders.len() as u64 + 1;
                self.group.foundings.lock().insert(proposal.founding);
                self.group.leader.lock().get_or_insert(proposal.by);
                Ok(())
            })
        }

        fn join(&self, node: NodeId, founding: u64) -> Attempt<'_, ()> {
            Box::pin(async move {
                self.group.foundings.lock().insert(founding);
                *self.node.lock() = Some(node);
                Ok(())
            })
        }

        fn register(&self, _server: String) -> Attempt<'_, NodeId> {
            Box::pin(async move {
                self.leads()?;
                let mut next = self.group.nodes_next.lock();
                *next += 1;
                Ok(*next - 1)
            })
        }

        fn admit(&self, server: String, node: NodeId) -> Attempt<'_, ()> {
            Box::pin(async move {
                self.leads()?;
                let mut voters = self.group.voters.lock();
                voters.retain(|(name, _)| *name != server);
                voters.insert((server, node));
                Ok(())
            })
        }

        fn node(&self) -> Option<NodeId> {
            *self.node.lock()
        }

        fn has_leader(&self) -> bool {
            self.is_member()
        }

        fn is_in_state(&self) -> bool {
            true
        }

        fn knows(&self, server: String, node: NodeId) -> Attempt<'_, bool> {
            Box::pin(async move {
                self.leads()?;
                let removed = self.group.removed.lock();
                Ok(!removed.contains(&(server, node)))
            })
        }

        fn leave(&self) -> Attempt<'_, ()> {
            *self.node.lock() = None;
            Box::pin(async { Ok(()) })
        }

        fn is_member(&self) -> bool {
            let Some(node) = self.node() else {
                return false;
            };
            let me = (self.server.clone(), node);
            self.group.voters.lock().contains(&me)
        }
    }

    struct Member {
        neighbour: Neighbour,
        host: Arc<Host>,
        assembly: Arc<Assembly>,
        removed: Arc<AtomicBool>,
        running: tokio::task::JoinHandle<()>,
    }

    impl Drop for Member {
        fn drop(&mut self) {
            self.running.abort();
        }
    }

    async fn member(name: &str, expected: usize, group: &Arc<Group>) -> Member {
        member_that_is(name, expected, group, (State::Blank, None)).await
    }

    /// One that finds that standing and that id at its start.
    async fn member_that_is(
        name: &str,
        expected: usize,
        group: &Arc<Group>,
        (state, node): (State, Option<NodeId>),
    ) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let neighbour = Neighbour::start(name, listener);
        let host = Arc::new(Host {
            server: name.to_owned(),
            group: Arc::clone(group),
            node: Mutex::new(node),
        });
        let standing = Standing {
            server: name.to_owned(),
            expected,
            state,
        };
        let runtime = tokio::runtime::Handle::current();
        let links = Arc::clone(&neighbour.links);
        let as_host: Arc<dyn MetaHost> = host.clone();
        let assembly = Assembly::new(links, as_host, standing, runtime);
        let removed = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&removed);
        assembly.on_removal(move || hears.store(true, Ordering::SeqCst));
        let running = tokio::spawn(Arc::clone(&assembly).run());
        Member {
            neighbour,
            host,
            assembly,
            removed,
            running,
        }
    }

    fn introduce(members: &[&Member]) {
        let known: Vec<_> = members.iter().map(|m| m.neighbour.known()).collect();
        for member in members {
            member.neighbour.links.know(&known);
        }
    }

    #[tokio::test]
    async fn all_that_are_expected_found_one_group_and_a_later_one_joins() {
        let group = Arc::new(Group::default());
        let (a, b, c) = (
            member("a", 3, &group).await,
            member("b", 3, &group).await,
            member("c", 3, &group).await,
        );
        introduce(&[&a, &b]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(group.foundings.lock().is_empty(), "one is still missing");
        introduce(&[&a, &b, &c]);
        until("all are members", || {
            [&a, &b, &c].iter().all(|m| m.host.is_member())
        })
        .await;
        assert!(a.host.is_member() && b.host.is_member() && c.host.is_member());
        assert_eq!(group.foundings.lock().len(), 1);
        assert_eq!(group.voters.lock().len(), 3);
        let d = member("d", 3, &group).await;
        introduce(&[&a, &b, &c, &d]);
        until("the fourth is a member", || d.host.is_member()).await;
        assert_eq!(group.foundings.lock().len(), 1);
        assert_eq!(group.voters.lock().len(), 4);
    }

    #[tokio::test]
    async fn a_server_that_lost_everything_comes_back_under_another_id() {
        let group = Arc::new(Group::default());
        let (a, b) = (member("a", 2, &group).await, member("b", 2, &group).await);
        introduce(&[&a, &b]);
        until("both are members", || {
            a.host.is_member() && b.host.is_member()
        })
        .await;
        let before = b.host.node.lock().unwrap();
        drop(b);
        let b = member("b", 2, &group).await;
        introduce(&[&a, &b]);
        until("it is a member again", || b.host.is_member()).await;
        assert_ne!(b.host.node.lock().unwrap(), before);
        assert_eq!(group.voters.lock().len(), 2);
    }

    #[tokio::test]
    async fn a_server_that_is_removed_while_it_runs_comes_back_with_its_next_start_under_another_id()
     {
        let group = Arc::new(Group::default());
        let (a, b) = (member("a", 2, &group).await, member("b", 2, &group).await);
        introduce(&[&a, &b]);
        until("both are members", || {
            a.host.is_member() && b.host.is_member()
        })
        .await;
        let before = b.host.node.lock().unwrap();
        let known = ("b".to_owned(), before);
        group.removed.lock().insert(known.clone());
        group.voters.lock().remove(&known);
        until("it hears of that", || b.removed.load(Ordering::SeqCst)).await;
        until("it asks for nothing more", || b.running.is_finished()).await;
        let found = (b.assembly.standing().state, Some(before));
        assert!(matches!(found.0, State::Belongs { .. }), "{found:?}");
        assert!(!a.removed.load(Ordering::SeqCst));
        drop(b);
        let b = member_that_is("b", 2, &group, found).await;
        introduce(&[&a, &b]);
        until("it is a member again", || b.host.is_member()).await;
        assert_ne!(b.host.node.lock().unwrap(), before);
        assert!(!b.removed.load(Ordering::SeqCst));
    }
}

//! All links of this server.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::RwLock;
use raft::group::{Channel, Groups, Outbound};
use tokio::sync::watch;

use super::dial::{KnownPeer, keep};
use super::hello::{Hello, HelloError, LINK_VERSION};
use super::options::{Credentials, LinkOptions, Meeting};
use super::peer::Peer;
use super::requests::{Handler, LinkError, Question, RequestKind};
use super::session::Session;
use super::slices::Slices;
use super::statistics::PeerStatistics;

/// Takes the frames of the groups.
pub trait FrameSink: Send + Sync + 'static {
    /// A frame came from the server of that name. Does not wait.
    fn received(&self, from: &str, channel: Channel, frame: Bytes);
    /// What was sent to that server may be lost.
    fn disconnected(&self, server: &str);
}

impl FrameSink for Groups {
    fn received(&self, from: &str, channel: Channel, frame: Bytes) {
        Groups::received(self, from, channel, frame);
    }

    fn disconnected(&self, server: &str) {
        Groups::disconnected(self, server);
    }
}

/// What all links share.
pub(super) struct Core {
    pub options: LinkOptions,
    /// What holds for links that begin now.
    pub meeting: ArcSwap<Meeting>,
    pub stop: watch::Sender<bool>,
    runtime: tokio::runtime::Handle,
    peers: RwLock<HashMap<Arc<str>, Arc<Peer>>>,
    handlers: RwLock<HashMap<RequestKind, Arc<dyn Handler>>>,
    sink: OnceLock<Weak<dyn FrameSink>>,
    /// Counts how often a link came or went.
    changes: watch::Sender<u64>,
}

impl Core {
    /// What this server says of itself.
    pub fn hello(&self, channel: Channel, credentials: Option<&Credentials>) -> Hello {
        Hello {
            link: LINK_VERSION,
            server_name: self.options.server_name.clone(),
            server_id: self.options.server_id.clone(),
            cluster: self.meeting.load().cluster.clone(),
            channel,
            version: self.options.version.clone(),
            user: credentials.map(|given| given.user.clone()),
            pass: credentials.map(|given| given.password.clone()),
        }
    }

    fn found(&self, name: &str) -> Option<Arc<Peer>> {
        self.peers.read().get(name).cloned()
    }

    /// The peer of that name, which is dialled from now on as soon as its address is known.
    pub fn peer(self: &Arc<Self>, name: &str) -> Arc<Peer> {
        if let Some(peer) = self.found(name) {
            return peer;
        }
        let mut peers = self.peers.write();
        if let Some(peer) = peers.get(name) {
            return Arc::clone(peer);
        }
        let name: Arc<str> = name.into();
        let peer = Arc::new(Peer::new(Arc::clone(&name), &self.options.limits));
        peers.insert(name, Arc::clone(&peer));
        drop(peers);
        for channel in [Channel::Control, Channel::Bulk] {
            let keeping = keep(Arc::clone(self), Arc::clone(&peer), channel);
            self.runtime.spawn(keeping);
        }
        peer
    }

    /// A connection stands. One that counted until now is ended.
    pub fn adopt(&self, session: &Arc<Session>) -> Result<(), HelloError> {
        if let Some(before) = session.way().adopt(session)? {
            before.end();
            self.lost(&session.peer.name);
        } else {
            self.changes.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    /// What was under way to and from that server is lost.
    pub fn lost(&self, server: &str) {
        if let Some(sink) = self.sink() {
            sink.disconnected(server);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A frame of the groups came.
    pub fn received(&self, from: &str, channel: Channel, frame: Bytes) {
        if let Some(sink) = self.sink() {
            sink.received(from, channel, frame);
        }
    }

    fn sink(&self) -> Option<Arc<dyn FrameSink>> {
        self.sink.get().and_then(Weak::upgrade)
    }

    pub fn handler(&self, kind: RequestKind) -> Option<Arc<dyn Handler>> {
        self.handlers.read().get(&kind).cloned()
    }
}

/// All links of this server. They end when this is dropped.
pub struct Links {
    core: Arc<Core>,
}

impl Links {
    /// Links that are read and written on that runtime.
    pub fn new(options: LinkOptions, meeting: Meeting, runtime: tokio::runtime::Handle) -> Self {
        Self {
            core: Arc::new(Core {
                meeting: ArcSwap::from_pointee(meeting),
                options,
                stop: watch::Sender::new(false),
                runtime,
                peers: RwLock::default(),
                handlers: RwLock::default(),
                sink: OnceLock::new(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// The name of the cluster, and how others are dialled, from now on. Links that stand stay, unless we have dialled a server whose key may not be taken
    /// any more; whom we have let in is looked at by whoever gave the admission.
    pub fn meet(&self, meeting: Meeting) {
        let meeting = Arc::new(meeting);
        self.core.meeting.store(Arc::clone(&meeting));
        let peers: Vec<_> = self.core.peers.read().values().cloned().collect();
        for peer in &peers {
            for channel in [Channel::Control, Channel::Bulk] {
                if let Some(session) = peer.channel(channel).current() {
                    session.review(&meeting);
                }
            }
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Hands the frames of the groups to that sink, as long as it is there. Frames that come before this is called are lost.
    pub fn deliver_to(&self, sink: &Arc<dyn FrameSink>) {
        // Once per server: a second call changes nothing.
        let _ = self.core.sink.set(Arc::downgrade(sink));
    }

    /// Has requests of that kind handled.
    pub fn handle(&self, kind: RequestKind, handler: Arc<dyn Handler>) {
        self.core.handlers.write().insert(kind, handler);
    }

    /// These are the servers of the cluster as far as they are known. One that is not named any more is not dialled any more; its link stays while it stands.
    pub fn know(&self, peers: &[KnownPeer]) {
        for known in peers {
            if known.server_name == self.core.options.server_name {
                continue;
            }
            let peer = self.core.peer(&known.server_name);
            peer.addresses.send_if_modified(|addresses| {
                let changed = *addresses != known.addresses;
                if changed {
                    addresses.clone_from(&known.addresses);
                }
                changed
            });
        }
        let named = |name: &str| peers.iter().any(|peer| peer.server_name == name);
        for (name, peer) in &*self.core.peers.read() {
            if !named(name) {
                peer.addresses.send_if_modified(|addresses| {
                    let changed = !addresses.is_empty();
                    addresses.clear();
                    changed
                });
            }
        }
    }

    /// Whether there is a link to that server.
    pub fn is_connected(&self, server: &str, channel: Channel) -> bool {
        let peer = self.core.found(server);
        peer.is_some_and(|peer| peer.channel(channel).current().is_some())
    }

    /// The servers with a control link, by name.
    pub fn connected(&self) -> Vec<Arc<str>> {
        let peers = self.core.peers.read();
        let linked = |peer: &&Arc<Peer>| peer.channel(Channel::Control).current().is_some();
        let mut names: Vec<_> = peers
            .values()
            .filter(linked)
            .map(|peer| Arc::clone(&peer.name))
            .collect();
        names.sort_unstable();
        names
    }

    /// Changes whenever a link comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.changes.subscribe()
    }

    /// Becomes true when they are closed.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.core.stop.subscribe()
    }

    /// What went over the links, by name of the peer.
    pub fn statistics(&self) -> Vec<PeerStatistics> {
        let peers = self.core.peers.read();
        let mut all: Vec<_> = peers.values().map(|peer| peer.statistics()).collect();
        all.sort_unstable_by(|a, b| a.server.cmp(&b.server));
        all
    }

    /// Asks a server, and waits for its answer until the deadline has passed.
    pub async fn request(
        &self,
        to: &str,
        channel: Channel,
        kind: RequestKind,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, LinkError> {
        let question = Question {
            kind,
            body,
            deadline,
        };
        self.session(to, channel)?.ask(question).await
    }

    /// Asks a server for an answer in slices, over the bulk channel. `patience` is how long each is waited for.
    pub fn request_slices(
        &self,
        to: &str,
        kind: RequestKind,
        body: Bytes,
        patience: Duration,
    ) -> Result<Slices, LinkError> {
        let window_bytes = self.core.options.limits.window_bytes;
        let question = Question {
            kind,
            body,
            deadline: patience,
        };
        let (incoming, slices) = Slices::prepare(window_bytes, patience);
        let session = self.session(to, Channel::Bulk)?;
        let open = session.ask_for_slices(incoming, question, window_bytes)?;
        Ok(slices(open))
    }

    fn session(&self, to: &str, channel: Channel) -> Result<Arc<Session>, LinkError> {
        let peer = self.core.found(to);
        let session = peer.and_then(|peer| peer.channel(channel).current());
        session.ok_or(LinkError::NotConnected)
    }

    /// Ends all links, dials no more, and lets go of the handlers.
    pub fn close(&self) {
        self.core.stop.send_replace(true);
        let handlers = std::mem::take(&mut *self.core.handlers.write());
        // Outside the lock: who is let go of may let go of others.
        drop(handlers);
    }
}

impl Outbound for Links {
    fn send(&self, to: &str, channel: Channel, frame: Bytes) {
        match self.core.found(to) {
            Some(peer) => peer.send(channel, frame, &self.core.options.limits),
            None => tracing::debug!("Nothing is known of server {to:?}: a frame was dropped"),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

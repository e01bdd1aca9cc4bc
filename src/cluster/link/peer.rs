//! Another server, and which of several connections to it counts.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use raft::group::Channel;
use tokio::sync::watch;

use super::dial::Address;
use super::frame::Frame;
use super::hello::HelloError;
use super::options::LinkLimits;
use super::queue::NotQueued;
use super::rate::Rate;
use super::session::Session;
use super::statistics::{Counters, PeerStatistics};

/// A server that this one is linked with, or was, or is to be. There are as many as there are server names in the cluster; none is forgotten.
pub(super) struct Peer {
    pub name: Arc<str>,
    /// Where it can be dialled; empty when that is not known.
    pub addresses: watch::Sender<Vec<Address>>,
    /// What slices are held to.
    pub rate: Option<Mutex<Rate>>,
    control: PeerChannel,
    bulk: PeerChannel,
}

/// One of the two channels to a peer.
pub(super) struct PeerChannel {
    pub counters: Counters,
    /// The connection that counts.
    current: ArcSwapOption<Session>,
    /// The number of the connection that counts; held while what came over it is handed on, so that nothing of an older one is handed on after that.
    pub gate: Mutex<u64>,
    /// Whether there is a connection.
    pub linked: watch::Sender<bool>,
}

impl PeerChannel {
    fn new() -> Self {
        Self {
            counters: Counters::default(),
            current: ArcSwapOption::empty(),
            gate: Mutex::new(0),
            linked: watch::Sender::new(false),
        }
    }

    /// The connection that counts.
    pub fn current(&self) -> Option<Arc<Session>> {
        self.current.load_full()
    }

    /// A connection has come to be; it counts from now on, unless there is one that counts before it. What counted until now is given back: it has
    /// to be ended.
    ///
    /// Of two connections between the same runs of two servers, the one that the server with the lesser name dialled counts: both sides decide alike
    /// when dials cross. Otherwise the later one counts: whoever made it knew that the earlier one is gone.
    pub fn adopt(&self, session: &Arc<Session>) -> Result<Option<Arc<Session>>, HelloError> {
        let mut gate = self.gate.lock();
        let before = self.current.load_full();
        if let Some(before) = &before
            && before.server_id == session.server_id
            && before.by_lesser
            && !session.by_lesser
        {
            return Err(HelloError::Duplicate);
        }
        *gate = session.number;
        self.current.store(Some(Arc::clone(session)));
        self.counters.connected(SystemTime::now());
        self.linked.send_replace(true);
        Ok(before)
    }

    /// The connection has ended; true when it was the one that counts.
    pub fn release(&self, session: &Session) -> bool {
        let mut gate = self.gate.lock();
        if *gate != session.number {
            return false;
        }
        *gate = 0;
        self.current.store(None);
        self.counters.disconnected();
        self.linked.send_replace(false);
        true
    }
}

impl Peer {
    pub fn new(name: Arc<str>, limits: &LinkLimits) -> Self {
        Self {
            name,
            addresses: watch::Sender::new(Vec::new()),
            rate: limits
                .slices_bytes_per_second
                .map(|limit| Mutex::new(Rate::new(limit))),
            control: PeerChannel::new(),
            bulk: PeerChannel::new(),
        }
    }

    pub fn channel(&self, channel: Channel) -> &PeerChannel {
        match channel {
            Channel::Control => &self.control,
            Channel::Bulk => &self.bulk,
        }
    }

    /// Sends a frame of the groups, or drops and counts it.
    pub fn send(&self, channel: Channel, frame: bytes::Bytes, limits: &LinkLimits) {
        let bytes = frame.len();
        let way = self.channel(channel);
        let fits = bytes < limits.frame_bytes_max;
        let sent = match &*way.current.load() {
            Some(session) if fits => session.queue.push(Frame::Raft(frame)),
            Some(_) => Err(NotQueued::Full),
            None => Err(NotQueued::Closed),
        };
        if sent.is_err() {
            way.counters.dropped(bytes);
        }
        if !fits {
            tracing::error!(
                "Dropped a frame of {bytes} bytes to {:?}, more than a link carries",
                self.name
            );
        }
    }

    pub fn statistics(&self) -> PeerStatistics {
        let channels = [Channel::Control, Channel::Bulk];
        PeerStatistics {
            server: self.name.to_string(),
            server_id: channels.iter().find_map(|channel| {
                let session = self.channel(*channel).current();
                session.map(|session| session.server_id.clone())
            }),
            channels: channels.map(|channel| self.channel(channel).counters.read(channel)),
        }
    }
}

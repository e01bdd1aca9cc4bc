//! Dialling a peer until there is a link, and again when it is gone.
//!
//! The server with the lesser name dials. The other one does so too when that takes too long: it may be the only one that can reach its peer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use raft::group::Channel;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::hello::{HELLO_LINE_BYTES_MAX, Hello, HelloError};
use super::links::Core;
use super::options::{Credentials, Meeting};
use super::peer::Peer;
use super::session::Session;
use super::socket::Socket;
use crate::tls::{self, KeyHash};

/// The longest `INFO` of a peer.
const INFO_LINE_BYTES_MAX: usize = 64 * 1024;
/// A connection that lasted so long was no failure to connect.
const LASTING: Duration = Duration::from_secs(1);

/// Where a server listens for its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What to say there; what the cluster says otherwise.
    pub credentials: Option<Credentials>,
}

/// A server of the cluster, and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its name.
    pub server_name: String,
    /// Where it listens, most promising first; empty when that is not known.
    pub addresses: Vec<Address>,
}

/// Why an address did not become a link.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    Failed(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] tls::HandshakeError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("no INFO line was read")]
    NoInfo,
    #[error("it took too long")]
    TimedOut,
}

/// Keeps one channel to a peer connected until the server stops.
pub(super) async fn keep(core: Arc<Core>, peer: Arc<Peer>, channel: Channel) {
    let mut stop = core.stop.subscribe();
    tokio::select! {
        () = dial_again_and_again(&core, &peer, channel) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn dial_again_and_again(core: &Arc<Core>, peer: &Arc<Peer>, channel: Channel) {
    let timing = core.options.timing;
    let mut linked = peer.channel(channel).linked.subscribe();
    let mut addresses = peer.addresses.subscribe();
    let our_turn = *core.options.server_name < *peer.name;
    let mut pause = timing.redial_pause_min;
    loop {
        // The senders are the peer's, which is held here: they do not end.
        let _ = linked.wait_for(|linked| !linked).await;
        let known = match addresses.wait_for(|known| !known.is_empty()).await {
            Ok(known) => known.clone(),
            Err(_) => return,
        };
        if !our_turn && is_linked(&mut linked, timing.other_dials_within).await {
            continue;
        }
        if *linked.borrow_and_update() {
            continue;
        }
        let begun = Instant::now();
        for address in &known {
            match timeout(timing.handshake_timeout, dial(core, peer, channel, address)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tell(peer, channel, address, &error),
                Err(_) => tell(peer, channel, address, &DialError::TimedOut),
            }
        }
        let _ = linked.wait_for(|linked| !linked).await;
        match begun.elapsed() >= LASTING {
            true => pause = timing.redial_pause_min,
            false => pause = (pause * 2).min(timing.redial_pause_max),
        }
        is_linked(&mut linked, jittered(pause)).await;
    }
}

fn tell(peer: &Peer, channel: Channel, address: &Address, error: &DialError) {
    let (name, host, port) = (&peer.name, &address.host, address.port);
    match error {
        DialError::Hello(HelloError::Duplicate) | DialError::Failed(_) | DialError::TimedOut => {
            tracing::debug!("{channel:?} link with {name:?} at {host}:{port}: {error}");
        }
        _ => tracing::warn!("{channel:?} link with {name:?} at {host}:{port}: {error}"),
    }
}

/// Waits for a link that comes about otherwise.
async fn is_linked(linked: &mut watch::Receiver<bool>, at_most: Duration) -> bool {
    let linked = timeout(at_most, linked.wait_for(|linked| *linked)).await;
    matches!(linked, Ok(Ok(_)))
}

/// Between half of it and all of it, so that two do not keep meeting.
fn jittered(pause: Duration) -> Duration {
    let nanoseconds = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |now| now.subsec_nanos());
    pause / 2 + pause / 2 * (nanoseconds % 1024) / 1024
}

/// Dials, and hands the connection over when it counts.
async fn dial(
    core: &Arc<Core>,
    peer: &Arc<Peer>,
    channel: Channel,
    address: &Address,
) -> Result<(), DialError> {
    let meeting = core.meeting.load_full();
    let (socket, mut buffer, key) = connect(core, &meeting, address).await?;
    let (mut reader, writer) = socket.into_split();
    let own = meeting.dialling.credentials.as_ref();
    let line = core
        .hello(channel, address.credentials.as_ref().or(own))
        .line();
    let at_most = core.options.timing.handshake_timeout;
    writer.write_line(&line, at_most).await?;
    let line = reader.line(&mut buffer, HELLO_LINE_BYTES_MAX).await?;
    let hello = Hello::parse(&line)?;
    hello.check(&core.options.server_name, &meeting.cluster)?;
    if hello.channel != channel {
        return Err(HelloError::Channel.into());
    }
    if *hello.server_name != *peer.name {
        return Err(HelloError::OtherServer {
            found: hello.server_name,
            expected: peer.name.to_string(),
        }
        .into());
    }
    let by_lesser = *core.options.server_name < *peer.name;
    let session = Session::new(core, peer, channel, hello.server_id, by_lesser, key);
    core.adopt(&session)?;
    // Whoever changes what holds looks at the links that stand then: at this one, or this finds that it was changed.
    session.review(&core.meeting.load());
    tracing::info!("{channel:?} link with {:?} stands", peer.name);
    tokio::spawn(session.run(reader, writer, buffer, Vec::new()));
    Ok(())
}

/// Connects, encrypts when the cluster does, and reads the peer's `INFO`; what follows it is in the buffer. With the peer's key.
async fn connect(
    core: &Core,
    meeting: &Meeting,
    address: &Address,
) -> Result<(Socket, BytesMut, Option<KeyHash>), DialError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    let timing = core.options.timing;
    let mut key = None;
    let mut socket = match &meeting.dialling.tls {
        None => Socket::tcp(stream),
        Some(tls) => {
            let at_most = timing.handshake_timeout;
            let socket = tls.connect(stream, &address.host, at_most).await?;
            key = socket.peer_key();
            Socket::tls(socket)
        }
    };
    let mut buffer = BytesMut::new();
    let info = socket.line(&mut buffer, INFO_LINE_BYTES_MAX).await?;
    match info.starts_with(b"INFO ") {
        true => Ok((socket, buffer, key)),
        false => Err(DialError::NoInfo),
    }
}

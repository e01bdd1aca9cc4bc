//! Servers of one process, linked over loopback.

mod frames;
mod links;
mod peers;
mod requests;
mod secure;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use raft::group::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::socket::Socket as LinkSocket;
use super::testing::{PATIENCE, at, listen, meeting, until};
use super::*;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

/// Remembers the frames of the groups.
#[derive(Default)]
struct Heard {
    frames: Mutex<Vec<(String, Channel, Bytes)>>,
    losses: AtomicUsize,
}

impl Heard {
    fn from(&self, server: &str, channel: Channel) -> Vec<Bytes> {
        let frames = self.frames.lock();
        let wanted = frames
            .iter()
            .filter(|(f, c, _)| f == server && *c == channel);
        wanted.map(|(_, _, frame)| frame.clone()).collect()
    }
}

impl FrameSink for Heard {
    fn received(&self, from: &str, channel: Channel, frame: Bytes) {
        self.frames.lock().push((from.to_owned(), channel, frame));
    }

    fn disconnected(&self, _server: &str) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }
}

fn quick(name: &str, run: u32) -> LinkOptions {
    let mut options = LinkOptions::new(name, format!("N{name}{run}"));
    options.timing = LinkTiming {
        ping_interval: Duration::from_millis(50),
        silent_after: Duration::from_millis(500),
        redial_pause_min: Duration::from_millis(5),
        redial_pause_max: Duration::from_millis(50),
        other_dials_within: Duration::from_millis(200),
        ..LinkTiming::default()
    };
    options
}

/// A server with nothing but links, and a listener for them.
struct Node {
    name: String,
    links: Arc<Links>,
    heard: Arc<Heard>,
    port: u16,
    listening: JoinHandle<()>,
}

impl Node {
    async fn start(options: LinkOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(options, listener)
    }

    fn start_on(options: LinkOptions, listener: TcpListener) -> Self {
        let name = options.server_name.clone();
        let links = Arc::new(Links::new(
            options,
            meeting(),
            tokio::runtime::Handle::current(),
        ));
        let heard = Arc::new(Heard::default());
        let sink: Arc<dyn FrameSink> = heard.clone();
        links.deliver_to(&sink);
        let port = listener.local_addr().unwrap().port();
        let listening = tokio::spawn(listen(listener, Arc::clone(&links)));
        Self {
            name,
            links,
            heard,
            port,
            listening,
        }
    }

    /// Ends as a process does.
    fn stop(self) {
        self.listening.abort();
        self.links.close();
    }

    fn known_at(&self, port: u16) -> KnownPeer {
        KnownPeer {
            server_name: self.name.clone(),
            addresses: vec![at(port)],
        }
    }

    fn known(&self) -> KnownPeer {
        self.known_at(self.port)
    }

    async fn linked_with(&self, other: &str) {
        let both = [Channel::Control, Channel::Bulk];
        until("there is a link", || {
            both.iter().all(|c| self.links.is_connected(other, *c))
        })
        .await;
    }

    fn statistics(&self, other: &str, channel: Channel) -> ChannelStatistics {
        let mut all = self.links.statistics().into_iter();
        let peer = all.find(|peer| peer.server == other).unwrap();
        let [control, bulk] = peer.channels;
        match channel {
            Channel::Control => control,
            Channel::Bulk => bulk,
        }
    }

    fn send(&self, to: &str, channel: Channel, frame: impl Into<Bytes>) {
        raft::group::Outbound::send(&*self.links, to, channel, frame.into());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.listening.abort();
        self.links.close();
    }
}

/// The network before a server: it can be cut, or swallow everything.
struct Proxy {
    port: u16,
    swallows: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<JoinHandle<()>>>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let swallows = Arc::new(AtomicBool::new(false));
        let open = Arc::<Mutex<Vec<JoinHandle<()>>>>::default();
        let (silent, tasks) = (Arc::clone(&swallows), Arc::clone(&open));
        let listening = tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.unwrap();
                let silent = Arc::clone(&silent);
                let carrying = tokio::spawn(async move {
                    if let Ok(there) = TcpStream::connect(("127.0.0.1", port)).await {
                        carry(here, there, silent).await;
                    }
                });
                tasks.lock().push(carrying);
            }
        });
        Self {
            port: own,
            swallows,
            open,
            listening,
        }
    }

    fn cut(&self) {
        for open in self.open.lock().drain(..) {
            open.abort();
        }
    }

    /// From now on nothing passes, and nobody is told.
    fn swallow(&self, all: bool) {
        self.swallows.store(all, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn carry(here: TcpStream, there: TcpStream, swallows: Arc<AtomicBool>) {
    let ((mut read_a, mut write_a), (mut read_b, mut write_b)) =
        (here.into_split(), there.into_split());
    let other = Arc::clone(&swallows);
    let one_way = async move {
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = read_a.read(&mut bytes).await {
            if !swallows.load(Ordering::Relaxed) && write_b.write_all(&bytes[..read]).await.is_err()
            {
                break;
            }
        }
    };
    let other_way = async move {
        let mut bytes = vec![0; 4096];
        while let Ok(read @ 1..) = read_b.read(&mut bytes).await {
            if !other.load(Ordering::Relaxed) && write_a.write_all(&bytes[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = one_way => {}
        () = other_way => {}
    }
}

/// Two servers that know each other.
async fn pair() -> (Node, Node) {
    pair_with(|_| {}).await
}

async fn pair_with(change: impl Fn(&mut LinkOptions)) -> (Node, Node) {
    let (mut one, mut two) = (quick("a", 1), quick("b", 1));
    change(&mut one);
    change(&mut two);
    let (a, b) = (Node::start(one).await, Node::start(two).await);
    a.links.know(&[b.known()]);
    b.links.know(&[a.known()]);
    a.linked_with("b").await;
    b.linked_with("a").await;
    (a, b)
}

/// A peer that does by hand whatever a test wants.
struct RawPeer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl RawPeer {
    /// Says this line to a server's listener.
    async fn dial(port: u16, line: &[u8]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut peer = Self {
            stream,
            buffer: BytesMut::new(),
        };
        assert_eq!(peer.line().await, "INFO {}");
        peer.stream.write_all(line).await.unwrap();
        peer
    }

    /// Links as the server of that name.
    async fn linked(port: u16, name: &str, channel: &str) -> Self {
        let line = hello_line(name, "cluster", channel);
        let mut peer = Self::dial(port, line.as_bytes()).await;
        assert!(peer.line().await.starts_with("LINK {"));
        peer
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.split_to(end);
                let _ = self.buffer.split_to(2);
                return String::from_utf8(line.to_vec()).unwrap();
            }
            let read = soon(self.stream.read_buf(&mut self.buffer)).await.unwrap();
            assert_ne!(read, 0, "the server closed the connection");
        }
    }

    async fn say(&mut self, frame: super::frame::Frame) {
        let encoded = frame.encode();
        let bytes = [encoded.head(), &encoded.body].concat();
        // What it thinks of it is looked at elsewhere.
        let _ = self.stream.write_all(&bytes).await;
    }

    async fn frame(&mut self) -> super::frame::Frame {
        use super::frame::Frame;
        loop {
            match Frame::decode(&mut self.buffer, 1 << 20).unwrap() {
                Some(Frame::Ping(_)) => {}
                Some(frame) => return frame,
                None => {
                    let read = soon(self.stream.read_buf(&mut self.buffer)).await.unwrap();
                    assert_ne!(read, 0, "the server closed the connection");
                }
            }
        }
    }

    /// Reads until the server has closed the connection.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
    }
}

fn hello_line(name: &str, cluster: &str, channel: &str) -> String {
    format!(
        "LINK {{\"link\":1,\"server_name\":\"{name}\",\"server_id\":\"N{name}\",\"cluster\":\"{cluster}\",\"channel\":\"{channel}\"}}\r\n"
    )
}

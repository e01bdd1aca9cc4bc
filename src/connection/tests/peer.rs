//! A server without a process, and a client that compares every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::broker::Broker;
use crate::config::options::Options;
use crate::connection::Clients;
use crate::protocol::ServerInfo;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const QUIET_CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1}\r\n";

pub(super) struct Server {
    pub(super) clients: Arc<Clients>,
    address: SocketAddr,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let info = ServerInfo {
            server_id: "NSERVER".into(),
            ..ServerInfo::default()
        };
        let clients = Clients::new(Arc::new(Broker::new()), &options, None, info).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admitting = Arc::clone(&clients);
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                admitting.admit(stream, address);
            }
        });
        Self { clients, address }
    }

    /// A client that has read the greeting.
    pub(super) async fn peer(&self) -> Peer {
        let mut peer = Peer {
            stream: BufReader::new(TcpStream::connect(self.address).await.unwrap()),
        };
        assert!(
            peer.line()
                .await
                .starts_with("INFO {\"server_id\":\"NSERVER\"")
        );
        peer
    }

    /// A client that has introduced itself.
    pub(super) async fn quiet(&self) -> Peer {
        let mut peer = self.peer().await;
        peer.say(QUIET_CONNECT).await;
        peer.greeted().await;
        peer
    }
}

pub(super) struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(super) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        timeout(PATIENCE, read).await.unwrap().unwrap();
        line
    }

    /// Exactly this comes next.
    pub(super) async fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.unwrap_or_else(|_| panic!("nothing came instead of {expected:?}"))
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// The first ping is answered with a pong and a second `INFO`.
    pub(super) async fn greeted(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
        let info = self.line().await;
        assert!(
            info.contains("\"connect_info\":true,\"remote_account\":\"$G\""),
            "{info}"
        );
        assert!(info.ends_with("} \r\n"));
    }

    /// Nothing came since the last thing that was heard.
    pub(super) async fn is_in_silence(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
    }

    /// Exactly this comes, and then the end.
    pub(super) async fn is_closed_with(&mut self, expected: &str) {
        let mut rest = Vec::new();
        // A reset is an end as well: the server does not read what is said behind a violation.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("the connection is closed");
        assert_eq!(String::from_utf8_lossy(&rest), expected);
    }
}

//! What tests of this room, and of those that use it, need of servers in one process.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Nothing that is waited for takes longer, unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Servers of a cluster that lets everybody in.
pub(crate) fn meeting() -> Meeting {
    Meeting {
        cluster: "cluster".to_owned(),
        dialling: Dialling::default(),
    }
}

pub(crate) fn at(port: u16) -> Address {
    Address {
        host: "127.0.0.1".to_owned(),
        port,
        credentials: None,
    }
}

/// What the listener of a cluster does with a link.
pub(crate) async fn listen(listener: TcpListener, links: Arc<Links>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let links = Arc::clone(&links);
        tokio::spawn(async move {
            stream.write_all(b"INFO {}\r\n").await?;
            let mut socket = Socket::tcp(stream);
            let mut buffer = BytesMut::new();
            let line = socket.line(&mut buffer, HELLO_LINE_BYTES_MAX).await?;
            // A refused link is told to the peer, which is what tests look at.
            let (_stays, admission) = Admission::until_told();
            let _ = links.accept(socket, &line, buffer, admission).await;
            Ok::<(), std::io::Error>(())
        });
    }
}

/// A server with nothing but links.
pub(crate) struct Neighbour {
    pub links: Arc<Links>,
    name: String,
    port: u16,
    listening: JoinHandle<()>,
}

impl Neighbour {
    pub(crate) fn start(name: &str, listener: TcpListener) -> Self {
        let run: u64 = listener.local_addr().unwrap().port().into();
        let mut options = LinkOptions::new(name, format!("N{name}{run}"));
        options.timing.other_dials_within = Duration::from_millis(200);
        options.timing.redial_pause_max = Duration::from_millis(100);
        let links = Arc::new(Links::new(
            options,
            meeting(),
            tokio::runtime::Handle::current(),
        ));
        let port = listener.local_addr().unwrap().port();
        Self {
            name: name.to_owned(),
            port,
            listening: tokio::spawn(listen(listener, Arc::clone(&links))),
            links,
        }
    }

    pub(crate) fn known(&self) -> KnownPeer {
        KnownPeer {
            server_name: self.name.clone(),
            addresses: vec![at(self.port)],
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.listening.abort();
        self.links.close();
    }
}

//! A connection that may come through a proxy: the header in front of what the client says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::protocol::proxy::{HEADER_BYTES_MAX, Header};

/// How long the header may take.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait for more of a header that has come in part.
const PAUSE: Duration = Duration::from_millis(5);

/// Takes the header off, when there is one; where the client is, if it says so.
pub(super) async fn source_of(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let read = timeout(HEADER_TIME_MAX, read(stream)).await;
    read.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timeout")))
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("Error reading PROXY protocol header: {error}"),
            )
        })
}

async fn read(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    loop {
        // What does not belong to a header must stay where it is.
        let length = stream.peek(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let seen = bytes.get(..length).unwrap_or_default();
        let header = Header::parse(seen)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match header {
            Header::Absent => return Ok(None),
            Header::Incomplete => sleep(PAUSE).await,
            Header::Present {
                source,
                bytes: length,
            } => {
                let header = bytes.get_mut(..length).unwrap_or_default();
                stream.read_exact(header).await?;
                return Ok(source);
            }
        }
    }
}

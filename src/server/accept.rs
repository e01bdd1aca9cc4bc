//! Admitting connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// First pause after an accept that failed.
const ERROR_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause; each failure doubles the pause up to here.
const ERROR_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Hands every new connection to `serve` until `stop` becomes true or its sender is gone, then closes the listener.
pub async fn accept(
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(TcpStream, SocketAddr),
) {
    let mut pause = ERROR_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = ERROR_PAUSE_MIN;
                serve(stream, address);
            }
            Err(error) if concerns_one_connection(&error) => {
                tracing::debug!("A connection ended before it was accepted: {error}");
            }
            Err(error) => {
                tracing::error!(
                    "Temporary client accept error ({error}), sleeping {}ms",
                    pause.as_millis()
                );
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(ERROR_PAUSE_MAX);
            }
        }
    }
}

/// Whether the next accept is likely to work at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

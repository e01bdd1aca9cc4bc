//! Telling the service manager how far the server is (`sd_notify`).
//!
//! systemd names a socket in `NOTIFY_SOCKET`; without it nothing is told. What cannot be told is no reason not to serve.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What the service manager hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Clients may come.
    Ready,
    /// The configuration is being read again; [`State::Ready`] follows.
    Reloading,
    /// The server ends.
    Stopping,
}

/// Tells the service manager, when there is one.
pub fn notify(state: State) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, &text(state))
    {
        tracing::debug!("The service manager was not told {state:?}: {error}");
    }
}

fn text(state: State) -> String {
    match state {
        State::Ready => format!("READY=1\nMAINPID={}\n", std::process::id()),
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()),
        State::Stopping => "STOPPING=1\n".into(),
    }
}

/// The clock by which a reload is told from the one before.
fn monotonic_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

fn send(socket: &OsString, text: &str) -> io::Result<()> {
    let name = socket.as_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_at_the_named_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(&path.into_os_string(), &text(State::Ready)).unwrap();
        let mut heard = [0; 128];
        let length = manager.recv(&mut heard).unwrap();
        let heard = String::from_utf8_lossy(&heard[..length]).into_owned();
        assert_eq!(heard, format!("READY=1\nMAINPID={}\n", std::process::id()));
        assert!(text(State::Reloading).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(send(&"/nowhere/at/all".into(), "x").is_err());
    }
}

//! Opening a listener, before any task runs, so that a busy port is an error of the start.

use crate::config::options::Port;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};

/// Connections that may wait to be accepted.
const ACCEPT_BACKLOG: i32 = 4096;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("Error listening on port: {address}, {source}")]
pub struct ListenError {
    /// What was asked for.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

/// Opens a listener on a host name or address.
pub fn listen(host: &str, port: Port) -> Result<TcpListener, ListenError> {
    let error = |source| ListenError {
        address: format!("{host}:{}", port.bind()),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in (host, port.bind()).to_socket_addrs().map_err(error)? {
        match open(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => last = source,
        }
    }
    Err(error(last))
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the old connections' last packets.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!all_addresses(address.ip()))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

fn all_addresses(address: IpAddr) -> bool {
    address.is_unspecified()
}

/// `host:port` as it is logged: the host that was asked for and the port that it became, IPv6 in brackets.
pub fn display_address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_an_error_that_names_the_port() {
        let first = listen("127.0.0.1", Port::Random).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_ne!(port, 0);
        let error = listen("127.0.0.1", Port::Fixed(port))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("port") && error.contains(&port.to_string()),
            "{error}"
        );
    }

    #[test]
    fn addresses_of_the_sixth_version_stand_in_brackets() {
        assert_eq!(display_address("::", 4222), "[::]:4222");
        assert_eq!(display_address("0.0.0.0", 4222), "0.0.0.0:4222");
        assert_eq!(display_address("localhost", 1), "localhost:1");
    }
}

//! The system's log, on this machine or another one.
//!
//! Lines are datagrams, or lines of a stream, as RFC 3164 has them. A line that cannot be sent is lost after one attempt to connect
//! again: a log is no reason to stop serving.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::line::Tag;

/// Where the system's own log listens.
const LOCAL_PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// The facility of services.
const FACILITY_DAEMON: u8 = 3 << 3;
/// The port of a remote log that names none.
const PORT_DEFAULT: u16 = 514;
/// How long connecting and writing may take.
const PATIENCE: Duration = Duration::from_secs(2);
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This machine's.
    Local,
    /// `udp://host:port`
    Udp(String),
    /// `tcp://host:port`
    Tcp(String),
    /// `unix://path`, of datagrams or of a stream.
    Unix(PathBuf),
}

impl Place {
    /// A place as an operator writes it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("{text:?} is not scheme://address"))?;
        if rest.is_empty() {
            return Err(format!("{text:?} names no address"));
        }
        match scheme {
            "udp" => Ok(Self::Udp(with_port(rest))),
            "tcp" => Ok(Self::Tcp(with_port(rest))),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            _ => Err(format!("invalid network type: {scheme:?}")),
        }
    }
}

fn with_port(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => address.to_owned(),
        _ => format!("{address}:{PORT_DEFAULT}"),
    }
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Socket {
    fn open(place: &Place) -> io::Result<Self> {
        match place {
            Place::Local => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for path in LOCAL_PATHS {
                    match Self::open_path(Path::new(path)) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Place::Unix(path) => Self::open_path(path),
            Place::Udp(address) => {
                let target = resolve(address)?;
                let own: std::net::SocketAddr = match target.is_ipv4() {
                    true => ([0, 0, 0, 0], 0).into(),
                    false => ([0u16; 8], 0).into(),
                };
                let socket = UdpSocket::bind(own)?;
                socket.connect(target)?;
                Ok(Self::Udp(socket))
            }
            Place::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&resolve(address)?, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    fn open_path(path: &Path) -> io::Result<Self> {
        let datagram = UnixDatagram::unbound()?;
        if datagram.connect(path).is_ok() {
            datagram.set_write_timeout(Some(PATIENCE))?;
            return Ok(Self::Datagram(datagram));
        }
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Stream(stream))
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(line).map(drop),
            Self::Datagram(socket) => socket.send(line).map(drop),
            Self::Tcp(stream) => stream.write_all(line),
            Self::Stream(stream) => stream.write_all(line),
        }
    }
}

fn resolve(address: &str) -> io::Result<std::net::SocketAddr> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    address.to_socket_addrs()?.next().ok_or_else(unknown)
}

/// An open log.
#[derive(Debug)]
pub struct Syslog {
    place: Place,
    socket: Option<Socket>,
    program: String,
    host: String,
}

impl Syslog {
    /// Opens a log; fails where nobody listens.
    pub fn open(place: Place) -> io::Result<Self> {
        let socket = Socket::open(&place)?;
        let own = std::env::args_os().next().map(PathBuf::from);
        let program = own
            .as_deref()
            .and_then(Path::file_name)
            .map_or("nats-server".into(), |name| {
                name.to_string_lossy().into_owned()
            });
        let host = rustix::system::uname();
        Ok(Self {
            place,
            socket: Some(socket),
            program,
            host: host.nodename().to_string_lossy().into_owned(),
        })
    }

    /// Sends one line. The text holds no line ends.
    pub fn write(&mut self, now: SystemTime, tag: Tag, text: &str) {
        let line = self.line(now, tag, text);
        for _ in 0..2 {
            if self.socket.is_none() {
                match Socket::open(&self.place) {
                    Ok(socket) => self.socket = Some(socket),
                    // Not tried again for this line: others wait behind it.
                    Err(_) => return,
                }
            }
            let socket = self.socket.as_mut();
            if socket.is_some_and(|socket| socket.write(line.as_bytes()).is_ok()) {
                return;
            }
            self.socket = None;
        }
    }

    fn line(&self, now: SystemTime, tag: Tag, text: &str) -> String {
        let priority = FACILITY_DAEMON | severity(tag);
        let (program, process) = (&self.program, std::process::id());
        let date = OffsetDateTime::from(now);
        match self.place {
            Place::Local => {
                let month = MONTHS
                    .get(usize::from(u8::from(date.month())).saturating_sub(1))
                    .unwrap_or(&"Jan");
                let (day, hour) = (date.day(), date.hour());
                let (minute, second) = (date.minute(), date.second());
                format!(
                    "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} {program}[{process}]: {text}\n"
                )
            }
            _ => {
                let stamp = date.format(&Rfc3339).unwrap_or_default();
                let host = &self.host;
                format!("<{priority}>{stamp} {host} {program}[{process}]: {text}\n")
            }
        }
    }
}

/// As the reference ranks its lines.
fn severity(tag: Tag) -> u8 {
    match tag {
        Tag::Fatal => 2,
        Tag::Error => 3,
        Tag::Warning => 4,
        Tag::Info | Tag::Trace => 5,
        Tag::Debug => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_line_reaches_a_remote_log_and_a_socket_of_this_machine() {
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let local = UnixDatagram::bind(&path).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        let mut heard = [0; 512];

        let address = format!("udp://{}", remote.local_addr().unwrap());
        let mut log = Syslog::open(Place::parse(&address).unwrap()).unwrap();
        log.write(now, Tag::Info, "Server is ready");
        let length = remote.recv(&mut heard).unwrap();
        let line = String::from_utf8_lossy(&heard[..length]).into_owned();
        assert!(line.starts_with("<29>2025-11-24T16:00:00Z "), "{line}");
        assert!(line.ends_with(&format!("[{}]: Server is ready\n", std::process::id())));

        let address = format!("unix://{}", path.display());
        let mut log = Syslog::open(Place::parse(&address).unwrap()).unwrap();
        log.write(now, Tag::Error, "x");
        let length = local.recv(&mut heard).unwrap();
        assert!(heard[..length].starts_with(b"<27>"));
    }

    #[test]
    fn places_are_read_as_the_reference_reads_them() {
        assert_eq!(Place::parse("udp://h"), Ok(Place::Udp("h:514".into())));
        assert_eq!(Place::parse("tcp://h:1"), Ok(Place::Tcp("h:1".into())));
        assert_eq!(Place::parse("unix:///x"), Ok(Place::Unix("/x".into())));
        assert!(Place::parse("h:1").is_err() && Place::parse("ftp://h").is_err());
        assert!(Syslog::open(Place::Unix("/nowhere/at/all".into())).is_err());
    }
}

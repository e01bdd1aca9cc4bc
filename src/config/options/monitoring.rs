//! Where the server tells about itself: monitoring over HTTP or HTTPS, and profiling.

use super::report::{Field, Report};
use super::{Options, Port};

/// A port that is not to be opened.
const NO_PORT: Port = Port::Fixed(0);

/// Where the monitoring endpoints listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    /// Host; the client listener's when the file does not name one.
    pub host: Option<String>,
    /// Port in plain text; 0 is none.
    pub port: Port,
    /// Port for encrypted connections, with the certificate for clients; 0 is none. Only one of the two is ever set once the
    /// options have been checked.
    pub https_port: Port,
    /// A path that stands before every endpoint; empty or beginning with a slash, never ending with one.
    pub base_path: String,
}

impl MonitorOptions {
    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.https_port != NO_PORT
    }

    /// The port to listen on.
    pub fn listens_on(&self) -> Port {
        match self.is_encrypted() {
            true => self.https_port,
            false => self.port,
        }
    }

    /// Whether nobody has said where to listen.
    pub(super) fn is_nowhere(&self) -> bool {
        self.listens_on() == NO_PORT
    }

    /// Whether the options go together.
    pub(super) fn check(&self, options: &Options) -> Result<(), String> {
        if self.is_encrypted() && self.port != NO_PORT {
            return Err(format!(
                "can't specify both HTTP ({}) and HTTPs ({}) ports",
                shown(self.port),
                shown(self.https_port)
            ));
        }
        if self.is_encrypted() && options.tls.is_none() {
            return Err("TLS cert and key required for HTTPS".into());
        }
        Ok(())
    }
}

fn shown(port: Port) -> i32 {
    match port {
        Port::Random => -1,
        Port::Fixed(port) => i32::from(port),
    }
}

/// The monitor's options, made when the first of them is met.
pub(super) fn monitor(options: &mut Options) -> &mut MonitorOptions {
    options.monitor.get_or_insert_with(|| MonitorOptions {
        host: None,
        port: NO_PORT,
        https_port: NO_PORT,
        base_path: String::new(),
    })
}

/// Reads a key of the top level. False when it is none of these.
pub(super) fn read(
    options: &mut Options,
    key: &str,
    field: &Field<'_>,
    report: &mut Report,
) -> bool {
    match key {
        "http" | "https" => {
            if let Some((host, port)) = field.listen(report) {
                let monitor = monitor(options);
                monitor.host = host;
                match key {
                    "https" => monitor.https_port = port,
                    _ => monitor.port = port,
                }
            }
        }
        "http_port" | "monitor_port" => {
            if let Some(port) = port(field, report) {
                monitor(options).port = port;
            }
        }
        "https_port" => {
            if let Some(port) = port(field, report) {
                monitor(options).https_port = port;
            }
        }
        "http_base_path" => {
            if let Some(path) = field.string(report) {
                monitor(options).base_path = base_path(&path);
            }
        }
        "prof_port" => {
            if let Some(port) = port(field, report) {
                options.profiling_port = Some(port).filter(|port| *port != NO_PORT);
            }
        }
        _ => return false,
    }
    true
}

fn port(field: &Field<'_>, report: &mut Report) -> Option<Port> {
    let number = field.integer(report)?;
    field.port(report, number)
}

/// A leading slash, no trailing one, none doubled.
pub(super) fn base_path(path: &str) -> String {
    let mut base = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        base.push('/');
        base.push_str(part);
    }
    base
}

//! Files that tell scripts where the server is.

use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// Writes the process id, its digits and nothing else.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    std::fs::write(path, std::process::id().to_string())
}

/// The addresses the server really listens on, as `scheme://host:port`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ports {
    /// For clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nats: Vec<String>,
    /// For monitoring.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitoring: Vec<String>,
    /// For WebSocket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub websocket: Vec<String>,
}

/// The ports file; removed when this is dropped.
#[derive(Debug)]
pub struct PortsFile {
    path: PathBuf,
}

impl PortsFile {
    /// Writes `<directory>/<program>_<pid>.ports` under another name first, so that nobody reads half of it.
    pub fn write(directory: &Path, ports: &Ports) -> io::Result<Self> {
        let program = std::env::current_exe()
            .ok()
            .and_then(|path| {
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            })
            .unwrap_or_else(|| "nats-server".into());
        let path = directory.join(format!("{program}_{}.ports", std::process::id()));
        let unfinished = path.with_extension("ports.new");
        std::fs::write(&unfinished, serde_json::to_vec(ports)?)?;
        std::fs::rename(&unfinished, &path)?;
        Ok(PortsFile { path })
    }
}

impl Drop for PortsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Addresses that a listener can be reached at: its own, or each of the machine's when it listens on all of them.
pub fn reachable_hosts(host: &str) -> Vec<String> {
    match host {
        "0.0.0.0" | "::" | "" => {
            let mut hosts = interface_addresses();
            if hosts.is_empty() {
                hosts.push("127.0.0.1".into());
            }
            hosts
        }
        host => vec![host.to_owned()],
    }
}

/// The IPv4 addresses of this machine's interfaces, as far as the kernel's local routing table names them.
/// By way of `self`: where only processes are shown in `/proc`, as to a hardened unit, there is nothing else.
fn interface_addresses() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    let mut addresses = Vec::new();
    let mut last = None;
    for line in table.lines() {
        let line = line.trim_start();
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<std::net::Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last.take()
        {
            let address = address.to_string();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_digits_and_no_new_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        write_pid_file(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            std::process::id().to_string()
        );
    }

    #[test]
    fn a_ports_file_names_the_process_and_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports {
            nats: vec!["nats://127.0.0.1:4222".into()],
            ..Ports::default()
        };
        let file = PortsFile::write(directory.path(), &ports).unwrap();
        let name = file
            .path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert!(name.ends_with(&format!("_{}.ports", std::process::id())));
        assert_eq!(
            std::fs::read_to_string(&file.path).unwrap(),
            r#"{"nats":["nats://127.0.0.1:4222"]}"#
        );
        drop(file);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

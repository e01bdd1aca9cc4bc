//! `--signal <name>[=<pid>]`: the operator's side of [`super::signals`].

use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

/// Why no signal was sent.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// No such signal.
    #[error("unknown signal {0:?}")]
    Unknown(String),
    /// Neither a process id nor a file with one.
    #[error("invalid pid: {0}")]
    InvalidPid(String),
    /// No process to send it to.
    #[error("no nats-server processes running")]
    NoProcess,
    /// Too many, and none was named.
    #[error("multiple nats-server processes running:\n{0}")]
    SeveralProcesses(String),
    /// The system refused.
    #[error("unable to signal process {pid}: {source}")]
    Refused {
        /// The process.
        pid: i32,
        /// What the system said.
        source: rustix::io::Errno,
    },
}

/// Sends a signal as `--signal` names it.
pub fn send_signal(request: &str) -> Result<(), SignalError> {
    let (name, target) = request.split_once('=').unwrap_or((request, ""));
    let signal = signal(name).ok_or_else(|| SignalError::Unknown(name.to_owned()))?;
    for pid in targets(target)? {
        let refused = |source| SignalError::Refused { pid, source };
        let process = Pid::from_raw(pid).ok_or_else(|| SignalError::InvalidPid(pid.to_string()))?;
        kill_process(process, signal).map_err(refused)?;
    }
    Ok(())
}

fn signal(name: &str) -> Option<Signal> {
    Some(match name {
        "stop" => Signal::KILL,
        "quit" => Signal::INT,
        "term" => Signal::TERM,
        "reopen" => Signal::USR1,
        "ldm" => Signal::USR2,
        "reload" => Signal::HUP,
        _ => return None,
    })
}

/// The processes meant: an id, the beginning of ids and `*`, a pid file, or the only server that runs.
fn targets(target: &str) -> Result<Vec<i32>, SignalError> {
    if let Ok(pid) = target.parse::<i32>() {
        return match pid > 0 {
            true => Ok(vec![pid]),
            false => Err(SignalError::InvalidPid(target.to_owned())),
        };
    }
    if target.is_empty() || target.ends_with('*') {
        let prefix = target.trim_end_matches('*');
        let running = running_servers();
        let meant: Vec<i32> = running
            .into_iter()
            .filter(|pid| pid.to_string().starts_with(prefix))
            .collect();
        return match meant.as_slice() {
            [] => Err(SignalError::NoProcess),
            [_, _, ..] if target.is_empty() => {
                let list: Vec<String> = meant.iter().map(i32::to_string).collect();
                Err(SignalError::SeveralProcesses(list.join("\n")))
            }
            _ => Ok(meant),
        };
    }
    let text = std::fs::read_to_string(Path::new(target))
        .map_err(|_| SignalError::InvalidPid(target.to_owned()))?;
    match text.trim().parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(vec![pid]),
        _ => Err(SignalError::InvalidPid(target.to_owned())),
    }
}

/// Processes of the same program name, this one left out.
fn running_servers() -> Vec<i32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            (pid != own && name.trim() == "nats-server").then(|| i32::try_from(pid).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_only_where_they_are_meant_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "4711\n").unwrap();
        assert_eq!(targets("123").unwrap(), [123]);
        assert_eq!(targets(path.to_str().unwrap()).unwrap(), [4711]);
        for target in ["0", "-1", "nothing", "/nowhere"] {
            assert!(
                matches!(targets(target), Err(SignalError::InvalidPid(_))),
                "{target}"
            );
        }
        std::fs::write(&path, "-1").unwrap();
        assert!(targets(path.to_str().unwrap()).is_err());
        assert!(matches!(
            send_signal("nonsense=1"),
            Err(SignalError::Unknown(_))
        ));
    }
}

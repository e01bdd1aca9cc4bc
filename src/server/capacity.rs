//! What the machine has, for limits that nobody set.

use crate::config::options::StoreLimit;
use std::path::Path;

/// The share of what is there that streams may take.
const SHARE_NUMERATOR: u64 = 3;
const SHARE_DENOMINATOR: u64 = 4;
/// Disk for streams when the disk cannot be asked.
const DISK_BYTES_UNKNOWN: u64 = 1 << 40;

/// Bytes of memory that streams may take.
pub fn memory_bytes(limit: StoreLimit) -> u64 {
    match limit {
        StoreLimit::Bytes(bytes) => bytes,
        StoreLimit::Dynamic => share(memory_total()),
    }
}

/// Bytes of disk that streams below `directory` may take.
pub fn disk_bytes(limit: StoreLimit, directory: &Path) -> u64 {
    match limit {
        StoreLimit::Bytes(bytes) => bytes,
        StoreLimit::Dynamic => disk_free(directory).map_or(DISK_BYTES_UNKNOWN, share),
    }
}

fn share(bytes: u64) -> u64 {
    bytes / SHARE_DENOMINATOR * SHARE_NUMERATOR
}

/// The machine's memory, or what a control group leaves of it.
pub fn memory_total() -> u64 {
    let system = rustix::system::sysinfo();
    let unit = u64::from(system.mem_unit.max(1));
    let machine = (system.totalram as u64).saturating_mul(unit);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX);
    machine.min(group)
}

fn disk_free(directory: &Path) -> Option<u64> {
    let mut existing = directory;
    while !existing.exists() {
        existing = existing.parent()?;
    }
    let existing = match existing.as_os_str().is_empty() {
        true => Path::new("."),
        false => existing,
    };
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Lets this process open as many files and sockets as the system allows it.
pub fn raise_open_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_limited_is_a_share_of_the_machine() {
        assert_eq!(memory_bytes(StoreLimit::Bytes(5)), 5);
        assert!(memory_bytes(StoreLimit::Dynamic) > 0);
        assert!(disk_bytes(StoreLimit::Dynamic, Path::new("/nowhere/at/all")) > 0);
    }
}

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

/// Bytes for people: `64.00 MB`.
pub fn readable_bytes(bytes: u64) -> String {
    let units = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = ((bytes.ilog2() / 10) as usize).min(units.len());
    let unit = units.get(power - 1).copied().unwrap_or("E");
    format!("{:.2} {unit}B", bytes as f64 / 1024f64.powi(power as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KB"),
            (64 << 20, "64.00 MB"),
            (3 << 39, "1.50 TB"),
            (u64::MAX, "16.00 EB"),
        ] {
            assert_eq!(readable_bytes(bytes), text);
        }
    }

    #[test]
    fn what_nobody_limited_is_a_share_of_the_machine() {
        assert_eq!(memory_bytes(StoreLimit::Bytes(5)), 5);
        assert!(memory_bytes(StoreLimit::Dynamic) > 0);
        assert!(disk_bytes(StoreLimit::Dynamic, Path::new("/nowhere/at/all")) > 0);
    }
}

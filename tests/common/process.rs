//! What the process of a server holds, as Linux shows it.

use super::Server;

/// Bytes of its memory that are in RAM.
pub fn resident_bytes(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process_id());
    let status = std::fs::read_to_string(path).expect("the server is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.expect("the kernel tells") * 1024
}

/// How many descriptors it has open.
pub fn open_descriptors(server: &Server) -> usize {
    let path = format!("/proc/{}/fd", server.process_id());
    std::fs::read_dir(path)
        .expect("the server is running")
        .count()
}

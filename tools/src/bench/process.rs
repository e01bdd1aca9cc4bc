//! The processor time and memory of a server on this machine.

use std::time::Duration;

use anyhow::{Context, Result};

/// What the kernel counts processor time in, everywhere that this runs.
const TICKS_PER_SECOND: u64 = 100;

/// A process.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// A process that can be looked at.
    pub fn new(id: u32) -> Result<Self> {
        let process = Self(id);
        process.processor_time()?;
        Ok(process)
    }

    /// What all its threads have used so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.0);
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let ticks = ticks(&text).with_context(|| format!("{path} makes no sense"))?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The memory that it occupies now.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.0);
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        resident(&text).with_context(|| format!("{path} makes no sense"))
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// User and system time; the name in front may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_mislead() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 5 0 0 0 12 30 0 0 20 0";
        assert_eq!(ticks(stat), Some(42));
        assert!(Process::new(std::process::id()).is_ok());
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(resident("VmHWM:\t 9 kB\nVmRSS:\t  12 kB\n"), Some(12_288));
        assert_eq!(resident("VmRSS:\n"), None);
        let own = Process::new(std::process::id()).unwrap();
        assert!(own.resident_bytes().unwrap() > 0);
    }
}

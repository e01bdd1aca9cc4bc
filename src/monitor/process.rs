//! What the process uses, asked of the system.

use parking_lot::Mutex;
use std::time::Instant;

/// Bytes of memory that are resident.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Memory of the process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is resident.
    pub resident: u64,
    /// Of that, what belongs to no file.
    pub anonymous: u64,
}

/// The memory that the process holds.
pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or(0)
    };
    Memory {
        resident: kibibytes("VmRSS:") * 1024,
        anonymous: kibibytes("RssAnon:") * 1024,
    }
}

/// A thread of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it does: `R` runs, `S` sleeps, `D` waits for a disk.
    pub state: char,
    /// Clock ticks of a processor that it has used.
    pub ticks: u64,
    /// Where in the kernel it waits; empty where that is not told.
    pub waits_in: String,
}

/// All threads of the process.
pub fn threads() -> Vec<Thread> {
    let entries = std::fs::read_dir("/proc/self/task").ok();
    let mut threads: Vec<Thread> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| thread(&entry.ok()?.path()))
        .collect();
    threads.sort_by_key(|thread| thread.id);
    threads
}

fn thread(folder: &std::path::Path) -> Option<Thread> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    let (id, _) = stat.split_once(' ')?;
    let (before, fields) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let waits_in = std::fs::read_to_string(folder.join("wchan")).unwrap_or_default();
    Some(Thread {
        id: id.parse().ok()?,
        name: name.to_owned(),
        state: fields.trim_start().chars().next()?,
        ticks: used_ticks(fields),
        waits_in: match waits_in.trim() {
            "0" => String::new(),
            place => place.to_owned(),
        },
    })
}

/// The files, sockets and other descriptors of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Open ones.
    pub open: u64,
    /// How many may be open.
    pub max: u64,
}

/// How many descriptors are open, and may be.
pub fn descriptors() -> Descriptors {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Descriptors {
        // Looking takes one of its own.
        open: (open as u64).saturating_sub(1),
        max: limit.current.unwrap_or(u64::MAX),
    }
}

/// Seconds of a processor that the process has used.
pub fn processor_seconds() -> f64 {
    processor_ticks() as f64 / ticks_per_second()
}

/// Measures the share of a processor that the process uses, in percent, since it was asked before.
#[derive(Debug)]
pub struct ProcessorMeter {
    last: Mutex<Reading>,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    ticks: u64,
    percent: f64,
}

/// Asked again sooner than this, the meter repeats itself: clock ticks are coarse.
const INTERVAL_MIN_MS: u128 = 200;

impl ProcessorMeter {
    /// A meter that starts now.
    pub fn new() -> Self {
        let last = Reading {
            at: Instant::now(),
            ticks: processor_ticks(),
            percent: 0.0,
        };
        ProcessorMeter {
            last: Mutex::new(last),
        }
    }

    /// Percent of one processor.
    pub fn percent(&self) -> f64 {
        let mut last = self.last.lock();
        let elapsed = last.at.elapsed();
        if elapsed.as_millis() < INTERVAL_MIN_MS {
            return last.percent;
        }
        let ticks = processor_ticks();
        let seconds = ticks.saturating_sub(last.ticks) as f64 / ticks_per_second();
        let percent = (seconds / elapsed.as_secs_f64() * 1000.0).round() / 10.0;
        *last = Reading {
            at: Instant::now(),
            ticks,
            percent,
        };
        percent
    }
}

impl Default for ProcessorMeter {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn ticks_per_second() -> f64 {
    (rustix::param::clock_ticks_per_second() as f64).max(1.0)
}

/// Ticks in user and kernel mode; the fields stand behind the program's name, which may hold anything.
fn processor_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some((_, fields)) = text.rsplit_once(')') else {
        return 0;
    };
    used_ticks(fields)
}

/// Of the fields behind the name.
fn used_ticks(fields: &str) -> u64 {
    let ticks = |field: usize| -> u64 {
        fields
            .split_whitespace()
            .nth(field)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0)
    };
    ticks(11) + ticks(12)
}

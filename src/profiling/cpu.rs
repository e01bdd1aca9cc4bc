//! Taking samples of what uses the processors.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::profile::{Mapping, Sampling, Stack, encode};
use super::sampler::Sampler;

/// Samples in a second of processor time. Go's profiler takes as many.
pub const SAMPLES_PER_SECOND: u32 = 100;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Somebody else takes one.
    #[error("Failed to start CPU profile: cpu profiling already in use")]
    InUse,
    /// The system does not let us.
    #[error("Failed to start CPU profile: {0}")]
    Start(io::Error),
    /// The profile cannot be written down.
    #[error("CPU profile: {0}")]
    Encode(#[from] io::Error),
}

/// There is one timer and one signal for the whole process.
static IN_USE: Mutex<()> = Mutex::new(());

/// Takes samples for so long, and tells them. Blocks the thread meanwhile.
pub fn cpu_profile(duration: Duration) -> Result<Vec<u8>, ProfileError> {
    let _alone = IN_USE.try_lock().ok_or(ProfileError::InUse)?;
    let mappings = mappings();
    let (started, clock) = (SystemTime::now(), Instant::now());
    let period = Duration::from_secs(1) / SAMPLES_PER_SECOND;
    let sampler = Sampler::start(period, duration).map_err(ProfileError::Start)?;
    std::thread::sleep(duration);
    let samples = sampler.stop();
    let sampling = Sampling {
        started,
        duration: clock.elapsed(),
        period,
    };
    let stacks: Vec<Stack> = samples
        .into_iter()
        .map(|sample| Stack {
            thread: thread_name(sample.thread),
            addresses: sample.addresses,
            count: 1,
        })
        .collect();
    Ok(encode(&stacks, &mappings, &sampling)?)
}

/// The name of a thread; its number when it is gone.
fn thread_name(id: i32) -> Arc<str> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
    match name {
        Ok(name) => name.trim_end().into(),
        Err(_) => id.to_string().into(),
    }
}

/// The files that the process runs code of, and where: with them, `pprof` finds the names of functions in the files.
fn mappings() -> Vec<Mapping> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

/// `start-end permissions offset device inode path`
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let offset = words.next()?;
    let path = words.nth(2).filter(|_| permissions.contains('x'))?;
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        file: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[inline(never)]
    fn spin_until(stop: &AtomicBool) -> u64 {
        let mut sum = 0u64;
        while !stop.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        sum
    }

    #[test]
    fn a_busy_thread_is_found_with_where_it_was_called_from() {
        let stop = AtomicBool::new(false);
        let samples = std::thread::scope(|scope| {
            let busy = std::thread::Builder::new().name("busy-one".into());
            busy.spawn_scoped(scope, || spin_until(&stop)).unwrap();
            let _alone = IN_USE.lock();
            let sampler = Sampler::start(Duration::from_millis(5), Duration::from_secs(1)).unwrap();
            std::thread::sleep(Duration::from_secs(1));
            let samples = sampler.stop();
            stop.store(true, Ordering::Relaxed);
            samples
        });
        // The function's own addresses are above its beginning and not far from it; its callers are behind it.
        let begin = spin_until as *const () as u64;
        let within = |address: &u64| (begin..begin + 4096).contains(address);
        let found = samples.iter().filter(|sample| {
            sample.addresses.first().is_some_and(within) && sample.addresses.len() > 2
        });
        assert!(found.count() > 5, "{} samples", samples.len());
    }

    #[test]
    fn only_one_takes_samples_at_a_time_and_the_profile_is_packed() {
        let first = IN_USE.lock();
        assert!(matches!(
            cpu_profile(Duration::from_millis(1)),
            Err(ProfileError::InUse)
        ));
        drop(first);
        let packed = loop {
            match cpu_profile(Duration::from_millis(20)) {
                Err(ProfileError::InUse) => std::thread::yield_now(),
                taken => break taken.unwrap(),
            }
        };
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut plain)
            .unwrap();
        let name = b"nanoseconds";
        assert!(plain.windows(name.len()).any(|window| window == name));
    }

    #[test]
    fn code_is_mapped_from_files() {
        let line = "55d0a2c00000-55d0a2e5d000 r-xp 00123000 08:01 131 /usr/sbin/nats-server";
        let found = mapping(line).unwrap();
        assert_eq!((found.start, found.offset), (0x55d0_a2c0_0000, 0x12_3000));
        assert_eq!(found.file, "/usr/sbin/nats-server");
        assert_eq!(mapping("1000-2000 rw-p 0 08:01 131 /data"), None);
        assert_eq!(mapping("1000-2000 r-xp 0 00:00 0"), None);
        assert_eq!(mapping("nonsense"), None);
        assert!(!mappings().is_empty());
    }
}

//! Ends a run in which simulated time stands still, and says which: it would go on for ever, and take all memory with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::ENDED;
use super::run::Museum;

/// How often simulated time is noted, by itself.
const TICK: Duration = Duration::from_millis(50);
/// How much work without such a note is too much. Between two there is hardly any.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same when it is known how it ends.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Looks on as long as it is held.
pub(super) struct Watchdog {
    _ticks: Arc<AtomicU64>,
}

/// What this process has worked so far. Other than the time of day it does not pass faster on a machine that does something else.
fn worked() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or_default(),
        u32::try_from(spent.tv_nsec).unwrap_or_default(),
    )
}

impl Watchdog {
    /// To be called in the run.
    pub(super) fn start(seed: u64, museum: Museum) -> Self {
        let ticks = Arc::new(AtomicU64::new(0));
        let noted = Arc::downgrade(&ticks);
        let begun = Instant::now();
        tokio::spawn(async move {
            while let Some(ticks) = noted.upgrade() {
                ticks.store(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                drop(ticks);
                tokio::time::sleep(TICK).await;
            }
        });
        let patience = match museum {
            Museum::StandsStill => SHORT_PATIENCE,
            _ => PATIENCE,
        };
        let watched = Arc::downgrade(&ticks);
        std::thread::spawn(move || {
            let mut last = (0, worked());
            while let Some(ticks) = watched.upgrade() {
                let now = (ticks.load(Ordering::Relaxed), worked());
                drop(ticks);
                if now.0 != last.0 {
                    last = now;
                } else if now.1.saturating_sub(last.1) > patience {
                    println!("\n{ENDED}no seed {seed} stands still at {} ms", now.0);
                    std::process::exit(1);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { _ticks: ticks }
    }
}

//! Whole clusters in one process, from a seed: what the simulations of this crate and of the server share.
//!
//! - `entropy`: what libraries draw by themselves, seeded.
//! - `network`: carries frames between servers, except where it is cut, and as late as its weather says.
//!
//! One run is one thread with a paused clock: the same seed gives the same run.

mod entropy;
mod network;

use std::future::Future;

pub use entropy::seed_this_thread as seed_entropy_of_this_thread;
pub use network::{Link, Network, Weather};

/// Runs a simulation on a thread of its own, where time, the order of tasks and every random choice follow from `seed`. `Err` is a panic's message.
pub fn run_seeded<T, F>(seed: u64, make: impl FnOnce() -> F + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let running = thread.spawn(move || {
        entropy::seed_this_thread(seed);
        crate::runtime::seed_this_thread(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime
            .map_err(|error| error.to_string())
            .map(|runtime| runtime.block_on(make()))
    });
    let running = running.map_err(|error| error.to_string())?;
    running.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

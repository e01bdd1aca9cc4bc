//! A whole group in one process, its disks, network and clock from one seed: first everything goes wrong, then everything is healed.
//!
//! - `entropy`: what libraries draw by themselves, seeded.
//! - `run`: the servers, what happens to them, and what is checked on the way.
//!
//! One run is one thread with a paused clock: the same seed gives the same run.

pub mod entropy;
pub mod run;

use run::{Found, Museum, Run};

/// Runs one seed on a thread of its own. `Err` says which promise was broken.
pub fn simulate(seed: u64, museum: Museum) -> Result<Run, Found> {
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let simulating = thread.spawn(move || {
        entropy::seed_this_thread(seed);
        raft::runtime::seed_this_thread(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime starts");
        let local = run::run(seed, museum);
        runtime.block_on(local)
    });
    let simulating = simulating.expect("a thread starts");
    match simulating.join() {
        Ok(ended) => ended,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Found(text.unwrap_or_else(|| "a panic".to_owned())))
        }
    }
}

//! A whole group in one process, its disks, network and clock from one seed: first everything goes wrong, then everything is healed.
//!
//! - `run`: the servers, what happens to them, and what is checked on the way.

pub mod run;

use run::{Found, Museum, Run};

/// Runs one seed. `Err` says which promise was broken.
pub fn simulate(seed: u64, museum: Museum) -> Result<Run, Found> {
    let ended = raft::simulation::run_seeded(seed, move || run::run(seed, museum));
    ended.map_err(Found).and_then(|run| run)
}

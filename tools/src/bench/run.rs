//! Runs in turns, and what came of one.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::latency::Latencies;
use super::process::Process;
use super::{Server, Targets};

/// What came of one run.
#[derive(Debug, Clone)]
pub struct Run {
    pub operations: u64,
    pub took: Duration,
    pub latencies: Latencies,
    /// What the server's process used meanwhile.
    pub server: Option<Duration>,
}

impl Run {
    /// Does what is measured, and looks at the server's process before and after.
    pub fn of(
        process: Option<Process>,
        work: impl FnOnce() -> Result<(u64, Latencies)>,
    ) -> Result<Self> {
        let used = || process.map(|process| process.processor_time()).transpose();
        let before = used()?;
        let begun = Instant::now();
        let (operations, latencies) = work()?;
        let took = begun.elapsed();
        let server = before.zip(used()?);
        Ok(Self {
            operations,
            took,
            latencies,
            server: server.map(|(before, after)| after.saturating_sub(before)),
        })
    }

    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }

    /// Nanoseconds of the server's processor time for each operation.
    pub fn server_nanos(&self) -> Option<f64> {
        let used = self.server?.as_nanos() as f64;
        Some(used / self.operations.max(1) as f64)
    }
}

/// Measures every server as often as asked for, one after another in each round; the runs of each server.
pub fn in_turns<R>(
    targets: &Targets,
    mut measure: impl FnMut(&Server, usize) -> Result<R>,
) -> Result<Vec<Vec<R>>> {
    let mut runs: Vec<Vec<R>> = targets.servers.iter().map(|_| Vec::new()).collect();
    for round in 0..targets.rounds.max(1) {
        for (server, runs) in targets.servers.iter().zip(&mut runs) {
            runs.push(measure(server, round)?);
        }
    }
    Ok(runs)
}

/// Runs every piece of work on a thread of its own and waits for all of them.
pub fn together<T: Send>(
    works: impl IntoIterator<Item = impl FnOnce() -> Result<T> + Send>,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = works.into_iter().map(|work| scope.spawn(work)).collect();
        let results: Vec<Result<T>> = threads
            .into_iter()
            .map(|thread| {
                let panicked = |_| Err(anyhow!("a client's thread panicked"));
                thread.join().unwrap_or_else(panicked)
            })
            .collect();
        results.into_iter().collect()
    })
}

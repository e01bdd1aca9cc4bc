//! Gives memory back to the system that a burst of work needed and that is free again.
//!
//! The allocator gives pages back only on the way of other allocations, and keeps for each thread what was freed of its own: a server that falls quiet after a recovery or a
//! burst would keep them all. So each thread collects its own when it rests. Threads that wait by `storage::rest` know when they do; the workers of the runtime do not, and are
//! told when the whole process has fallen quiet. While there is work nobody does: what is given back then is only taken anew.

use tokio::runtime::Handle;

/// Has the runtime's workers and all other threads see to it from now on.
#[cfg(feature = "mimalloc")]
pub fn give_back_what_is_idle(runtime: Handle) {
    storage::rest::when_at_rest(collect);
    let thread = std::thread::Builder::new().name("memory".to_owned());
    if let Err(error) = thread.spawn(move || tend(&runtime)) {
        tracing::warn!("Memory that is idle stays with the server: {error}");
    }
}

/// The system's allocator does it by itself.
#[cfg(not(feature = "mimalloc"))]
pub fn give_back_what_is_idle(_runtime: Handle) {}

/// Gives back what is free of this thread's memory, and of what no thread has.
#[cfg(feature = "mimalloc")]
fn collect() {
    // SAFETY: it may be called from any thread at any time, and takes no pointers.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(feature = "mimalloc")]
fn tend(runtime: &Handle) {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// How often is looked.
    const INTERVAL: Duration = Duration::from_secs(1);
    /// A process that takes less processor time than this in that time is quiet.
    const QUIET: Duration = Duration::from_millis(50);
    /// How long a worker is held, so that the next task of its kind comes to another one.
    const HELD: Duration = Duration::from_millis(1);

    let spent = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let mut was_busy = true;
    let mut before = spent();
    loop {
        std::thread::sleep(INTERVAL);
        let now = spent();
        let is_busy = now.saturating_sub(before) >= QUIET;
        before = now;
        if was_busy && !is_busy {
            for _ in 0..runtime.metrics().num_workers() {
                runtime.spawn(async {
                    collect();
                    std::thread::sleep(HELD);
                });
            }
        }
        was_busy = is_busy;
        // What no thread has, such as memory of threads that have ended.
        collect();
    }
}

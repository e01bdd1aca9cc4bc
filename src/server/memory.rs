//! Gives memory back to the system that a burst of work needed and that is free again.

/// How long memory may lie idle.
#[cfg(feature = "mimalloc")]
const IDLE: std::time::Duration = std::time::Duration::from_secs(1);

/// Has a thread see to it from now on. The allocator gives pages back only on the way of other allocations: a server that falls quiet after a recovery or a burst
/// would keep them all. Doing it here costs the hot paths nothing.
#[cfg(feature = "mimalloc")]
pub fn give_back_what_is_idle() {
    let tend = || loop {
        std::thread::sleep(IDLE);
        // SAFETY: it may be called from any thread at any time, and takes no pointers.
        unsafe { libmimalloc_sys::mi_collect(true) };
    };
    let thread = std::thread::Builder::new().name("memory".to_owned());
    if let Err(error) = thread.spawn(tend) {
        tracing::warn!("Memory that is idle stays with the server: {error}");
    }
}

/// The system's allocator does it by itself.
#[cfg(not(feature = "mimalloc"))]
pub fn give_back_what_is_idle() {}

//! Threads that have worked and have nothing to do any more.
//!
//! An allocator keeps for each thread what it has freed, and what others have freed of its memory, until it allocates again. One that falls quiet after a burst of work keeps
//! all of that. Here it hears of its rest, once, and can give it back.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::{Condvar, MutexGuard};

/// How long a thread has nothing to do before it is at rest.
const REST_AFTER: Duration = Duration::from_secs(1);

static HOOK: OnceLock<fn()> = OnceLock::new();

/// What every thread of this crate, and others that wait by [`Rest`], call when they have worked and are at rest. Set once per process; a second call does nothing.
pub fn when_at_rest(hook: fn()) {
    let _ = HOOK.set(hook);
}

/// How one thread waits for work.
#[derive(Debug)]
pub struct Rest {
    has_worked: bool,
}

impl Default for Rest {
    /// Of a thread that begins with work.
    fn default() -> Self {
        Self { has_worked: true }
    }
}

impl Rest {
    /// Waits until it is woken, or `at_most` so long; or shorter, when it is at rest meanwhile. Whoever waits looks whether there is something to do, and waits again.
    pub fn wait<T>(
        &mut self,
        condvar: &Condvar,
        guard: &mut MutexGuard<'_, T>,
        at_most: Option<Duration>,
    ) {
        let hook = HOOK.get().filter(|_| self.has_worked);
        let is_longer = at_most.is_none_or(|at_most| at_most > REST_AFTER);
        if let Some(hook) = hook.filter(|_| is_longer) {
            if condvar.wait_for(guard, REST_AFTER).timed_out() {
                self.has_worked = false;
                MutexGuard::unlocked(guard, hook);
            }
            return;
        }
        match at_most {
            None => condvar.wait(guard),
            Some(at_most) => {
                if condvar.wait_for(guard, at_most).timed_out() {
                    return;
                }
            }
        }
        self.has_worked = true;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    thread_local! {
        static RESTS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_thread_hears_once_of_each_time_that_it_rests_after_work() {
        when_at_rest(|| RESTS.set(RESTS.get() + 1));
        let place = Arc::new((Mutex::new(0), Condvar::new()));
        let theirs = Arc::clone(&place);
        let worker = std::thread::spawn(move || {
            let mut rest = Rest::default();
            let mut work = theirs.0.lock();
            while rest.has_worked {
                rest.wait(&theirs.1, &mut work, None);
            }
            assert_eq!(RESTS.get(), 1);
            // It is asked to work only now.
            *work = 1;
            theirs.1.notify_one();
            while *work < 2 {
                rest.wait(&theirs.1, &mut work, None);
            }
            assert!(rest.has_worked);
            while rest.has_worked {
                rest.wait(&theirs.1, &mut work, None);
            }
            assert_eq!(RESTS.get(), 2);
        });
        let mut work = place.0.lock();
        while *work < 1 {
            place.1.wait(&mut work);
        }
        *work = 2;
        drop(work);
        place.1.notify_all();
        worker.join().expect("it rests");
    }
}

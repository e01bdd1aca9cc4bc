//! Where work goes that nobody waits for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::rest::Rest;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs, some time.
pub trait Executor: Send + Sync + 'static {
    /// Takes a job. It runs once, in no promised order.
    fn spawn(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs each job at once on the caller's thread, so that a simulation repeats itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineExecutor;

impl Executor for InlineExecutor {
    fn spawn(&self, job: Job) {
        job();
    }
}

/// A few threads that take jobs from one queue. Dropping it runs what is queued and ends them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl ThreadPool {
    /// Starts `threads` threads called `name`. A thread that the system refuses is done without; with none at all jobs run inline.
    pub fn new(name: &str, threads: usize) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            thread.spawn(move || shared.run()).ok()
        };
        let threads = (0..threads).filter_map(start).collect();
        Self { shared, threads }
    }
}

impl Executor for ThreadPool {
    fn spawn(&self, job: Job) {
        if self.threads.is_empty() {
            return job();
        }
        self.shared.queue.lock().jobs.push_back(job);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        let mut rest = Rest::default();
        loop {
            let mut queue = self.queue.lock();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if queue.closed => return,
                    None => rest.wait(&self.wake, &mut queue, None),
                }
            };
            drop(queue);
            job();
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
        let here = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job: a thread cannot wait for itself.
            if thread.thread().id() != here {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_pool_runs_every_job_before_it_is_gone() {
        let count = Arc::new(AtomicUsize::new(0));
        let pool = ThreadPool::new("test", 2);
        for _ in 0..100 {
            let count = Arc::clone(&count);
            pool.spawn(Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }));
        }
        drop(pool);
        assert_eq!(count.load(Ordering::Relaxed), 100);
    }
}

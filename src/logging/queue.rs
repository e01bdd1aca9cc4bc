//! A log that may be slow to take lines: a thread hands them over, and whoever logs does not wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use super::line::Tag;
use super::syslog::Syslog;

/// Lines that may wait; more are dropped and counted.
const LINES_MAX: usize = 4096;

enum Item {
    Line(SystemTime, Tag, String),
    /// Told when all that came before has been handed over.
    Flush(SyncSender<()>),
}

/// The lines that wait for a system's log. When this is dropped, those that wait are still handed over.
#[derive(Debug)]
pub struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Starts the thread.
    pub fn start(log: Syslog) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = std::thread::Builder::new().name("syslog".into());
        thread.spawn(move || hand_over(log, &receiver, &counted))?;
        Ok(Self { sender, dropped })
    }

    /// Lets a line wait, as long as there is room.
    pub fn push(&self, now: SystemTime, tag: Tag, line: String) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Item::Line(now, tag, line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, no longer than so, until all lines have been handed over.
    pub fn flush(&self, at_most: Duration) {
        let (done, is_done) = sync_channel(1);
        // A full queue is one whose log takes nothing: there is nothing to wait for.
        if self.sender.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(at_most);
        }
    }
}

fn hand_over(mut log: Syslog, receiver: &Receiver<Item>, dropped: &AtomicU64) {
    for item in receiver {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} lines were dropped: the log did not take them in time");
            log.write(SystemTime::now(), Tag::Warning, &text);
        }
        match item {
            Item::Line(now, tag, line) => log.write(now, tag, &line),
            // Nobody waits any more when this fails.
            Item::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::syslog::Place;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::time::Instant;

    #[test]
    fn whoever_logs_does_not_wait_for_a_log_that_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let log = Syslog::open(Place::parse(&address).unwrap()).unwrap();
        let queue = Queue::start(log).unwrap();
        // Far more than sockets hold, and nobody reads.
        let began = Instant::now();
        let text = "x".repeat(8000);
        for _ in 0..LINES_MAX * 3 {
            queue.push(SystemTime::now(), Tag::Info, text.clone());
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{began:?}");
        assert!(queue.dropped.load(Ordering::Relaxed) > 0);
        // Now somebody reads, and is told that lines are missing.
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("lines were dropped")));
    }

    #[test]
    fn what_waits_is_handed_over_before_the_end() {
        let listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("udp://{}", listener.local_addr().unwrap());
        let log = Syslog::open(Place::parse(&address).unwrap()).unwrap();
        let queue = Queue::start(log).unwrap();
        queue.push(SystemTime::now(), Tag::Fatal, "the last words".into());
        queue.flush(Duration::from_secs(20));
        listener.set_nonblocking(true).unwrap();
        let mut heard = [0; 512];
        let length = listener.recv(&mut heard).unwrap();
        assert!(String::from_utf8_lossy(&heard[..length]).contains("the last words"));
    }
}

//! `/stacksz`: what the threads do. Go can write down the stacks of all its goroutines; here a debugger, or a profile, shows stacks,
//! and this page who there is and what each waits for.

use std::fmt::Write;

use axum::http::StatusCode;
use axum::response::Response;

use super::answer::plain;
use super::process::{threads, ticks_per_second};

/// Answers over HTTP.
pub fn answer() -> Response {
    plain(StatusCode::OK, text())
}

/// One line for each thread.
pub fn text() -> String {
    let mut text = String::from("thread        state  processor  name             waits in\n");
    for thread in threads() {
        let seconds = thread.ticks as f64 / ticks_per_second();
        let _ = writeln!(
            text,
            "{:<12}  {:<5}  {seconds:>8.2}s  {:<15}  {}",
            thread.id, thread.state, thread.name, thread.waits_in
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_thread_is_named() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::Builder::new()
            .name("waits-for-you".into())
            .spawn(move || {
                // A thread takes its name when it begins.
                let _ = begun.send(());
                receiver.recv()
            });
        let _ = has_begun.recv();
        let text = super::text();
        let line = text.lines().find(|line| line.contains("waits-for-you"));
        assert!(line.is_some(), "{text}");
        drop(sender);
        let _ = waiting.unwrap().join();
    }
}

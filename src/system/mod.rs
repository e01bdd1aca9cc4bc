//! The system account: the server's own events, and what it answers when it is asked about itself over the protocol.
//!
//! Read in this order: [`envelope`] is what every message from here says about the server, [`events`] are the messages that
//! tell what happened, [`statsz`] the figures that are sent again and again, [`question`] what may be asked and [`requests`] the answers, which [`compress`] makes smaller for those who want that,
//! [`trace`] the reports on traced messages, [`profile`] is the one that takes long, [`user`] and [`subscribers`] are what clients of every account may ask, [`service`] the thread that does it all, and [`spoken`] shows in the log what it says.
//!
//! # Invariant
//! This is an edge: it subscribes and publishes as any client of the system account could, and reaches the server through
//! [`crate::monitor::observed::Observed`] only, and what it may have done there through [`Operator`]. Nothing waits for it: what does not fit into its queue is dropped and
//! counted.

mod compress;
mod envelope;
mod events;
mod profile;
mod question;
mod requests;
mod service;
mod spoken;
mod statsz;
mod subscribers;
#[cfg(test)]
mod tests;
mod trace;
mod user;

pub use service::{Operator, StartError, System};

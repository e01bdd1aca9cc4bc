//! Where the processors' time goes: samples of what all threads do, as a profile that `pprof` reads.
//!
//! [`cpu`] takes a profile by way of `sampler`, [`profile`] is the form they are told in, [`endpoints`] hands them out over HTTP.
//!
//! # Invariant
//! Nothing happens here until somebody asks. While samples are taken, a timer interrupts whatever thread runs, at most
//! [`cpu::SAMPLES_PER_SECOND`] times a second of processor time.

pub mod cpu;
pub mod endpoints;
pub mod profile;
mod sampler;

pub use cpu::{ProfileError, cpu_profile};
pub use endpoints::router;

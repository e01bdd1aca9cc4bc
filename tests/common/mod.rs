//! What the black-box tests share: the real binary as a child process, clients and waiting.
//!
//! Every test here drives the server through its sockets, its signals and its log, as operators do. Set
//! `NATS_SERVER_UNDER_TEST` to the path of another server binary to run the same tests against it.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part of what is shared"
)]

mod authority;
mod client;
mod http;
mod ports;
mod process;
mod server;
mod trio;
mod wait;
mod wire;

pub use authority::Authority;
pub use client::{connect_as, next_subject, round_trip};
pub use http::{HttpAnswer, http_get};
pub use ports::{free_port, free_ports};
pub use process::{open_descriptors, resident_bytes};
pub use server::{Server, ServerOptions};
pub use trio::{Members, healthy};
pub use wait::{eventually, eventually_async};
pub use wire::Wire;

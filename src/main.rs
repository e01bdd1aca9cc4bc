//! The `nats-server` binary: command line in, exit status out.
fn main() {}

//! `nats-tool`: looks into, checks and exports the files of a stopped server.
fn main() {}

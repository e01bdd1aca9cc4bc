//! Which server this says it is.

pub use crate::jetstream::types::{API_LEVEL, REFERENCE_VERSION};

/// This server's own version.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What it was built with, where the reference names its Go.
pub const TOOLCHAIN: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
/// The commit it was built from, as far as the builder has said.
pub const COMMIT: &str = match option_env!("NATS_SERVER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// What `-v` prints: the first line is the reference's, because scripts parse it.
pub fn version_text() -> String {
    format!(
        "nats-server: v{REFERENCE_VERSION}\nstorage-first server {OWN_VERSION}, behaves as nats-server {REFERENCE_VERSION}\n"
    )
}

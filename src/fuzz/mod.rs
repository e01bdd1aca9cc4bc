//! Entry points for fuzzers: every parser of bytes that come from a peer, an operator or the log.
//!
//! They follow the rules of [`storage::fuzz`], whose targets stand beside these.

mod certificate;
mod configuration;
mod jetstream;
mod protocol;
mod route;
mod transform;

pub use storage::fuzz::Target;

/// All decoders of the storage engine.
pub fn storage_targets() -> Vec<Target> {
    storage::fuzz::targets()
}

/// All parsers of this crate.
pub fn targets() -> Vec<Target> {
    let rooms: [&[Target]; 11] = [
        protocol::TARGETS,
        route::TARGETS,
        configuration::TARGETS,
        transform::TARGETS,
        certificate::TARGETS,
        jetstream::TARGETS,
        crate::jetstream::meta::fuzz::TARGETS,
        crate::jetstream::archive::fuzz::TARGETS,
        crate::websocket::fuzz::TARGETS,
        crate::cluster::link::fuzz::TARGETS,
        crate::monitor::fuzz::TARGETS,
    ];
    rooms.concat()
}

//! One connection, or a few, over real sockets: what is said and what comes back, byte by byte.

mod limits;
mod operations;
mod peer;
mod users;

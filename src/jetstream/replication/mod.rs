//! Replication: what makes the JetStream of several servers one.
//!
//! - `founding`: who the first members of the meta group are, decided once; pure.
//! - `assembly`: servers coming together, until all belong to one meta group.
//! - `identity`: who this server is in the meta group, as it is kept.
//! - `router`: which server answers an API request, and how it gets there.
//! - `carry`: requests and answers on that way, as bytes.
//! - `gather`: answers that no server has alone.
//! - `leaders`: who leads which group, as servers tell each other.
//! - `members`: brings the groups that this server leads to the members that they are to have.
//! - `kinds`: what servers ask each other.
//! - `stream`: a stream on several servers.

mod assembly;
mod carry;
mod founding;
mod gather;
mod identity;
mod kinds;
mod leaders;
mod members;
mod router;
pub(crate) mod stream;

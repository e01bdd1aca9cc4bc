//! The server as a process: who it is, in which order it starts, how it accepts, and how it ends.
//!
//! Read in this order: [`version`] and [`identity`] say who it is, [`start`] is the order in which everything comes up
//! and goes down, [`streams`] starts JetStream as the options say and [`links`] links it with that of other servers, `listeners`, `monitor_port` and `profiler` open the ports and [`listen`] and [`accept`] admit clients, `observed` is what monitoring sees, [`signals`]
//! listens to the operator, [`send_signal`] is the operator's side of that, [`files`] tells scripts where the server is,
//! [`capacity`] what the machine has.

pub mod accept;
pub mod capacity;
mod certificates;
pub mod files;
pub mod identity;
mod jetstream;
mod lame_duck;
mod links;
pub mod listen;
mod listeners;
pub mod memory;
mod monitor_port;
mod notify;
mod observed;
mod operator;
mod profiler;
mod reload;
pub mod send_signal;
pub mod signals;
pub mod start;
pub mod streams;
pub mod version;

pub use certificates::check_certificates;
pub use identity::Identity;
pub use reload::ReloadError;
pub use start::{Loader, Server, StartError};

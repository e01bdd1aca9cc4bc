//! What the server tells about itself over HTTP.
//!
//! Read in this order: [`observed`] is all that this room may know of the server, [`answer`] is how an answer looks,
//! [`endpoints`] lists them and counts requests. [`root`], [`healthz`], [`varz`], [`jsz`], [`connz`], [`subsz`], [`accountz`],
//! [`accstatz`], [`routez`], [`raftz`] and [`metrics`] are one each, [`edges`] are two that have nothing to tell yet, [`stacksz`], [`ipqueuesz`] and [`variables`] tell of the process; [`subscriptions`] and
//! [`certificate`] are what several of them show. [`process`] asks the system what the process uses.
//!
//! # Invariant
//! This room only reads. It reaches the server through [`observed::Observed`] and nothing else.

pub mod accountz;
pub mod accstatz;
pub mod answer;
pub mod certificate;
pub mod connz;
pub mod edges;
pub mod endpoints;
pub(crate) mod fuzz;
pub mod healthz;
pub mod ipqueuesz;
pub mod jsz;
pub mod metrics;
pub mod observed;
pub mod process;
pub mod raftz;
pub mod root;
pub mod routez;
pub mod stacksz;
pub mod subscriptions;
pub mod subsz;
#[cfg(test)]
mod tests;
pub mod variables;
pub mod varz;

pub use endpoints::router;

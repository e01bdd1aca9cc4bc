//! Any sequence of changes leaves every store as a plain list of messages would be.

mod driver;
mod engine;
mod file;
mod memory;
mod model;

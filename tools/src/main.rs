//! `nats-tool`: looks into, checks and exports the files of the server's store.
//!
//! - `arguments`: the command line.
//! - `bench`: loads for servers, and how they compare.
//! - `place`: what a path is: a store, a stream's directory or one block.
//! - `keys`: the passphrase of an encrypted store.
//! - `stream`: a stream's files and what its checkpoint says of them; `present`: its messages as the server would have them after a start.
//! - `inspect`, `verify`, `cat`: the commands.
//! - `export`: a stream as an archive; `import`: streams from a store of the reference, which `reference` reads.
//! - `table`, `text`, `progress`: how results look on a terminal.
//!
//! # Invariant
//! Nothing is ever written to a store but by `import`, and there through the engine of the server. Files are read only through the formats of the `storage` crate, log entries only through the
//! server's own stream core.

mod arguments;
mod bench;
mod cat;
mod export;
mod import;
mod inspect;
mod keys;
mod place;
mod present;
mod progress;
mod reference;
mod stream;
mod table;
mod text;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Filestore};

/// What a command found.
enum Outcome {
    AllWell,
    Damage,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Filestore(Filestore::Inspect(arguments)) => inspect::run(&arguments),
        Command::Filestore(Filestore::Verify(arguments)) => verify::run(&arguments),
        Command::Filestore(Filestore::Cat(arguments)) => cat::run(&arguments),
        Command::Filestore(Filestore::Import(arguments)) => import::run(&arguments),
        Command::Filestore(Filestore::Export(arguments)) => export::run(&arguments),
        Command::Bench(bench) => bench::run(&bench).map(|()| Outcome::AllWell),
    };
    match outcome {
        Ok(Outcome::AllWell) => ExitCode::SUCCESS,
        Ok(Outcome::Damage) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nats-tool: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whoever read our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

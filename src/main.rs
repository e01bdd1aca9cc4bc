//! The `nats-server` binary: command line in, exit status out.

use nats_server::config::flags::{USAGE, tls_usage};
use nats_server::config::parser::Process;
use nats_server::config::{Command, FlagError, Flags, Options};
use nats_server::logging::{Logger, fatal};
use nats_server::server::capacity::raise_open_file_limit;
use nats_server::server::memory::give_back_what_is_idle;
use nats_server::server::send_signal::send_signal;
use nats_server::server::version::version_text;
use nats_server::server::{Server, check_certificates};
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last lines may take on their way to a log of another machine.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned());
    match Command::parse(arguments) {
        Ok(Command::Run(flags)) => run(&flags),
        Ok(Command::Check(flags)) => check(&flags),
        Ok(Command::Signal(request)) => match send_signal(&request) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(error),
        },
        Ok(Command::Version) => {
            print!("{}", version_text());
            ExitCode::SUCCESS
        }
        Ok(Command::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Command::HelpTls) => {
            print!("{}", tls_usage());
            ExitCode::SUCCESS
        }
        Err(error @ FlagError::UnknownCommand(_)) => complain(error),
        Err(error) => {
            eprintln!("{error}");
            print!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn complain(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("nats-server: {error}");
    ExitCode::FAILURE
}

/// `-t`: says whether the configuration file is sound. Here a warning is a failure, too.
fn check(flags: &Flags) -> ExitCode {
    let Some(path) = &flags.config else {
        return complain("must specify [-c, --config] option to check configuration file syntax");
    };
    let options = match Options::load(flags, &Process) {
        Ok(options) => options,
        Err(error) => return complain(error),
    };
    // What the file names is looked at, too.
    if let Err(error) = check_certificates(&options) {
        return complain(error);
    }
    match options.warnings.is_empty() {
        true => {
            eprintln!(
                "nats-server: configuration file {path} is valid ({})",
                options.config_digest
            );
            ExitCode::SUCCESS
        }
        false => complain(options.warnings.join("\n")),
    }
}

fn run(flags: &Flags) -> ExitCode {
    let options = match Options::load(flags, &Process) {
        Ok(options) => options,
        Err(error) => return complain(error),
    };
    let logger = match Logger::open(&options.log) {
        Ok(logger) => logger,
        Err(error) => return complain(format!("could not open the log file: {error}")),
    };
    logger.install();
    raise_open_file_limit();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("nats-worker")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            fatal(&format!("Could not start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    give_back_what_is_idle(runtime.handle().clone());
    let flags = flags.clone();
    let load = Box::new(move || Options::load(&flags, &Process));
    let ended = runtime.block_on(Server::run(options, load, &logger, workers));
    // What still runs is not waited for: everything that matters has ended in order.
    runtime.shutdown_background();
    let status = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fatal(&error.to_string());
            ExitCode::FAILURE
        }
    };
    logger.flush(LAST_LINES_MAX);
    status
}

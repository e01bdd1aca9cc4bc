//! What the operator says by signal.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGINT and SIGTERM: end now, in order.
    Stop(StopSignal),
    /// SIGUSR1: open the log file again.
    ReopenLog,
    /// SIGUSR2: let clients go one by one, then end.
    LameDuck,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Which signal asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM; not heeded while lame duck mode runs, which ends by itself.
    Terminate,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reopen: Signal,
    lame_duck: Signal,
    reload: Signal,
}

impl Signals {
    /// Catches the signals from now on. Call it before anything that takes long.
    pub fn catch() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reopen: signal(SignalKind::user_defined1())?,
            lame_duck: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Stop(StopSignal::Interrupt),
            _ = self.terminate.recv() => Request::Stop(StopSignal::Terminate),
            _ = self.reopen.recv() => Request::ReopenLog,
            _ = self.lame_duck.recv() => Request::LameDuck,
            _ = self.reload.recv() => Request::Reload,
        }
    }
}

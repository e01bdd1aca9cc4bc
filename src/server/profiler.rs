//! The port for profiling.

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::listen::listen;
use super::monitor_port::serve as serve_router;
use super::start::StartError;
use crate::config::Options;
use crate::profiling;

/// Opens the port, when profiling is asked for: on the host for clients, as the reference does.
pub(super) fn open(options: &Options) -> Result<Option<std::net::TcpListener>, StartError> {
    let Some(port) = options.profiling_port else {
        return Ok(None);
    };
    let listener = listen(&options.host, port).map_err(StartError::Profiler)?;
    Ok(Some(listener))
}

/// Answers requests until it is told to stop.
pub(super) fn serve(
    listener: std::net::TcpListener,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
    let port = listener.local_addr().map_err(StartError::Listener)?.port();
    tracing::info!("profiling port: {port}");
    Ok(tokio::spawn(serve_router(
        listener,
        profiling::router(),
        stop,
    )))
}

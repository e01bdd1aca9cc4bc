//! Taking up a new configuration while the server runs.
//!
//! All that can fail is prepared before anything changes: a file that is wrong, an option that cannot change, a certificate that cannot
//! be used leave everything as it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::files::write_pid_file;
use super::monitor_port::{Encryption, encryption};
use super::notify::{State, notify};
use super::start::{Server, client_tls};
use super::streams::{StreamAccounts, stream_accounts};
use crate::cluster::routes::{RouteOptions, RouteOptionsError};
use crate::config::changes::{Apply, Change, NotReloadable, changes};
use crate::config::{ConfigError, Options};
use crate::connection::{Terms, WebSocketError};
use crate::logging::PreparedLog;
use crate::tls::TlsError;

/// Why the configuration stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is nothing to read again.
    #[error("can only reload config when a file is provided using -c or --config")]
    NoFile,
    /// The server is not up yet.
    #[error("the server is not ready")]
    NotReady,
    /// What the file says is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What it says needs another start.
    #[error(transparent)]
    NotReloadable(#[from] NotReloadable),
    /// The certificates for clients cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Routes cannot be as they are to be.
    #[error(transparent)]
    Routes(#[from] RouteOptionsError),
    /// What is said of those who connect cannot be.
    #[error(transparent)]
    Connections(#[from] WebSocketError),
    /// The log cannot be opened.
    #[error("could not open the log: {0}")]
    Log(std::io::Error),
}

/// A new configuration with all that could fail done.
struct Prepared {
    options: Options,
    changes: Vec<Change>,
    terms: Terms,
    log: Option<PreparedLog>,
    monitor_tls: Option<Encryption>,
    accounts: StreamAccounts,
    routes: Option<RouteOptions>,
}

impl Server {
    /// Reads the configuration again and takes up what it says. Reads files: not for a connection's thread.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let _one_at_a_time = self.reloading.lock();
        notify(State::Reloading);
        let prepared = self.prepare();
        let taken = prepared.map(|prepared| self.take_up(prepared));
        // Also when nothing changed: the service manager waits for the end of it.
        notify(State::Ready);
        taken
    }

    fn prepare(&self) -> Result<Prepared, ReloadError> {
        let old = self.options();
        if old.config_file.is_none() {
            return Err(ReloadError::NoFile);
        }
        if !self.ready.load(Ordering::Acquire) {
            return Err(ReloadError::NotReady);
        }
        let options = (self.load)()?;
        let changes = changes(&old, &options)?;
        let accounts = stream_accounts(&options);
        let tls = client_tls(&options)?;
        let monitor_tls = encryption(&options)?;
        let routes = RouteOptions::new(&options)?;
        let terms = Terms::new(&options, tls, &self.broker)?;
        let log = match changes.iter().any(|change| change.apply == Apply::Log) {
            true => Some(
                self.logger
                    .prepare(&options.log)
                    .map_err(ReloadError::Log)?,
            ),
            false => None,
        };
        Ok(Prepared {
            options,
            changes,
            terms,
            log,
            monitor_tls,
            accounts,
            routes,
        })
    }

    /// Nothing here fails: files that tell where the server is are written as well as can be.
    fn take_up(&self, prepared: Prepared) {
        let Prepared {
            options,
            changes,
            terms,
            log,
            monitor_tls,
            accounts,
            routes,
        } = prepared;
        let has = |apply: Apply| changes.iter().any(|change| change.apply == apply);
        if let Some(log) = log {
            self.logger.change(log);
        }
        if let Some(clients) = self.clients() {
            clients.change_terms(&options, terms);
        }
        if let Some(system) = self.system.get() {
            system.review_accounts();
        }
        if let Some((routes, change)) = self.routes.as_ref().zip(routes) {
            routes.change(change, self.client_urls(&options));
            if let Some(links) = self.links.load_full() {
                links.meet(routes.meeting());
            }
        }
        if let Some((port, encryption)) = self.monitor_tls.as_ref().zip(monitor_tls) {
            port.change(encryption);
        }
        self.change_jetstream(&options, &accounts);
        if has(Apply::PidFile)
            && let Some(path) = &options.pid_file
            && let Err(error) = write_pid_file(path)
        {
            tracing::error!("Could not write pidfile: {}: {error}", path.display());
        }
        let options = Arc::new(options);
        self.set_options(Arc::clone(&options), SystemTime::now());
        if has(Apply::PortsFile)
            && let Err(error) = self.write_ports_file()
        {
            tracing::error!("{error}");
        }
        // Whoever reads this finds it in force.
        for change in &changes {
            tracing::info!("Reloaded: {}", change.told);
        }
        for warning in &options.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!("Reloaded server configuration ({})", options.config_digest);
    }
}

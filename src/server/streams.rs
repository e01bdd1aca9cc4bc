//! Starting JetStream as the options say.

use super::capacity::{disk_bytes, memory_bytes, readable_bytes};
use crate::broker::{Broker, GLOBAL_ACCOUNT};
use crate::config::Options;
use crate::config::options::{JetStreamOptions, SyncPolicy};
use crate::jetstream::limits::{AccountLimits, ServerLimits};
use crate::jetstream::monitor::{JetStreamInfo, Overview, Query, Settings};
use crate::jetstream::{JetStream, Setup};
use crate::monitor::observed::ObservedStreams;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reference's interval between syncs, which it shows although it syncs always.
const SYNC_INTERVAL_SHOWN_NS: i64 = 120_000_000_000;

/// Why streams could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// The store directory is a file.
    #[error("storage directory is not a directory: {0}")]
    NotADirectory(PathBuf),
    /// The store directory does not exist and cannot be made.
    #[error("could not create storage directory {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store directory holds another server's files.
    #[error(
        "storage directory {path} holds files of another nats-server ({found}), which this server neither reads nor \
         touches: import them into an empty directory with `nats-tool filestore import`"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: PathBuf,
    },
    /// There is nothing that keeps streams yet.
    #[error("JetStream's stream threads are not part of this build yet: start without -js")]
    NotBuilt,
}

/// Brings the streams back. May take long.
pub fn start(
    options: &Options,
    server_name: &str,
    broker: &Arc<Broker>,
) -> Result<JetStream, StreamsError> {
    let jetstream = &options.jetstream;
    let directory = jetstream.directory();
    tracing::info!("Starting JetStream");
    prepare(&directory)?;
    if jetstream.directory_is_temporary() {
        tracing::warn!("Temporary storage directory used, data could be lost on system reboot");
    }
    let setup = setup(jetstream, server_name, &directory);
    announce(jetstream, &setup.settings);
    let _ = broker;
    Err(StreamsError::NotBuilt)
}

fn announce(options: &JetStreamOptions, settings: &Settings) {
    tracing::info!("---------------- JETSTREAM ----------------");
    tracing::info!("  Strict:          {}", settings.strict);
    tracing::info!("  Max Memory:      {}", readable_bytes(settings.max_memory));
    tracing::info!(
        "  Max Storage:     {}",
        readable_bytes(settings.max_storage)
    );
    tracing::info!("  Store Directory: \"{}\"", settings.store_dir.display());
    match options.sync {
        SyncPolicy::Always => tracing::info!("  Sync:            before each ack"),
        SyncPolicy::Interval(interval) => tracing::info!("  Sync:            every {interval:?}"),
    }
    if let Some(encryption) = &options.encryption {
        tracing::info!("  Encryption:      {:?}", encryption.cipher);
    }
    tracing::info!("-------------------------------------------");
}

fn setup(options: &JetStreamOptions, server_name: &str, directory: &Path) -> Setup {
    let (sync_interval, sync_always) = match options.sync {
        SyncPolicy::Always => (SYNC_INTERVAL_SHOWN_NS, true),
        SyncPolicy::Interval(interval) => (
            i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX),
            false,
        ),
    };
    Setup {
        server_name: server_name.to_owned(),
        settings: Settings {
            max_memory: memory_bytes(options.memory_max),
            max_storage: disk_bytes(options.file_max, directory),
            store_dir: directory.to_owned(),
            sync_interval,
            sync_always,
            compress_ok: true,
            strict: options.strict,
        },
        limits: ServerLimits::default(),
        accounts: vec![(GLOBAL_ACCOUNT.to_owned(), AccountLimits::default())],
        requests_max: options.request_queue_max,
    }
}

/// Makes the directory, and makes sure that it is ours to write in.
fn prepare(directory: &Path) -> Result<(), StreamsError> {
    if directory.exists() && !directory.is_dir() {
        return Err(StreamsError::NotADirectory(directory.to_owned()));
    }
    std::fs::create_dir_all(directory).map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            StreamsError::NotADirectory(directory.to_owned())
        }
        _ => StreamsError::Create {
            path: directory.to_owned(),
            source,
        },
    })?;
    match foreign_file(directory) {
        Some(found) => Err(StreamsError::Foreign {
            path: directory.to_owned(),
            found,
        }),
        None => Ok(()),
    }
}

/// A stream of the reference: `<account>/streams/<stream>/meta.inf`.
fn foreign_file(directory: &Path) -> Option<PathBuf> {
    let below = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .collect()
    };
    below(directory)
        .iter()
        .flat_map(|account| below(&account.join("streams")))
        .map(|stream| stream.join("meta.inf"))
        .find(|file| file.is_file())
}

impl ObservedStreams for JetStream {
    fn overview(&self) -> Overview {
        JetStream::overview(self)
    }

    fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        JetStream::info(self, query, server_id)
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_another_servers_streams_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let stream = directory.path().join("$G/streams/ORDERS");
        std::fs::create_dir_all(&stream).unwrap();
        prepare(directory.path()).unwrap();
        std::fs::write(stream.join("meta.inf"), "{}").unwrap();
        let error = prepare(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("meta.inf") && error.contains("nats-tool filestore import"),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_no_store_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("jetstream")] {
            let error = prepare(&path).unwrap_err().to_string();
            assert!(
                error.contains("storage directory is not a directory"),
                "{error}"
            );
        }
        prepare(&directory.path().join("a/b")).unwrap();
    }
}

//! Starting JetStream as the options say.

use super::capacity::{disk_bytes, memory_bytes};
use crate::broker::{Broker, GLOBAL_ACCOUNT};
use crate::config::Options;
use crate::config::bytes::readable_bytes;
use crate::config::options::description::LONG_ACKS;
use crate::config::options::{
    AccountJetStream, AssetLimits, EncryptionCipher, JetStreamOptions, SyncPolicy,
};
use crate::jetstream::core::AckForm;
use crate::jetstream::limits::{AccountLimits, AccountTiers, ServerLimits};
use crate::jetstream::monitor::{
    GroupDetails, JetStreamInfo, Overview, Query, Settings, StreamFault,
};
use crate::jetstream::{ClusterSetup, JetStream, Setup, WaitingMax};
use crate::monitor::observed::{ObservedStreams, QueueFigures};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::disk::DiskTurns;
use storage::engine::{EngineFigures, EngineOptions};
use storage::journal::{Durability, JournalMeter};
use storage::seal::Cipher;

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
    /// The streams cannot be brought back.
    #[error(transparent)]
    Start(#[from] crate::jetstream::StartError),
}

/// Brings the streams back, on a server with that name and id. May take long.
pub fn start(
    options: &Options,
    named: (&str, &str),
    broker: &Arc<Broker>,
    cluster: Option<ClusterSetup>,
) -> Result<JetStream, StreamsError> {
    let jetstream = &options.jetstream;
    let directory = jetstream.directory();
    tracing::info!("Starting JetStream");
    prepare(&directory)?;
    if jetstream.directory_is_temporary() {
        tracing::warn!("Temporary storage directory used, data could be lost on system reboot");
    }
    let setup = setup(options, named, &directory);
    announce(jetstream, &setup.settings);
    let engine = engine_options(jetstream, &directory);
    let began = Instant::now();
    let jetstream = match cluster {
        None => JetStream::start(setup, broker, engine)?,
        Some(cluster) => JetStream::start_in_cluster(setup, broker, engine, cluster)?,
    };
    let found = jetstream.info(&Query::default(), "");
    tracing::info!(
        "Restored {} streams with {} messages in {:?}",
        found.streams,
        found.messages,
        began.elapsed()
    );
    Ok(jetstream)
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

fn setup(options: &Options, (server_name, server_id): (&str, &str), directory: &Path) -> Setup {
    let StreamAccounts { with, without } = stream_accounts(options);
    let ack_form = match options.feature_flags.is_on(LONG_ACKS) {
        true => AckForm::Long,
        false => AckForm::Short,
    };
    let options = &options.jetstream;
    let (sync_interval, sync_always) = match options.sync {
        SyncPolicy::Always => (SYNC_INTERVAL_SHOWN_NS, true),
        SyncPolicy::Interval(interval) => (
            i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX),
            false,
        ),
    };
    Setup {
        server_name: server_name.to_owned(),
        server_id: server_id.to_owned(),
        settings: Settings {
            max_memory: memory_bytes(options.memory_max),
            max_storage: disk_bytes(options.file_max, directory),
            store_dir: directory.to_owned(),
            sync_interval,
            sync_always,
            domain: options.domain.clone(),
            compress_ok: true,
            unique_tag: options.unique_tag.clone(),
            strict: options.strict,
        },
        ack_form,
        limits: server_limits(&options.limits),
        accounts: with,
        accounts_without: without,
        requests_max: options.request_queue_max,
        waiting: WaitingMax {
            messages: options.buffered_messages_max as u64,
            bytes: options.buffered_bytes_max,
        },
    }
}

/// Which accounts have JetStream.
pub(super) struct StreamAccounts {
    /// Those that have it, and what they may use.
    pub(super) with: Vec<(String, AccountTiers)>,
    /// Those that have not.
    pub(super) without: Vec<String>,
}

/// The accounts that have JetStream, and those that have not. With no account of its own the file leaves it to the global
/// one; with accounts it is where the file says.
pub(super) fn stream_accounts(options: &Options) -> StreamAccounts {
    let system = options.system_account();
    let global = GLOBAL_ACCOUNT.to_owned();
    let others = options.accounts.iter().filter(|a| a.name != system);
    if others.clone().next().is_none() {
        return StreamAccounts {
            with: vec![(global, AccountTiers::of_all(AccountLimits::UNLIMITED))],
            without: vec![system.to_owned()],
        };
    }
    let mut accounts = StreamAccounts {
        with: Vec::new(),
        without: vec![global, system.to_owned()],
    };
    for account in others {
        match &account.jetstream {
            Some(limits) => {
                let tiers = account_tiers(limits, &account.jetstream_tiers);
                accounts.with.push((account.name.clone(), tiers));
            }
            // Who takes it from another account is answered there.
            None if account.takes_jetstream() => {}
            None => accounts.without.push(account.name.clone()),
        }
    }
    accounts
}

fn account_tiers(all: &AccountJetStream, tiers: &BTreeMap<u8, AccountJetStream>) -> AccountTiers {
    let tiers = tiers.iter();
    let tiers: BTreeMap<usize, AccountLimits> = tiers
        .map(|(replicas, limits)| (usize::from(*replicas), account_limits(limits)))
        .collect();
    AccountTiers {
        all: tiers.is_empty().then(|| account_limits(all)),
        tiers,
    }
}

fn account_limits(limits: &AccountJetStream) -> AccountLimits {
    AccountLimits {
        max_memory: limits.memory_bytes_max,
        max_storage: limits.file_bytes_max,
        max_streams: limits.streams_max,
        max_consumers: limits.consumers_max,
        max_ack_pending: limits.ack_pending_max,
        memory_max_stream_bytes: limits.memory_stream_bytes_max,
        storage_max_stream_bytes: limits.file_stream_bytes_max,
        max_bytes_required: limits.max_bytes_required,
    }
}

fn server_limits(limits: &AssetLimits) -> ServerLimits {
    let count = |max: Option<u32>| max.map_or(0, i64::from);
    let time = |max: Option<Duration>| {
        max.map_or(0, |max| i64::try_from(max.as_nanos()).unwrap_or(i64::MAX))
    };
    let batches = limits.batches;
    ServerLimits {
        max_request_batch: count(limits.request_batch_max),
        max_ack_pending: count(limits.ack_pending_max),
        max_ha_assets: count(limits.ha_assets_max),
        duplicate_window_ns: time(limits.duplicate_window_max),
        max_batch_inflight_per_stream: count(batches.per_stream_max),
        max_batch_inflight_total: count(batches.total_max),
        max_batch_size: count(batches.messages_max),
        batch_timeout_ns: time(batches.idle_max),
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
    Ok(())
}

/// What the storage engine is told: the operator's options, with the engine's own defaults for the rest.
pub fn engine_options(options: &JetStreamOptions, directory: &Path) -> EngineOptions {
    let mut engine = EngineOptions::new(directory);
    engine.durability = match options.sync {
        SyncPolicy::Always => Durability::Always,
        SyncPolicy::Interval(interval) => Durability::Interval(interval),
    };
    engine.journal.meter = Arc::new(JournalMeter::with_clock(monotonic_ns));
    let turns = options.disk_operations_max;
    engine.disk_turns = turns.map(|max| DiskTurns::new(max, monotonic_ns));
    engine.encryption = options.encryption.as_ref().map(|encryption| {
        let bytes = |key: &String| key.as_bytes().to_vec();
        storage::engine::EncryptionOptions {
            passphrase: bytes(&encryption.key),
            previous: encryption.previous_key.as_ref().map(bytes),
            cipher: match encryption.cipher {
                EncryptionCipher::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305,
                EncryptionCipher::Aes256Gcm => Cipher::Aes256Gcm,
            },
        }
    });
    engine
}

/// The clock that the journal measures with: storage reads none of its own.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl ObservedStreams for JetStream {
    fn account_names(&self) -> Vec<String> {
        JetStream::account_names(self)
    }

    fn overview(&self) -> Overview {
        JetStream::overview(self)
    }

    fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        JetStream::info(self, query, server_id)
    }

    fn fault(&self) -> Option<String> {
        JetStream::fault(self)
    }

    fn is_disabled(&self) -> bool {
        JetStream::is_disabled(self)
    }

    fn engine_figures(&self) -> Option<EngineFigures> {
        Some(JetStream::engine_figures(self))
    }

    fn queues(&self) -> Vec<QueueFigures> {
        let (pending, in_progress) = self.requests_under_way();
        let requests = QueueFigures {
            name: "JetStream API".into(),
            pending,
            in_progress,
        };
        let shards = self.waiting().into_iter().enumerate();
        let shards = shards.map(|(number, waiting)| QueueFigures {
            name: format!("shard {number}"),
            pending: waiting as u64,
            in_progress: 0,
        });
        std::iter::once(requests).chain(shards).collect()
    }

    fn meta_fault(&self) -> Option<String> {
        JetStream::meta_fault(self)
    }

    fn raft_groups(&self) -> Option<GroupDetails> {
        JetStream::raft_groups(self)
    }

    fn stream_fault(&self) -> Option<StreamFault> {
        JetStream::stream_fault(self)
    }

    fn is_clustered(&self) -> bool {
        JetStream::is_clustered(self)
    }

    fn leads_meta(&self) -> bool {
        JetStream::leads_meta(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::EncryptionOptions;
    use std::time::Duration;

    #[test]
    fn the_engine_is_told_what_the_operator_said() {
        let mut options = JetStreamOptions::default();
        let engine = engine_options(&options, Path::new("/x"));
        assert_eq!(engine.durability, Durability::Always);
        assert!(engine.encryption.is_none());
        assert!(engine.disk_turns.is_none());
        options.disk_operations_max = Some(4);
        options.sync = SyncPolicy::Interval(Duration::from_secs(5));
        options.encryption = Some(EncryptionOptions {
            key: "new".into(),
            previous_key: Some("old".into()),
            cipher: EncryptionCipher::Aes256Gcm,
        });
        let engine = engine_options(&options, Path::new("/x"));
        assert_eq!(
            engine.durability,
            Durability::Interval(Duration::from_secs(5))
        );
        assert!(engine.disk_turns.is_some());
        let encryption = engine.encryption.unwrap();
        assert_eq!(encryption.passphrase, b"new");
        assert_eq!(encryption.previous.as_deref(), Some(b"old".as_slice()));
        assert_eq!(encryption.cipher, Cipher::Aes256Gcm);
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

//! The `jetstream` block: where streams live, how much they may hold, when an ack may leave.

use super::super::value::Value;
use super::report::{Field, Report, in_file_order};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder below the store directory that streams live in.
const STREAMS_FOLDER: &str = "jetstream";

/// When an ack may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After the data is on disk.
    Always,
    /// After the data was handed to the system, which is told to put it on disk this often.
    Interval(Duration),
}

/// How much streams may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLimit {
    /// A share of what the machine has: three quarters of its memory, or of the free disk space.
    Dynamic,
    /// So many bytes.
    Bytes(u64),
}

/// How stored data is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionCipher {
    /// ChaCha20-Poly1305, the default.
    ChaCha20Poly1305,
    /// AES-256-GCM.
    Aes256Gcm,
}

/// Encryption of stored data. Shown without its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionOptions {
    /// The passphrase that the master key is made from.
    pub key: String,
    /// The passphrase that was used before, for a store that is still sealed with it.
    pub previous_key: Option<String>,
    /// The cipher for new data.
    pub cipher: EncryptionCipher,
}

impl fmt::Debug for EncryptionOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EncryptionOptions")
            .field("cipher", &self.cipher)
            .field("previous_key", &self.previous_key.is_some())
            .finish_non_exhaustive()
    }
}

/// What the operator decided about streams.
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamOptions {
    /// Whether there are streams at all.
    pub enabled: bool,
    /// The store directory as named; [`JetStreamOptions::directory`] is where the streams are.
    pub store_dir: Option<PathBuf>,
    /// Memory for memory streams.
    pub memory_max: StoreLimit,
    /// Disk for file streams.
    pub file_max: StoreLimit,
    /// When an ack may leave.
    pub sync: SyncPolicy,
    /// Encryption, when a key is given.
    pub encryption: Option<EncryptionOptions>,
    /// The domain under whose subjects its API is reached, too; empty for none.
    pub domain: String,
    /// API requests with unknown or invalid fields are refused.
    pub strict: bool,
    /// What may wait for one stream before publishes are refused.
    pub buffered_bytes_max: u64,
    /// How many messages may wait for one stream before publishes are refused.
    pub buffered_messages_max: usize,
    /// How many API requests may wait.
    pub request_queue_max: usize,
    /// How much of what replicas elsewhere lack may be on its way to them.
    pub catchup_bytes_max: u64,
    /// How many operations on disks may run at one time; `None` is as many as there are threads.
    pub disk_operations_max: Option<usize>,
    /// The tag in which the servers of a stream's replicas must differ, in lower case; empty for none.
    pub unique_tag: String,
    /// When the log of a cluster's meta group is compacted.
    pub meta_compaction: MetaCompaction,
    /// What each stream and consumer may ask for.
    pub limits: AssetLimits,
}

/// When the log of a cluster's meta group is compacted: as soon as one of these is reached; `None` is not looked at, and without both the server
/// decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaCompaction {
    /// Entries since the last time.
    pub entries: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Whether nothing more is applied until it is done.
    pub waits: bool,
}

/// What each stream and consumer of the server may ask for; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssetLimits {
    /// Messages of one pull request.
    pub request_batch_max: Option<u32>,
    /// Messages of one consumer that may wait for an ack.
    pub ack_pending_max: Option<u32>,
    /// Replicated streams that the server may take part in.
    pub ha_assets_max: Option<u32>,
    /// How long message ids may be remembered.
    pub duplicate_window_max: Option<Duration>,
    /// Batches of messages.
    pub batches: BatchOptions,
}

/// What batches may be; `None` is the default, which differs between atomic and fast ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchOptions {
    /// Open batches of one stream.
    pub per_stream_max: Option<u32>,
    /// Open batches of all streams together.
    pub total_max: Option<u32>,
    /// Messages in one atomic batch.
    pub messages_max: Option<u32>,
    /// How long a batch waits for its next message.
    pub idle_max: Option<Duration>,
}

impl Default for JetStreamOptions {
    fn default() -> Self {
        JetStreamOptions {
            enabled: false,
            store_dir: None,
            memory_max: StoreLimit::Dynamic,
            file_max: StoreLimit::Dynamic,
            sync: SyncPolicy::Always,
            encryption: None,
            domain: String::new(),
            strict: true,
            buffered_bytes_max: 128 << 20,
            buffered_messages_max: 100_000,
            request_queue_max: 10_000,
            catchup_bytes_max: 64 << 20,
            disk_operations_max: None,
            unique_tag: String::new(),
            meta_compaction: MetaCompaction::default(),
            limits: AssetLimits::default(),
        }
    }
}

impl JetStreamOptions {
    /// Where streams live: below the store directory, or below a temporary one when none is named.
    pub fn directory(&self) -> PathBuf {
        match &self.store_dir {
            Some(path) if path.file_name().is_some_and(|name| name == STREAMS_FOLDER) => {
                path.clone()
            }
            Some(path) => path.join(STREAMS_FOLDER),
            None => std::env::temp_dir().join("nats").join(STREAMS_FOLDER),
        }
    }

    /// Whether the operator left the place to us, so that it may vanish with the next boot.
    pub fn directory_is_temporary(&self) -> bool {
        self.store_dir.is_none()
    }
}

/// A store directory at the top level; a second one anywhere is refused.
pub(super) fn store_dir(
    options: &mut JetStreamOptions,
    path: PathBuf,
    field: &Field<'_>,
    report: &mut Report,
) {
    if options.store_dir.is_some() {
        field.invalid(report, "Duplicate 'store_dir' configuration");
    } else if path != Path::new("") {
        options.store_dir = Some(path);
    }
}

/// Reads `jetstream: enabled`, `jetstream: true` or the block.
pub(super) fn read(options: &mut JetStreamOptions, field: &Field<'_>, report: &mut Report) {
    match field.value() {
        Value::Bool(enabled) => options.enabled = *enabled,
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "enabled" | "enable" => options.enabled = true,
            "disabled" | "disable" => options.enabled = false,
            _ => {
                let reason =
                    format!("Expected 'enabled' or 'disabled' for string value, got '{word}'");
                field.invalid(report, reason);
            }
        },
        Value::Map(map) => {
            options.enabled = true;
            let mut keys = Keys::default();
            for field in in_file_order(map) {
                member(options, &mut keys, &field, report);
            }
            keys.finish(options, field, report);
        }
        _ => field.wrong_type(report, "a map, a boolean or 'enabled'"),
    }
}

/// The encryption keys, which stand beside each other in the file and belong together here.
#[derive(Default)]
struct Keys {
    key: Option<String>,
    previous: Option<String>,
    cipher: Option<EncryptionCipher>,
}

impl Keys {
    fn finish(self, options: &mut JetStreamOptions, field: &Field<'_>, report: &mut Report) {
        match self.key.filter(|key| !key.is_empty()) {
            Some(key) => {
                options.encryption = Some(EncryptionOptions {
                    key,
                    previous_key: self.previous.filter(|key| !key.is_empty()),
                    cipher: self.cipher.unwrap_or(EncryptionCipher::ChaCha20Poly1305),
                });
            }
            None if self.previous.is_some_and(|key| !key.is_empty()) => {
                field.invalid(report, "a previous encryption key needs a current one");
            }
            None => {}
        }
    }
}

fn member(options: &mut JetStreamOptions, keys: &mut Keys, field: &Field<'_>, report: &mut Report) {
    let key = field.key();
    match key.as_str() {
        "enable" | "enabled" => {
            if let Some(enabled) = field.bool(report) {
                options.enabled = enabled;
            }
        }
        "strict" => {
            if let Some(strict) = field.bool(report) {
                options.strict = strict;
            }
        }
        "store" | "store_dir" | "storedir" => {
            if let Some(path) = field.string(report) {
                store_dir(options, path.into(), field, report);
            }
        }
        "sync" | "sync_interval" => {
            if let Some(sync) = sync(field, report) {
                options.sync = sync;
            }
        }
        "max_memory_store" | "max_mem_store" | "max_mem" => {
            if let Some(limit) = limit(field, report) {
                options.memory_max = limit;
            }
        }
        "max_file_store" | "max_file" => {
            if let Some(limit) = limit(field, report) {
                options.file_max = limit;
            }
        }
        "key" | "ek" | "encryption_key" => keys.key = field.string(report),
        "prev_key" | "prev_ek" | "prev_encryption_key" => keys.previous = field.string(report),
        "cipher" => keys.cipher = cipher(field, report),
        "max_buffered_size" => {
            let bytes = size(field, report);
            if let Some(bytes) = positive(field, report, bytes) {
                options.buffered_bytes_max = bytes;
            }
        }
        "max_buffered_msgs" => {
            let count = field.integer(report);
            if let Some(count) = positive(field, report, count) {
                options.buffered_messages_max = usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        "max_outstanding_catchup" => {
            let bytes = size(field, report);
            if let Some(bytes) = positive(field, report, bytes) {
                options.catchup_bytes_max = bytes;
            }
        }
        "request_queue_limit" => {
            let count = field.integer(report);
            if let Some(count) = positive(field, report, count) {
                options.request_queue_max = usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        "domain" => {
            if let Some(domain) = field.string(report) {
                options.domain = domain;
            }
        }
        "unique_tag" => {
            if let Some(tag) = field.string(report) {
                options.unique_tag = tag.trim().to_lowercase();
            }
        }
        "meta_compact" => {
            let entries = field.within(report, 0, i64::MAX).unwrap_or(0);
            options.meta_compaction.entries = u64::try_from(entries).ok().filter(|max| *max > 0);
        }
        "meta_compact_size" => {
            let bytes = size(field, report).unwrap_or(0);
            if bytes < 0 {
                field.invalid(report, format!("{} must not be negative", field.name));
            }
            options.meta_compaction.bytes = u64::try_from(bytes).ok().filter(|max| *max > 0);
        }
        "max_concurrent_io" => {
            options.disk_operations_max = field.within(report, 4, 8192);
        }
        "meta_compact_sync" => {
            options.meta_compaction.waits = field.bool(report).unwrap_or_default();
        }
        "limits" => limits(&mut options.limits, field, report),
        _ => match not_built(&key) {
            Some(what) => field.not_supported(report, what),
            None => field.unknown(report),
        },
    }
}

fn limits(limits: &mut AssetLimits, field: &Field<'_>, report: &mut Report) {
    let Some(map) = field.map(report) else {
        return;
    };
    for member in in_file_order(map) {
        let count = |report: &mut Report| count(&member, report);
        match member.key().as_str() {
            "max_request_batch" => limits.request_batch_max = count(report),
            "max_ack_pending" => limits.ack_pending_max = count(report),
            "duplicate_window" => {
                let window = member.duration(report);
                limits.duplicate_window_max = window.filter(|window| !window.is_zero());
            }
            "max_ha_assets" => limits.ha_assets_max = count(report),
            "batch" => batches(&mut limits.batches, &member, report),
            _ => member.unknown(report),
        }
    }
}

fn batches(batches: &mut BatchOptions, field: &Field<'_>, report: &mut Report) {
    let Some(map) = field.map(report) else {
        return;
    };
    for member in in_file_order(map) {
        match member.key().as_str() {
            "max_inflight_per_stream" => batches.per_stream_max = count(&member, report),
            "max_inflight_total" => batches.total_max = count(&member, report),
            "max_msgs" => batches.messages_max = count(&member, report),
            "timeout" => {
                let timeout = member.duration(report);
                batches.idle_max = timeout.filter(|timeout| !timeout.is_zero());
            }
            _ => member.unknown(report),
        }
    }
}

/// A number of things; 0 is as good as none given.
fn count(field: &Field<'_>, report: &mut Report) -> Option<u32> {
    let most = i64::from(i32::MAX);
    field.within(report, 0, most).filter(|count| *count > 0)
}

/// What the reference's remaining keys of this block would do.
fn not_built(key: &str) -> Option<&'static str> {
    Some(match key {
        "extension_hint" => "extending another server's JetStream over leaf nodes is not built",
        "tpm" => "keys in a trusted platform module are not built",
        "info_queue_limit" => "info requests have no queue of their own",
        _ => return None,
    })
}

fn sync(field: &Field<'_>, report: &mut Report) -> Option<SyncPolicy> {
    if let Value::String(word) = field.value()
        && word.eq_ignore_ascii_case("always")
    {
        return Some(SyncPolicy::Always);
    }
    let interval = field.duration(report)?;
    if interval.is_zero() {
        field.invalid(report, format!("{} must be longer than zero", field.name));
        return None;
    }
    Some(SyncPolicy::Interval(interval))
}

fn limit(field: &Field<'_>, report: &mut Report) -> Option<StoreLimit> {
    let bytes = size(field, report)?;
    Some(match u64::try_from(bytes) {
        Ok(bytes) => StoreLimit::Bytes(bytes),
        Err(_) => StoreLimit::Dynamic,
    })
}

/// A storage size: a number, or quoted text that ends in K, M, G or T.
fn size(field: &Field<'_>, report: &mut Report) -> Option<i64> {
    match field.value() {
        Value::Integer(bytes) => Some(*bytes),
        Value::String(text) => {
            let bytes = quoted_size(text);
            if bytes.is_none() {
                let reason = format!(
                    "{} {text:?}: sizes defined as strings must end in K, M, G, T",
                    field.name
                );
                field.invalid(report, reason);
            }
            bytes
        }
        _ => {
            field.wrong_type(report, "a size");
            None
        }
    }
}

fn quoted_size(text: &str) -> Option<i64> {
    let digits_end = text.len().checked_sub(1)?;
    let shift = match text.get(digits_end..)? {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let number: i64 = text.get(..digits_end)?.parse().ok()?;
    number.checked_mul(1i64 << shift)
}

fn positive(field: &Field<'_>, report: &mut Report, value: Option<i64>) -> Option<u64> {
    let value = value?;
    match u64::try_from(value).ok().filter(|value| *value > 0) {
        Some(value) => Some(value),
        None => {
            field.invalid(report, format!("{} must be positive", field.name));
            None
        }
    }
}

fn cipher(field: &Field<'_>, report: &mut Report) -> Option<EncryptionCipher> {
    let word = field.string(report)?;
    match word.to_ascii_lowercase().as_str() {
        "chacha" | "chachapoly" => Some(EncryptionCipher::ChaCha20Poly1305),
        "aes" => Some(EncryptionCipher::Aes256Gcm),
        _ => {
            field.invalid(report, format!("Unknown cipher type: {word:?}"));
            None
        }
    }
}

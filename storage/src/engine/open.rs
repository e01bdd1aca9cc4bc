//! From a directory to an engine and its recovered streams.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::catalog::{Catalog, CatalogEntry, Listed, MalformedCatalog};
use super::foreign::find_reference_stream;
use super::log::{Letter, Log};
use super::meta::{StreamMeta, read_meta};
use super::{
    Activity, Engine, EngineOptions, Form, JOURNAL_NAME, LOCK_NAME, Persistent, Replica,
    RestoreError, STREAMS_NAME, StreamId, Threads, rescue,
};
use crate::block::BlockCache;
use crate::disk::{BoundedDisk, Disk, DiskError, DiskErrorKind, DiskLock};
use crate::entropy::Entropy;
use crate::executor::{Executor, InlineExecutor, ThreadPool};
use crate::journal::{
    Damage, Durability, FrameKind, Journal, JournalCore, JournalOptions, OpenJournalError, Owner,
    OwnerReplay, Replay, TornTail,
};
use crate::seal::{KeyRing, KeyRingError};

/// Why a store directory could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The disk did not answer.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another server uses it.
    #[error("store directory {} is in use by another server", .0.display())]
    InUse(PathBuf),
    /// It holds streams of the reference server.
    #[error(
        "{} belongs to a store of nats-server's own format. It was not touched. Choose another store_dir, and bring \
         what is here over with `nats-tool filestore import`", .0.display()
    )]
    Foreign(PathBuf),
    /// The key does not fit.
    #[error(transparent)]
    Key(#[from] KeyRingError),
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] OpenJournalError),
    /// The repaired catalog could not be written.
    #[error(transparent)]
    Repair(#[from] crate::journal::JournalError),
    /// The catalog was written by a later version of this program.
    #[error("the catalog has format version {0}, which is later than this program knows")]
    CatalogVersion(u8),
}

/// An engine, and what it found.
pub struct Opened<S: Persistent> {
    /// The engine.
    pub engine: Arc<Engine<S>>,
    /// The streams, by id.
    pub streams: Vec<Recovered<S>>,
    /// What the journal holds of owners that are no streams: raft groups of the server itself.
    pub others: BTreeMap<Owner, OwnerReplay>,
    /// What was durable in the journal and can no longer be read.
    pub damage: Vec<Damage>,
    /// What was written and never synced, and was cut.
    pub torn: Option<TornTail>,
    /// Directories of streams that the catalog does not know. They are left as they are.
    pub unknown: Vec<PathBuf>,
}

/// A stream as it was found.
pub struct Recovered<S: Persistent> {
    /// Its id.
    pub id: StreamId,
    /// Its account.
    pub account: String,
    /// Its name.
    pub name: String,
    /// Its options, as the catalog has them.
    pub options: S::Options,
    /// Its store at the last checkpoint; or why there is none: then the stream is offline, and nothing of it is removed.
    pub content: Result<RecoveredStore<S>, RestoreError>,
    /// Log entries that are lost to damage, as ranges (first, last) of indexes.
    pub holes: Vec<(u64, u64)>,
    /// What its log consists of.
    pub form: Form,
    /// Of a stream that is replicated: its group's log as it stands in the journal. [`RecoveredStore::entries`] and `holes` are empty then.
    pub group_log: Option<OwnerReplay>,
}

/// A store at its last checkpoint, and what came after.
pub struct RecoveredStore<S> {
    /// The store.
    pub store: S,
    /// The log index of the checkpoint.
    pub index: u64,
    /// What [`Engine::checkpoint`] was given along.
    pub core: Bytes,
    /// Log entries after `index`, ascending. Their bytes share memory with the journal as it was read: apply them and let them go.
    pub entries: Vec<(u64, Bytes)>,
}

impl<S: Persistent> Engine<S> {
    /// Opens a store directory, and creates it when there is none.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: EngineOptions,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Opened<S>, OpenError> {
        let disk: Arc<dyn Disk> = match &options.disk_turns {
            Some(turns) => Arc::new(BoundedDisk::new(disk, Arc::clone(turns))),
            None => disk,
        };
        let directory = options.directory.clone();
        let lock = prepare_directory(disk.as_ref(), &directory)?;
        let keys = open_keys(disk.as_ref(), &options, entropy.as_ref())?;
        let background: Arc<dyn Executor> = match options.threads {
            Threads::Own(threads) => Arc::new(ThreadPool::new("storage", threads)),
            Threads::None => Arc::new(InlineExecutor),
        };
        let journal_options = JournalOptions {
            durability: options.durability,
            encryption: keys.clone(),
            background: Arc::clone(&background),
            takes_turns: options.disk_turns.is_some(),
            ..options.journal.clone()
        };
        let (log, mut replay) = open_log(&disk, &options, journal_options, &entropy)?;
        let found = read_catalog::<S>(&mut replay)?;
        let mut catalog = found.catalog;
        let directories = stream_directories(disk.as_ref(), &directory)?;
        let mut unknown = Vec::new();
        for (id, path) in directories {
            if catalog.streams.contains_key(&id) || catalog.removing.contains(&id) {
                continue;
            }
            // Ids are used once, whatever the catalog has forgotten.
            catalog.next_stream = catalog.next_stream.max(id.0.saturating_add(1));
            match read_meta(disk.as_ref(), &path) {
                Ok(meta) if found.damaged && meta.id == id => {
                    adopt::<S>(&mut catalog, meta, form_of(&replay, id));
                }
                _ => unknown.push(path),
            }
        }
        for path in &unknown {
            tracing::error!(path = %path.display(), "a stream's directory is in no catalog; it is left as it is");
        }
        let cache = Arc::new(BlockCache::new(options.cache_bytes));
        let engine = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            disk,
            directory,
            keys,
            entropy,
            options,
            background,
            cache,
            log,
            catalog: Mutex::new(Catalog::new()),
            carry_wanted: AtomicBool::new(false),
            activities: Mutex::default(),
            idle: Condvar::new(),
            failures: Mutex::new(None),
            checkpoints: Mutex::new(None),
            _lock: lock,
        });
        // That a carried catalog covers them was known to the process that is gone.
        engine
            .log
            .post(Letter::Release(Owner::CATALOG, found.carried_index));
        let streams = engine.recover_streams(&catalog, &mut replay);
        engine.forget_removed(&catalog, &mut replay);
        let removing = catalog.removing.clone();
        *engine.catalog.lock() = catalog;
        if found.damaged {
            engine.carry_catalog()?;
        }
        for id in removing {
            engine.delete_in_background(engine.activities.lock(), id);
        }
        engine.set_pressure_listener(|_| {});
        Ok(Opened {
            engine,
            streams,
            others: replay.owners,
            damage: replay.damage,
            torn: replay.torn,
            unknown,
        })
    }

    fn recover_streams(
        &self,
        catalog: &Catalog<S::Options>,
        replay: &mut Replay,
    ) -> Vec<Recovered<S>> {
        let mut streams = Vec::with_capacity(catalog.streams.len());
        for (&id, listed) in &catalog.streams {
            let replayed = replay.take(id.owner());
            streams.push(self.recover_stream(id, listed, replayed));
        }
        streams
    }

    fn recover_stream(
        &self,
        id: StreamId,
        listed: &Listed<S::Options>,
        mut replayed: OwnerReplay,
    ) -> Recovered<S> {
        let meta = StreamMeta {
            id,
            account: listed.account.clone(),
            name: listed.name.clone(),
            options: S::encode_options(&listed.options),
        };
        let form = listed.form;
        let mut activity = Activity {
            form,
            ..Activity::default()
        };
        let place = self.place_of(meta, &activity.removed);
        activity.place = Some(place.clone());
        // Copied: the store keeps parts of it, and they would keep the whole segment as it was read.
        let carried = replayed
            .carry
            .take()
            .map(|carry| (carry.index, Bytes::copy_from_slice(&carry.payload)));
        let carried_index = carried.as_ref().map(|(index, _)| *index);
        activity.carried_bytes = carried.as_ref().map_or(0, |(_, bytes)| bytes.len() as u64);
        let restored = rescue::load(&place).and_then(|(rescued, upto)| {
            activity.rescued_upto = upto;
            S::restore(place, listed.options.clone(), carried).map(|store| (store, rescued))
        });
        let group_log = form.is_replicated().then(|| std::mem::take(&mut replayed));
        let mut holes = replayed.holes;
        let content = restored.map(|(restored, mut entries)| {
            if group_log.is_none() {
                self.log.post(Letter::Release(id.owner(), restored.index));
            }
            if carried_index.is_some_and(|carried| carried < restored.index) {
                self.log
                    .post(Letter::DropMark(id.owner(), FrameKind::Carry));
            }
            if group_log.is_some() {
                entries.clear();
            }
            // The journal may repeat what was moved out of it.
            let journal = replayed.entries.into_iter();
            rescue::follow(
                &mut entries,
                journal.map(|entry| (entry.index, entry.payload)),
            );
            entries.retain(|(index, _)| *index > restored.index);
            note_gaps(&mut holes, restored.index, &entries);
            RecoveredStore {
                store: restored.store,
                index: restored.index,
                core: restored.core,
                entries,
            }
        });
        activity.failed = content.is_err();
        let mut activities = self.activities.lock();
        activities.carried_bytes += activity.carried_bytes;
        activities.streams.insert(id, activity);
        drop(activities);
        if let Err(error) = &content {
            tracing::error!(stream = %id, name = listed.name, %error, "a stream could not be restored");
        }
        Recovered {
            id,
            account: listed.account.clone(),
            name: listed.name.clone(),
            options: listed.options.clone(),
            content,
            holes,
            form,
            group_log,
        }
    }

    /// Lets the journal forget streams that were removed.
    fn forget_removed(&self, catalog: &Catalog<S::Options>, replay: &mut Replay) {
        let was_stream = |owner: &Owner| {
            owner.0 >= super::catalog::FIRST_STREAM
                && owner.0 < catalog.next_stream
                && !catalog.streams.contains_key(&StreamId(owner.0))
        };
        // With damage around, an unknown owner may be a stream whose creation is lost: its frames are kept.
        let gone = |owner: &Owner, damaged: bool| {
            catalog.removing.contains(&StreamId(owner.0)) || !damaged && was_stream(owner)
        };
        let damaged = !replay.damage.is_empty();
        let owners: Vec<Owner> = replay
            .owners
            .keys()
            .copied()
            .filter(|owner| gone(owner, damaged))
            .collect();
        for owner in owners {
            replay.owners.remove(&owner);
            self.log.post(Letter::Forget(owner));
        }
    }
}

/// A stream's log has no gaps: where there is one, something is lost, even if the journal no longer remembers how.
pub(super) fn note_gaps(holes: &mut Vec<(u64, u64)>, cut: u64, entries: &[(u64, Bytes)]) {
    let mut last = cut;
    for (index, _) in entries {
        let gap = (last.saturating_add(1), index.saturating_sub(1));
        if gap.0 <= gap.1 && !holes.contains(&gap) {
            holes.push(gap);
        }
        last = *index;
    }
    // What the checkpoint covers is not missed.
    holes.retain(|(_, last)| *last > cut);
    holes.sort_unstable();
}

fn prepare_directory(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn DiskLock>, OpenError> {
    disk.create_directory(directory)?;
    if let Some(parent) = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        disk.sync_directory(parent)?;
    }
    if let Some(path) = find_reference_stream(disk, directory)? {
        return Err(OpenError::Foreign(path));
    }
    let lock = match disk.lock(&directory.join(LOCK_NAME)) {
        Err(error) if error.kind == DiskErrorKind::Locked => {
            return Err(OpenError::InUse(directory.to_owned()));
        }
        lock => lock?,
    };
    disk.create_directory(&directory.join(STREAMS_NAME))?;
    disk.sync_directory(directory)?;
    Ok(lock)
}

fn open_keys(
    disk: &dyn Disk,
    options: &EngineOptions,
    entropy: &dyn Entropy,
) -> Result<Option<Arc<KeyRing>>, KeyRingError> {
    let Some(encryption) = &options.encryption else {
        return Ok(None);
    };
    let ring = KeyRing::open(
        disk,
        &options.directory,
        &encryption.passphrase,
        encryption.previous.as_deref(),
        encryption.cipher,
        entropy,
    )?;
    Ok(Some(Arc::new(ring)))
}

fn open_log(
    disk: &Arc<dyn Disk>,
    options: &EngineOptions,
    journal_options: JournalOptions,
    entropy: &Arc<dyn Entropy>,
) -> Result<(Log, Replay), OpenJournalError> {
    let directory = options.directory.join(JOURNAL_NAME);
    let disk = Arc::clone(disk);
    let entropy = Arc::clone(entropy);
    Ok(match options.threads {
        Threads::Own(_) => {
            let (journal, replay) = Journal::open(disk, &directory, journal_options, entropy)?;
            (Log::Threaded(journal), replay)
        }
        Threads::None => {
            debug_assert!(matches!(
                options.durability,
                Durability::Always | Durability::Interval(_)
            ));
            let (core, replay) = JournalCore::open(disk, &directory, journal_options, entropy)?;
            (Log::inline(core), replay)
        }
    })
}

struct FoundCatalog<O> {
    catalog: Catalog<O>,
    /// Up to where it was found whole; what came after it stands in entries.
    carried_index: u64,
    /// Part of it is lost: streams may exist that it does not name.
    damaged: bool,
}

fn read_catalog<S: Persistent>(replay: &mut Replay) -> Result<FoundCatalog<S::Options>, OpenError> {
    let replayed = replay.take(Owner::CATALOG);
    let mut damaged =
        !replayed.holes.is_empty() || replay.damage.iter().any(|damage| !damage.all_named);
    let mut catalog = Catalog::new();
    if let Some(carry) = replayed.carry {
        match Catalog::decode::<S>(carry.index, &mut carry.payload.clone()) {
            Ok(carried) => catalog = carried,
            Err(MalformedCatalog::LaterVersion(version)) => {
                return Err(OpenError::CatalogVersion(version));
            }
            Err(MalformedCatalog::Damaged) => damaged = true,
        }
    }
    let carried_index = catalog.index;
    for entry in replayed.entries {
        if entry.index <= catalog.index {
            continue;
        }
        match CatalogEntry::decode::<S>(&mut entry.payload.clone()) {
            Ok(change) => catalog.apply(entry.index, change),
            Err(MalformedCatalog::LaterVersion(version)) => {
                return Err(OpenError::CatalogVersion(version));
            }
            Err(MalformedCatalog::Damaged) => {
                tracing::error!(
                    index = entry.index,
                    "an entry of the catalog makes no sense"
                );
                damaged = true;
            }
        }
    }
    if damaged {
        tracing::error!("the catalog is damaged; streams are also looked for in their directories");
        // Ids that the lost part may have used are not used again.
        let highest = replay.owners.keys().map(|owner| owner.0).max();
        catalog.next_stream = catalog
            .next_stream
            .max(highest.unwrap_or_default().saturating_add(1))
            .saturating_add(1 << 20);
    }
    Ok(FoundCatalog {
        catalog,
        carried_index,
        damaged,
    })
}

fn stream_directories(
    disk: &dyn Disk,
    directory: &Path,
) -> Result<Vec<(StreamId, PathBuf)>, DiskError> {
    let streams = directory.join(STREAMS_NAME);
    let entries = disk.list(&streams)?;
    let directories = entries.into_iter().filter(|entry| entry.is_directory);
    Ok(directories
        .filter_map(|entry| {
            let id = u64::from_str_radix(&entry.name, 16).ok().map(StreamId)?;
            (id.directory_name() == entry.name).then(|| (id, streams.join(entry.name)))
        })
        .collect())
}

/// What the log of a stream that the catalog forgot consists of, to go by the frames in the journal.
fn form_of(replay: &Replay, id: StreamId) -> Form {
    let votes = |log: &OwnerReplay| log.vote.is_some() || log.purged.is_some();
    match replay.owners.get(&id.owner()).is_some_and(votes) {
        true => Form::Replicated(Replica::UNKNOWN),
        false => Form::Plain,
    }
}

/// Takes a stream that only its directory remembers into the catalog.
fn adopt<S: Persistent>(catalog: &mut Catalog<S::Options>, meta: StreamMeta, form: Form) {
    let Some(options) = S::decode_options(&meta.options) else {
        return;
    };
    if catalog.find(&meta.account, &meta.name).is_some() {
        return;
    }
    tracing::warn!(stream = %meta.id, name = meta.name, "the catalog lost a stream; its directory brought it back");
    let listed = Listed {
        account: meta.account,
        name: meta.name,
        options,
        form,
    };
    catalog.insert(meta.id, listed);
}

//! A store directory as it lies there, for tools: reads everything, changes nothing, takes no lock, and goes on where it is damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::catalog::{Catalog, CatalogEntry};
use super::meta::read_meta;
use super::open::note_gaps;
use super::rescue::{self, Entries, RescuedEntries};
use super::{Form, JOURNAL_NAME, RecoveredStore, RestoreError, STREAMS_NAME, StreamId};
use crate::block::BlockCache;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::entropy::SystemEntropy;
use crate::executor::InlineExecutor;
use crate::journal::{self, Owner, OwnerReplay, Replay, SegmentSummary, SegmentUnreadable};
use crate::seal::KeyRing;
use crate::store::{FileOptions, FileStore, Limits};

/// Unpacked chunks of a stream that is looked at.
const VIEW_CACHE_BYTES: usize = 16 << 20;

/// What a store directory holds.
#[derive(Debug)]
pub struct StoreOutline {
    /// The streams, by id.
    pub streams: Vec<StoredStream>,
    /// The journal's segments, by number.
    pub segments: Vec<SegmentSummary>,
    /// Whether a part of the catalog is damaged: names of streams may be missing.
    pub catalog_damaged: bool,
    /// Whether the journal is encrypted and its key was not given: streams and their names may be missing.
    pub locked: bool,
    /// Owners of journal frames that are no streams known here: raft groups, and streams whose names are lost.
    pub other_owners: Vec<Owner>,
}

/// A stream of a store.
#[derive(Debug, Clone)]
pub struct StoredStream {
    /// Its id.
    pub id: StreamId,
    /// Its account, as far as it is known.
    pub account: Option<String>,
    /// Its name, as far as it is known.
    pub name: Option<String>,
    /// Where its files are, if it has any.
    pub directory: PathBuf,
    /// What its log consists of.
    pub form: Form,
    /// Whether it is being removed.
    pub removing: bool,
    /// The checkpoint that the journal carries for it.
    pub carried: Option<Bytes>,
    /// Its entries in the journal by index, those before its checkpoint too. They share memory with the journal as it was read.
    pub entries: Vec<(u64, Bytes)>,
    /// Of a stream that is replicated: its group's log as the journal has it. Entries and holes are empty then.
    pub group_log: Option<OwnerReplay>,
    /// Ranges of entries that are lost to damage.
    pub holes: Vec<(u64, u64)>,
    /// Entries that were moved to its directory, because it could not take a checkpoint.
    pub rescued: Vec<RescuedEntries>,
}

impl StoreOutline {
    /// Reads the journal and the names of the streams' directories.
    pub fn read(
        disk: &dyn Disk,
        directory: &Path,
        ring: Option<&KeyRing>,
    ) -> Result<Self, DiskError> {
        let journal = directory.join(JOURNAL_NAME);
        let segments = or_missing(journal::inspect(disk, &journal, ring))?;
        let mut replay = or_missing(journal::peek(disk, &journal, ring))?;
        let locked =
            |segment: &SegmentSummary| matches!(segment.content, Err(SegmentUnreadable::Key(_)));
        let unreadable = |segment: &SegmentSummary| segment.content.is_err() && !locked(segment);
        let (catalog, damaged) = read_catalog(&mut replay);
        let mut streams = BTreeMap::new();
        for (id, listed) in catalog.streams {
            let mut stream = stream(directory, id, Some((listed.account, listed.name)));
            stream.form = listed.form;
            streams.insert(id, stream);
        }
        for id in catalog.removing {
            let mut stream = stream(directory, id, None);
            stream.removing = true;
            streams.insert(id, stream);
        }
        for id in stream_directories(disk, directory)? {
            let stream = streams
                .entry(id)
                .or_insert_with(|| stream(directory, id, None));
            if stream.name.is_none()
                && let Ok(meta) = read_meta(disk, &stream.directory)
            {
                stream.account = Some(meta.account);
                stream.name = Some(meta.name);
            }
        }
        for stream in streams.values_mut() {
            stream.rescued = rescue::inspect(disk, &stream.directory, stream.id, ring)?;
        }
        let mut other_owners = Vec::new();
        for (owner, replayed) in replay.owners {
            match streams.get_mut(&StreamId(owner.0)) {
                Some(stream) => stream.take(replayed),
                None => other_owners.push(owner),
            }
        }
        Ok(Self {
            streams: streams.into_values().collect(),
            catalog_damaged: damaged || segments.iter().any(unreadable),
            locked: segments.iter().any(locked),
            segments,
            other_owners,
        })
    }
}

impl StoredStream {
    fn take(&mut self, mut replayed: OwnerReplay) {
        self.carried = replayed.carry.take().map(|carry| carry.payload);
        if self.form.is_replicated() {
            self.group_log = Some(replayed);
            return;
        }
        self.entries = replayed
            .entries
            .into_iter()
            .map(|entry| (entry.index, entry.payload))
            .collect();
        self.holes = replayed.holes;
    }

    /// The store as a start would restore it, and the log entries that the start would apply to it, as far as they can be read.
    /// Nothing on disk changes, and whatever is done to the store stays in memory. What a server remembers of a store's
    /// limits before its first checkpoint is not applied: there are none.
    pub fn view(
        &self,
        disk: Arc<dyn Disk>,
        ring: Option<Arc<KeyRing>>,
    ) -> Result<RecoveredStore<FileStore>, RestoreError> {
        let cache = Arc::new(BlockCache::new(VIEW_CACHE_BYTES));
        let entropy = Arc::new(SystemEntropy);
        let usual = FileOptions::new(self.id.0, entropy, cache, Arc::new(InlineExecutor));
        let options = FileOptions {
            cipher: ring.as_ref().map(|ring| ring.cipher()),
            ring,
            ..usual
        };
        let directory = self.directory.clone();
        let carried = self.carried.clone();
        let opened = FileStore::view(disk, directory, carried, options, Limits::default())?;
        Ok(RecoveredStore {
            store: opened.store,
            index: opened.index,
            core: opened.core,
            entries: self.entries_after(opened.index),
        })
    }

    /// Its log entries after an index: those that were moved to its directory, then those in the journal.
    pub fn entries_after(&self, index: u64) -> Vec<(u64, Bytes)> {
        let mut entries = Entries::new();
        for rescued in &self.rescued {
            rescue::follow(&mut entries, rescued.entries.iter().cloned());
        }
        rescue::follow(&mut entries, self.entries.iter().cloned());
        entries.retain(|(at, _)| *at > index);
        entries
    }

    /// Ranges of log entries after an index that are lost.
    pub fn holes_after(&self, index: u64) -> Vec<(u64, u64)> {
        let mut holes = self.holes.clone();
        note_gaps(&mut holes, index, &self.entries_after(index));
        holes
    }
}

fn stream(directory: &Path, id: StreamId, names: Option<(String, String)>) -> StoredStream {
    let (account, name) = names.unzip();
    StoredStream {
        id,
        account,
        name,
        directory: directory.join(STREAMS_NAME).join(id.directory_name()),
        form: Form::Plain,
        removing: false,
        carried: None,
        entries: Vec::new(),
        group_log: None,
        holes: Vec::new(),
        rescued: Vec::new(),
    }
}

/// The catalog with the streams' options left as bytes, and whether a part of it is lost.
fn read_catalog(replay: &mut Replay) -> (Catalog<Bytes>, bool) {
    let raw = |options: &[u8]| Some(Bytes::copy_from_slice(options));
    let replayed = replay.take(Owner::CATALOG);
    let mut damaged =
        !replayed.holes.is_empty() || replay.damage.iter().any(|damage| !damage.all_named);
    let mut catalog = Catalog::new();
    if let Some(carry) = replayed.carry {
        match Catalog::decode_with(carry.index, &mut carry.payload.clone(), raw) {
            Ok(carried) => catalog = carried,
            Err(_) => damaged = true,
        }
    }
    for entry in replayed.entries {
        if entry.index <= catalog.index {
            continue;
        }
        match CatalogEntry::decode_with(&mut entry.payload.clone(), raw) {
            Ok(change) => catalog.apply(entry.index, change),
            Err(_) => damaged = true,
        }
    }
    (catalog, damaged)
}

fn stream_directories(disk: &dyn Disk, directory: &Path) -> Result<Vec<StreamId>, DiskError> {
    let entries = or_missing(disk.list(&directory.join(STREAMS_NAME)))?;
    let directories = entries.iter().filter(|entry| entry.is_directory);
    Ok(directories
        .filter_map(|entry| {
            let id = u64::from_str_radix(&entry.name, 16).ok().map(StreamId)?;
            (id.directory_name() == entry.name).then_some(id)
        })
        .collect())
}

fn or_missing<T: Default>(read: Result<T, DiskError>) -> Result<T, DiskError> {
    match read {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(T::default()),
        read => read,
    }
}

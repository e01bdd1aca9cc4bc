//! One server with one stream: the core over the storage engine and a simulated disk, which can lose its power at any moment.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::disk::Disk;
use storage::disk::sim::SimDisk;
use storage::engine::{EngineOptions, FileEngine, LogEntry, StoreOptions, StreamId, Threads};
use storage::entropy::SeededEntropy;
use storage::journal::{Commit, CommitSink, JournalError};
use storage::store::{FileStore, Limits, MemStore};

use super::super::simulation::Dice;
use super::super::{START, TestWorld};
use crate::jetstream::core::{
    Effects, Event, Outgoing, Step, StreamCore, StreamReply, StreamRequest,
};
use crate::jetstream::types::{Storage, StreamConfig};

/// The place of a stream's first entry in its log.
const BIRTH_INDEX: u64 = 1;

/// A known failure that can be brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Museum {
    /// None.
    #[default]
    Closed,
    /// Entries are applied, and with that acknowledged and delivered, before they are synced.
    AppliesEarly,
    /// A start takes the log to end where something in it fails its check.
    CutsAtDamage,
    /// Whoever begins to lead has forgotten the ids of messages.
    ForgetsIds,
}

/// Commits in the log begin at multiples of this.
const PAGE_BYTES: usize = 4096;

/// A segment of the log, as it was at some time.
pub(super) struct Written {
    path: PathBuf,
    content: Vec<u8>,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// In order: everything decided becomes durable first.
    Clean,
    /// The process is killed: what was handed to the log is there.
    Killed,
    /// The power goes: what was not synced is lost, kept or torn.
    PowerCut,
}

/// Hears what became of entries.
#[derive(Default)]
struct Sink {
    committed: Mutex<Vec<u64>>,
    failed: Mutex<bool>,
}

impl CommitSink for Sink {
    fn committed(&self, commits: &[Commit]) {
        let indexes = commits.iter().map(|commit| commit.index);
        self.committed.lock().extend(indexes);
    }

    fn failed(&self, _error: &JournalError) {
        *self.failed.lock() = true;
    }
}

/// Where a stream in files lives.
struct Place {
    disk: SimDisk,
    engine: Arc<FileEngine>,
    id: StreamId,
    sink: Arc<Sink>,
}

pub(super) struct Host {
    seed: u64,
    boots: u64,
    place: Option<Place>,
    pub(super) core: StreamCore,
    pub(super) now: i64,
    pub(super) world: TestWorld,
    pub(super) effects: Effects,
    /// Decided, and not handed to the log.
    waiting: VecDeque<(u64, Bytes)>,
    /// The place of a file whose bit is to flip while the server does not run.
    pub(super) damage: Option<(PathBuf, u64)>,
    museum: Museum,
    /// Applied, and not handed to the log: only where that is what is to go wrong.
    late: Option<(u64, Bytes)>,
    /// Where the log stood when the stream was brought back, and what it was then.
    pub(super) recovered: (u64, Bytes),
    token: u64,
}

impl Host {
    pub(super) fn new(seed: u64, config: StreamConfig) -> Self {
        if config.storage == Storage::Memory {
            let store = Box::new(MemStore::new(Limits::default()));
            let core = StreamCore::create(config, "", START, store).expect("creates");
            return Self::around(seed, core, None);
        }
        let disk = SimDisk::new(seed);
        let engine = open(&disk, seed).0;
        let options = StoreOptions {
            // Small, so that there are several.
            block_bytes: Some(2048),
            ..StoreOptions::default()
        };
        let made = engine.create("$G", &config.name, options);
        let (id, store) = made.expect("the stream is created");
        let mut core =
            StreamCore::create(config, "", START, Box::new(store)).expect("the stream begins");
        let birth = core.birth(BIRTH_INDEX);
        let place = Place {
            disk,
            engine,
            id,
            sink: Arc::default(),
        };
        place.submit(BIRTH_INDEX, birth);
        place.sink.committed.lock().clear();
        Self::around(seed, core, Some(place))
    }

    fn around(seed: u64, core: StreamCore, place: Option<Place>) -> Self {
        let mut host = Self {
            seed,
            boots: 0,
            place,
            core,
            now: START,
            world: TestWorld::default(),
            effects: Effects::default(),
            waiting: VecDeque::new(),
            damage: None,
            museum: Museum::Closed,
            late: None,
            recovered: (0, Bytes::new()),
            token: 0,
        };
        host.step(|core, step| core.lead(1, step));
        host
    }

    pub(super) fn open_museum(&mut self, museum: Museum) {
        self.museum = museum;
    }

    pub(super) fn in_memory(&self) -> bool {
        self.place.is_none()
    }

    fn step<R>(&mut self, act: impl FnOnce(&mut StreamCore, &mut Step<'_>) -> R) -> R {
        let mut step = Step {
            now_ns: self.now,
            world: &self.world,
            effects: &mut self.effects,
        };
        act(&mut self.core, &mut step)
    }

    /// Hands an event in and lets everything happen that follows.
    pub(super) fn event(&mut self, event: Event) {
        self.step(|core, step| core.handle(event, step));
        self.settle();
    }

    /// Lets everything happen that is to be done now.
    pub(super) fn settle(&mut self) {
        loop {
            let more = self.step(|core, step| core.run(step));
            let entries = self.core.take_entries(self.now);
            let decided = !entries.is_empty();
            self.waiting.extend(entries);
            let committed = self.commit();
            if !(more || decided || committed) {
                return;
            }
        }
    }

    /// Hands what is decided to the log; whether any of it became durable.
    fn commit(&mut self) -> bool {
        let mut any = false;
        while let Some((index, entry)) = self.waiting.pop_front() {
            let committed = match &self.place {
                None => vec![index],
                Some(place) if self.museum == Museum::AppliesEarly => {
                    if let Some((index, entry)) = self.late.replace((index, entry)) {
                        place.submit(index, entry);
                        place.sink.committed.lock().clear();
                    }
                    vec![index]
                }
                Some(place) => {
                    place.submit(index, entry);
                    std::mem::take(&mut *place.sink.committed.lock())
                }
            };
            any |= !committed.is_empty();
            for index in committed {
                let applied = self.step(|core, step| core.committed(index, step));
                if let Err(error) = applied {
                    // Blocks are written beside: the store takes nothing more when that fails.
                    assert!(self.is_cut(), "{error}");
                    self.waiting.clear();
                    return false;
                }
            }
        }
        any
    }

    /// When there is something to do although nothing comes.
    pub(super) fn next_deadline_ns(&self) -> i64 {
        let next = self.core.next_deadline_ns().unwrap_or(i64::MAX);
        next.max(self.now + 1)
    }

    /// It is that late.
    pub(super) fn advance(&mut self, now: i64) {
        self.now = now;
        self.step(|core, step| core.tick(step));
        self.settle();
    }

    pub(super) fn request(&mut self, request: StreamRequest) -> Option<StreamReply> {
        self.token += 1;
        let token = self.token;
        self.event(Event::Request { token, request });
        let replies = &mut self.effects.replies;
        let at = replies.iter().position(|reply| reply.0 == token)?;
        Some(replies.remove(at).1)
    }

    /// What was sent since the last look.
    pub(super) fn sent(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.effects.outgoing)
    }

    /// Takes a checkpoint of all that is applied.
    pub(super) fn checkpoint(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        let snapshot = self.core.snapshot();
        let index = self.core.applied_index();
        let store: &mut dyn std::any::Any = self.core.store_mut();
        let store = store.downcast_mut::<FileStore>().expect("a store in files");
        // It may be that the power is off.
        let _ = place.engine.checkpoint(place.id, store, index, snapshot);
    }

    /// The newest segment of the log as it is now.
    pub(super) fn newest_segment(&self) -> Option<Written> {
        let disk = &self.place.as_ref()?.disk;
        let path = segments(disk).pop()?;
        let content = disk.content(&path)?;
        Some(Written { path, content })
    }

    /// Some place in what was written then, if the log went on since. The newest commit of a log is told from one that was never finished by nothing but its checksum:
    /// only what has a successor is known to have been synced. Behind its end a segment holds zeros, or what it held in an earlier life, until a commit comes there.
    pub(super) fn a_place_in(&self, then: &Written, dice: &mut Dice) -> Option<(PathBuf, u64)> {
        let disk = &self.place.as_ref()?.disk;
        let now = disk.content(&then.path)?;
        let went_on = now != then.content || segments(disk).last() != Some(&then.path);
        let pages = then.content.chunks(PAGE_BYTES).zip(now.chunks(PAGE_BYTES));
        let is_old = |(then, now): (&[u8], &[u8])| then == now && now.iter().any(|byte| *byte != 0);
        let old: Vec<usize> = pages
            .enumerate()
            .filter_map(|(number, page)| is_old(page).then_some(number))
            .collect();
        if !went_on || old.is_empty() {
            return None;
        }
        let page = old[dice.below(old.len() as u64) as usize];
        let mut bytes = now.chunks(PAGE_BYTES).nth(page)?.iter();
        let written = bytes.rposition(|byte| *byte != 0)? as u64;
        let offset = (page * PAGE_BYTES) as u64 + dice.below(written + 1);
        Some((then.path.clone(), offset))
    }

    /// From here on the power goes after so many changes to the disk.
    pub(super) fn cut_power_after(&self, changes: u64) {
        if let Some(Place { disk, .. }) = &self.place {
            disk.halt_at(disk.changes() + changes);
        }
    }

    /// Whether the power is off.
    fn is_cut(&self) -> bool {
        let place = self.place.as_ref();
        place.is_some_and(|place| place.disk.is_halted())
    }

    /// The server ends and starts again. `Err` says why it does not come back.
    pub(super) fn restart(&mut self, end: End) -> Result<(), String> {
        if self.place.is_none() {
            return Ok(());
        }
        if end == End::Clean {
            let last = self.step(|core, step| core.take_last_entries(step));
            self.waiting.extend(last);
            self.commit();
        }
        let Some(place) = self.place.take() else {
            return Ok(());
        };
        self.waiting.clear();
        if let (Some((index, entry)), End::Clean) = (self.late.take(), end) {
            place.submit(index, entry);
        }
        self.effects = Effects::default();
        // The core holds the store, and that its files.
        let empty = MemStore::new(Limits::default());
        let config = StreamConfig::default();
        self.core = StreamCore::create(config, "", START, Box::new(empty)).expect("creates");
        if end == End::Clean {
            place.engine.close();
        }
        let Place {
            disk, engine, id, ..
        } = place;
        drop(engine);
        match end {
            End::PowerCut => disk.crash(),
            End::Clean | End::Killed => disk.kill(),
        }
        self.boots += 1;
        if let Some((path, offset)) = self.damage.take() {
            disk.flip_bit(&path, offset, (offset % 8) as u8);
            if self.museum == Museum::CutsAtDamage {
                cut_journal(&disk, &path, offset);
            }
        }
        let (engine, found) = try_open(&disk, self.seed.wrapping_mul(31) + self.boots)?;
        let found = found.ok_or("the stream is gone")?;
        let content = found.content.map_err(|error| error.to_string())?;
        if let Some(hole) = found.holes.first() {
            return Err(format!("the log lacks {hole:?}"));
        }
        let store = Box::new(content.store);
        let core = StreamCore::recover(&content.core, content.entries, "", store);
        self.core = core.map_err(|error| error.to_string())?;
        self.recovered = (self.core.applied_index(), self.core.snapshot());
        self.place = Some(Place {
            disk,
            engine,
            id,
            sink: Arc::default(),
        });
        self.step(|core, step| core.lead(1, step));
        self.settle();
        Ok(())
    }
}

impl Place {
    fn submit(&self, index: u64, entry: Bytes) {
        let sink: Arc<dyn CommitSink> = Arc::<Sink>::clone(&self.sink);
        let entry = LogEntry {
            stream: self.id,
            index,
            payload: entry.into(),
            token: 0,
        };
        if self.engine.submit([entry], &sink).is_err() {
            *self.sink.failed.lock() = true;
        }
    }
}

type Found = storage::engine::Recovered<FileStore>;

/// The segments of the log, the oldest first.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let journal = Path::new("/store/journal");
    let files = disk.list(journal).unwrap_or_default();
    files
        .into_iter()
        .map(|file| journal.join(file.name))
        .collect()
}

/// Ends the log at a place.
fn cut_journal(disk: &SimDisk, path: &Path, offset: u64) {
    let page_bytes = PAGE_BYTES as u64;
    for later in segments(disk) {
        let mut content = disk.content(&later).unwrap_or_default();
        let from = match later.as_path() == path {
            // Its header stays.
            true => (offset / page_bytes * page_bytes).max(page_bytes) as usize,
            false => continue,
        };
        if let Some(rest) = content.get_mut(from..) {
            rest.fill(0);
        }
        disk.set_content(&later, &content);
    }
}

fn open(disk: &SimDisk, seed: u64) -> (Arc<FileEngine>, Option<Found>) {
    try_open(disk, seed).unwrap_or_else(|error| panic!("{error}"))
}

fn try_open(disk: &SimDisk, seed: u64) -> Result<(Arc<FileEngine>, Option<Found>), String> {
    let mut options = EngineOptions::new("/store");
    options.threads = Threads::None;
    options.cache_bytes = 256 * 1024;
    options.reserve_bytes = 0;
    // Small, so that segments end and come again.
    options.journal.segment_bytes = 32 * 1024;
    options.journal.commit_bytes_max = 8 * 1024;
    options.journal.soft_bytes = 128 * 1024;
    options.journal.hard_bytes = 1024 * 1024;
    options.carry_bytes_max = (Dice(seed).below(4) * 1024) as usize;
    let entropy = Arc::new(SeededEntropy::new(seed));
    let opened = FileEngine::open(Arc::new(disk.clone()), options, entropy);
    let opened = opened.map_err(|error| format!("the store does not open: {error}"))?;
    Ok((opened.engine, opened.streams.into_iter().next()))
}

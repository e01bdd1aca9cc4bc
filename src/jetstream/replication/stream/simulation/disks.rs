//! Disks that go wrong: one server's at a time, so that no group ever has more than a minority of damaged replicas.
//!
//! What fails for once, or fills up, is over with the next start. Where bytes went bad or files are gone, the start finds it and the replica comes back under
//! another id, or the replica finds it while it runs and takes itself out; what nobody had to read until then ends with a new disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raft::group::Role;
use rand::RngExt;
use rand::rngs::SmallRng;
use storage::disk::Disk;
use storage::disk::sim::{Fault, SimDisk};
use tokio::time::Instant;

use super::run::{Found, World};

/// How a disk goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A write, a sync, or a change of names fails.
    Change,
    /// A read fails, once.
    Read,
    /// There is no room for more.
    Full,
    /// A place of a block can not be read any more.
    BadSector,
    /// A bit of a block flips.
    Flip,
    /// A file of a stream is gone.
    LostFile,
}

/// The disk that is wrong.
pub(super) struct Hurt {
    /// Whose it is.
    pub(super) at: usize,
    trouble: Trouble,
    /// Somebody sees to it then.
    until: Instant,
}

impl Trouble {
    fn any(random: &mut SmallRng) -> Self {
        const ALL: [Trouble; 6] = [
            Trouble::Change,
            Trouble::Read,
            Trouble::Full,
            Trouble::BadSector,
            Trouble::Flip,
            Trouble::LostFile,
        ];
        ALL[random.random_range(0..ALL.len())]
    }

    /// Whether a start alone does not make up for it.
    fn damages(self) -> bool {
        matches!(self, Self::BadSector | Self::Flip | Self::LostFile)
    }

    /// Lets it happen; `false` when there is nothing that it could happen to.
    fn happen(self, disk: &SimDisk, random: &mut SmallRng) -> bool {
        match self {
            Self::Change => {
                let change = disk.changes() + random.random_range(0..100);
                disk.fail_change(change, Fault::Error);
            }
            Self::Read => disk.fail_read(disk.reads() + random.random_range(0..20)),
            Self::Full => {
                let room = random.random_range(0..100_000);
                disk.set_capacity(Some(disk.used_bytes() + room));
            }
            Self::BadSector | Self::Flip | Self::LostFile => {
                let files = stream_files(disk, self != Self::LostFile);
                if files.is_empty() {
                    return false;
                }
                let path = &files[random.random_range(0..files.len())];
                let length = disk.content(path).map_or(0, |bytes| bytes.len()) as u64;
                let offset = random.random_range(0..length.max(1));
                match self {
                    Self::BadSector => disk.fail_reads_of(path, offset),
                    Self::Flip => disk.flip_bit(path, offset, random.random_range(0..8)),
                    _ => lose(disk, path),
                }
            }
        }
        true
    }
}

fn lose(disk: &SimDisk, path: &Path) {
    let gone = disk.remove_file(path);
    let parent = path.parent().expect("a file lies in a directory");
    // Nothing else goes wrong with this disk at the time.
    gone.and_then(|()| disk.sync_directory(parent))
        .expect("a file can be removed");
}

/// The files of all streams; only those of blocks, when that is asked for.
fn stream_files(disk: &SimDisk, blocks: bool) -> Vec<PathBuf> {
    let streams = Path::new("/store/streams");
    let mut files = Vec::new();
    for stream in disk.list(streams).unwrap_or_default() {
        let directory = streams.join(&stream.name);
        for file in disk.list(&directory).unwrap_or_default() {
            if !file.is_directory && (!blocks || file.name.ends_with(".block")) {
                files.push(directory.join(&file.name));
            }
        }
    }
    files
}

impl World {
    /// Whether the disk of that server is what is wrong.
    pub(super) fn is_hurt(&self, at: usize) -> bool {
        self.hurt.as_ref().is_some_and(|hurt| hurt.at == at)
    }

    /// Something happens to a disk, when all is well with the others.
    pub(super) fn hurt_disk(&mut self, at: usize) {
        let is_well = self.hurt.is_none() && self.are_settled() && self.servers[at].is_running();
        if !is_well || self.would_forget(at) {
            return;
        }
        let trouble = Trouble::any(&mut self.random);
        let disk = self.servers[at].disk.clone();
        if !trouble.happen(&disk, &mut self.random) {
            return;
        }
        self.say(|| format!("the disk of s{}: {trouble:?}", at + 1));
        self.note(trouble as u8);
        self.hurts += 1;
        for clients in &mut self.clients {
            clients.disks_were_hurt = true;
        }
        let until = Instant::now() + Duration::from_millis(self.random.random_range(500..8000));
        self.hurt = Some(Hurt { at, trouble, until });
    }

    /// A server on which something has stopped is started again; a damaged disk is replaced, at the latest after a while.
    pub(super) async fn see_to_the_hurt(&mut self, at_once: bool) -> Result<(), Found> {
        let Some(hurt) = &self.hurt else {
            return Ok(());
        };
        let (at, trouble) = (hurt.at, hurt.trouble);
        let is_time = at_once || Instant::now() >= hurt.until;
        if !is_time && !self.has_stopped(at) {
            return Ok(());
        }
        if self.would_forget(at) && self.servers[at].is_running() {
            return Ok(());
        }
        if !trouble.damages() {
            self.crash(at, None).await;
            self.servers[at].disk.set_capacity(None);
            self.hurt = None;
            return Ok(());
        }
        if !self.are_settled() {
            return Ok(());
        }
        self.say(|| format!("s{} gets a new disk", at + 1));
        self.hurt = None;
        self.wipe(at).await
    }

    /// Whether something there takes no part any more.
    fn has_stopped(&self, at: usize) -> bool {
        let server = &self.servers[at];
        server.groups().into_iter().any(|group| {
            server.status(group).is_some_and(|status| {
                let is_of_use = status.offline.is_none() && status.spoilt.is_none();
                !is_of_use || matches!(status.role, Role::Stopped { .. })
            })
        })
    }
}

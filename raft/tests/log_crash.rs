//! Power cuts at every change of the disk while a group votes, appends, truncates and purges: what was answered
//! is there afterwards, and nothing is there that was not asked for.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use raft::codec::log_id;
use raft::log::{GroupLog, LogImage, recover};
use raft::types::{Command, Entry, LeaderId, LogId, Payload, Vote};
use storage::disk::Disk;
use storage::disk::sim::SimDisk;
use storage::entropy::SeededEntropy;
use storage::journal::{Journal, JournalOptions, Owner};

const OWNER: Owner = Owner(3);
const DIRECTORY: &str = "/journal";

/// One thing that a group does and waits for.
#[derive(Debug, Clone)]
enum Step {
    Vote(u64),
    /// Entries of a term, at consecutive indexes from the first.
    Append {
        term: u64,
        first: u64,
        count: u64,
    },
    /// What a follower does on a conflict: everything from `first` on is replaced.
    Replace {
        term: u64,
        first: u64,
        count: u64,
    },
    Purge(u64),
}

/// What the log must look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Picture {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
}

impl Picture {
    fn of(image: &LogImage) -> Self {
        Self {
            vote: image.vote,
            purged: image.purged,
            entries: image.log_ids().collect(),
        }
    }

    /// The pictures on the way through a step, the last one being what is there when it was answered.
    fn through(&self, step: &Step) -> Vec<Self> {
        let mut picture = self.clone();
        match *step {
            Step::Vote(term) => {
                picture.vote = Some(vote(term));
                vec![picture]
            }
            Step::Append { term, first, count } => picture.grow(term, first, count),
            Step::Replace { term, first, count } => {
                picture.entries.retain(|id| id.index < first);
                let mut pictures = vec![picture.clone()];
                pictures.extend(picture.grow(term, first, count));
                pictures
            }
            Step::Purge(upto) => {
                picture.purged = picture.entries.iter().find(|id| id.index == upto).copied();
                picture.entries.retain(|id| id.index > upto);
                vec![picture]
            }
        }
    }

    fn grow(mut self, term: u64, first: u64, count: u64) -> Vec<Self> {
        let mut pictures = Vec::new();
        for index in first..first + count {
            self.entries.push(log_id(term, index));
            pictures.push(self.clone());
        }
        pictures
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        leader_id: LeaderId { term, voted_for: 1 },
        committed: false,
    }
}

fn entries(term: u64, first: u64, count: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: log_id(term, index),
        payload: Payload::Normal(Command(Bytes::from(vec![term as u8; 100]))),
    };
    (first..first + count).map(entry).collect()
}

fn steps() -> Vec<Step> {
    vec![
        Step::Vote(1),
        Step::Append {
            term: 1,
            first: 0,
            count: 1,
        },
        Step::Append {
            term: 1,
            first: 1,
            count: 40,
        },
        Step::Vote(2),
        Step::Replace {
            term: 2,
            first: 30,
            count: 5,
        },
        Step::Purge(20),
        Step::Append {
            term: 2,
            first: 35,
            count: 300,
        },
        Step::Replace {
            term: 3,
            first: 100,
            count: 1,
        },
        Step::Vote(4),
        Step::Purge(99),
        Step::Append {
            term: 4,
            first: 101,
            count: 200,
        },
        Step::Purge(250),
        Step::Append {
            term: 4,
            first: 301,
            count: 200,
        },
    ]
}

fn open(disk: &SimDisk, seed: u64) -> Option<(Arc<Journal>, LogImage)> {
    let options = JournalOptions {
        segment_bytes: 64 * 1024,
        commit_bytes_max: 16 * 1024,
        ..JournalOptions::default()
    };
    let entropy = Arc::new(SeededEntropy::new(seed));
    let opened = Journal::open(
        Arc::new(disk.clone()),
        Path::new(DIRECTORY),
        options,
        entropy,
    );
    let (journal, mut replay) = opened.ok()?;
    let image = recover(OWNER, &mut replay).expect("a power cut damages nothing that was durable");
    Some((Arc::new(journal), image))
}

async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> Result<(), std::io::Error> {
    let appended = log.blocking_append(entries).await;
    appended.map_err(std::io::Error::other)
}

async fn take(log: &mut GroupLog, picture: &Picture, step: &Step) -> Result<(), std::io::Error> {
    match *step {
        Step::Vote(term) => log.save_vote(&vote(term)).await,
        Step::Append { term, first, count } => append(log, entries(term, first, count)).await,
        Step::Replace { term, first, count } => {
            let last = picture.entries.iter().find(|id| id.index + 1 == first);
            log.truncate_after(last.copied()).await?;
            append(log, entries(term, first, count)).await
        }
        Step::Purge(upto) => {
            let upto = picture.entries.iter().find(|id| id.index == upto);
            log.purge(*upto.expect("the script purges what is there"))
                .await
        }
    }
}

/// Runs the script until it is through or the power is off; says what must, and what may, be there.
async fn run(disk: &SimDisk, seed: u64) -> (Picture, Vec<Picture>) {
    let mut picture = Picture::default();
    let Some((journal, image)) = open(disk, seed) else {
        return (picture, Vec::new());
    };
    let mut log = GroupLog::new(OWNER, journal.clone(), image);
    for step in steps() {
        let through = picture.through(&step);
        if take(&mut log, &picture, &step).await.is_err() {
            journal.close();
            return (picture, through);
        }
        picture = through.last().expect("a step leads somewhere").clone();
    }
    journal.close();
    (picture, Vec::new())
}

fn fresh(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_directory(Path::new(DIRECTORY))
        .expect("an empty disk takes a directory");
    disk.sync_directory(Path::new("/"))
        .expect("a healthy disk syncs");
    disk
}

#[tokio::test]
async fn the_script_runs_through_on_a_healthy_disk() {
    let disk = fresh(1);
    let (picture, through) = run(&disk, 1).await;
    assert!(through.is_empty(), "every step was answered");
    let (journal, image) = open(&disk, 2).expect("the journal opens again");
    assert_eq!(Picture::of(&image), picture);
    journal.close();
}

#[tokio::test]
async fn what_was_answered_survives_a_power_cut_at_any_change() {
    for seed in 0..3 {
        for change in 0.. {
            let disk = fresh(seed);
            disk.halt_at(disk.changes() + change);
            let (answered, mut allowed) = run(&disk, seed).await;
            let over = !disk.is_halted();
            disk.crash();
            allowed.push(answered);
            let (journal, image) = open(&disk, seed + 100).expect("a healthy disk opens");
            let found = Picture::of(&image);
            assert!(
                allowed.contains(&found),
                "seed {seed}, power cut at change {change}: found {found:?}, allowed {allowed:?}"
            );
            journal.close();
            if over {
                break;
            }
        }
    }
}

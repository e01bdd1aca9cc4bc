//! openraft's own test suite for log stores, over the journal on a real directory.

mod state_machine;

use std::io;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use raft::log::{GroupLog, recover};
use raft::types::Types;
use state_machine::TestMachine;
use storage::disk::RealDisk;
use storage::entropy::SystemEntropy;
use storage::journal::{Journal, JournalOptions, Owner};
use tempfile::TempDir;

const OWNER: Owner = Owner(7);

struct Builder;

/// Keeps the journal open and its directory in place while a test runs.
struct Guard {
    journal: Arc<Journal>,
    _directory: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.journal.close();
    }
}

fn open() -> Result<(Guard, GroupLog), io::Error> {
    let directory = tempfile::tempdir()?;
    let options = JournalOptions {
        segment_bytes: 1024 * 1024,
        ..JournalOptions::default()
    };
    let (journal, mut replay) = Journal::open(
        Arc::new(RealDisk),
        directory.path(),
        options,
        Arc::new(SystemEntropy),
    )
    .map_err(io::Error::other)?;
    let journal = Arc::new(journal);
    let image = recover(OWNER, &mut replay).map_err(io::Error::other)?;
    let log = GroupLog::new(OWNER, journal.clone(), image);
    Ok((
        Guard {
            journal,
            _directory: directory,
        },
        log,
    ))
}

impl StoreBuilder<Types, GroupLog, TestMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, GroupLog, TestMachine), StorageError<Types>> {
        let (guard, log) = open().expect("a fresh directory gives a journal");
        Ok((guard, log, TestMachine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_keeps_a_log_as_openraft_demands() {
    Suite::test_all(Builder)
        .await
        .expect("openraft's suite passes");
}

//! What replication reads a group's log through.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::state::LogImage;
use crate::types::{Entry, Group, Vote};

/// Reads a group's log beside its writer. An entry is here from the moment its append was taken.
#[derive(Clone)]
pub struct GroupLogReader {
    image: Arc<Mutex<LogImage>>,
}

impl GroupLogReader {
    pub(super) fn new(image: Arc<Mutex<LogImage>>) -> Self {
        Self { image }
    }
}

impl RaftLogReader<Group> for GroupLogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.image.lock().range(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.image.lock().vote)
    }
}

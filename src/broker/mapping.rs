//! What is published to a subject of an account and goes to another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::account::Account;
use crate::subject::transform::{Mapped, Mappings};

/// The mappings of an account. Most accounts have none, and then a publisher reads one flag.
#[derive(Debug, Default)]
pub(super) struct AccountMappings {
    present: AtomicBool,
    current: ArcSwap<Mappings>,
}

impl Account {
    /// From now on what clients publish goes where these say.
    pub fn set_mappings(&self, mappings: Mappings) {
        let present = !mappings.is_empty();
        self.mappings.current.store(Arc::new(mappings));
        self.mappings.present.store(present, Ordering::Release);
    }

    /// Where what clients publish goes.
    pub fn mappings(&self) -> Arc<Mappings> {
        self.mappings.current.load_full()
    }

    /// Whether anything that clients publish goes elsewhere.
    pub fn has_mappings(&self) -> bool {
        self.mappings.present.load(Ordering::Acquire)
    }

    /// Where a message for this subject goes, on a server of this cluster; the new subject is written to `out`.
    pub fn map(
        &self,
        subject: &[u8],
        cluster: &str,
        random: &mut dyn FnMut() -> u32,
        out: &mut Vec<u8>,
    ) -> Mapped {
        let cluster = Some(cluster).filter(|name| !name.is_empty());
        let mappings = self.mappings.current.load();
        mappings.map(subject, cluster, random, out)
    }
}

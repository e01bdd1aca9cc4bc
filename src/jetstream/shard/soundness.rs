//! Whether what a replica holds can be relied upon: it may differ from what the others hold, or turn out to be unreadable.
//!
//! # Invariant
//! A replica that differs from the majority takes nothing any more. One that cannot read all of what it holds still has its log and its vote, and serves as long as nobody
//! takes its place; it leads only when nobody else can.

use raft::group::Role;

use super::slot::Slot;
use crate::jetstream::core::{Advisory, Divergence};

impl Slot {
    /// What this replica holds is of no use any more: it takes nothing, and another one has to take its place.
    pub(super) fn spoil(&mut self, reason: &str) {
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.spoilt.get_or_insert_with(|| reason.to_owned());
        }
        self.fail(reason);
    }

    /// Looks whether the store turned out to be damaged. Then another replica is to lead, and to give what is lacking here. Says whether it was found just now.
    pub(super) fn look_for_damage(&mut self) -> bool {
        let Some(replica) = self.replica.as_deref_mut() else {
            return false;
        };
        if replica.spoilt.is_some() || self.offline.is_some() {
            return false;
        }
        let Some(damage) = self.core.store().damage() else {
            return false;
        };
        let text = format!(
            "JetStream stream '{} > {}': this server's replica is damaged: {damage}",
            self.account.name(),
            self.core.name()
        );
        replica.spoilt = Some(damage.to_owned());
        tracing::error!("{text}");
        self.port.faults.note(self.port.slot, text);
        if self.core.is_leading() {
            self.hold_back();
            self.stop_leading();
            // Nothing is passed over: a replica that has it delivers it.
            let advisories = &mut self.effects.advisories;
            advisories.retain(|advisory| !matches!(advisory, Advisory::Damaged { .. }));
        }
        self.listen();
        true
    }

    /// Leads for its group only when nobody else can.
    pub(super) fn hold_back(&mut self) {
        if let Some(replica) = self.replica.as_deref_mut() {
            replica.holds_back = true;
        }
    }

    /// Nobody else leads now: what is there of the stream is better than nothing. While others may still come, consumers wait for what is damaged here; one that is
    /// `alone` passes it over.
    pub(super) fn lead_all_the_same(&mut self, alone: bool, now_ns: i64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        let holds_back = std::mem::take(&mut replica.holds_back);
        let Role::Leader { term } = replica.role else {
            return;
        };
        let rests = replica.rests;
        if holds_back && self.offline.is_none() && !self.is_receiving() && !rests {
            self.step(now_ns, |core, step| core.lead(term, step));
            self.listen();
        }
        self.core.set_has_replicas(!alone);
        self.is_busy |= self.core.is_leading();
    }

    /// A majority has what this replica has up to an entry.
    pub(super) fn is_right_upto(&mut self, index: u64) {
        self.core.is_right_upto(index);
        let is_open = self.core.divergence().is_some();
        if let Some(replica) = self.replica.as_deref_mut()
            && !is_open
            && std::mem::take(&mut replica.is_contested)
            && self.offline.is_none()
        {
            self.port.faults.forget(self.port.slot);
        }
    }

    /// A majority has another digest than this replica.
    pub(super) fn is_wrong(&mut self, found: Divergence, digest: u64) {
        self.port.faults.forget(self.port.slot);
        self.spoil(&format!(
            "this replica differs from the majority since entry {} at the latest: {:016x} here, {digest:016x} there",
            found.index, found.ours
        ));
    }

    /// Replicas differ, and no majority says which of them is wrong. They go on, and somebody has to look.
    pub(super) fn is_contested(&mut self, found: Divergence) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        if self.offline.is_some() || std::mem::replace(&mut replica.is_contested, true) {
            return;
        }
        let text = format!(
            "JetStream stream '{} > {}' differs between its replicas since entry {} at the latest ({:016x} here, {:016x} elsewhere), and no majority says which is right",
            self.account.name(),
            self.core.name(),
            found.index,
            found.ours,
            found.theirs
        );
        tracing::error!("{text}");
        self.port.faults.note(self.port.slot, text);
    }
}

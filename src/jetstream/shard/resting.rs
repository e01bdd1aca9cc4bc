//! Replicas of streams whose account has no JetStream: they are members of their groups as before, and no streams to anybody.
//!
//! # Invariant
//! A replica that rests keeps what its group commits, votes and gives others what they lack. It decides nothing and listens to nobody, also when its group has it lead.

use std::sync::Arc;

use super::slot::Slot;
use crate::broker::Account;

impl Slot {
    /// Its account has JetStream no more.
    pub(super) fn rest(&mut self) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        replica.rests = true;
        self.stop_leading();
        self.listen();
    }

    /// Its account has it again, which may be another one of that name than before.
    pub(super) fn wake(&mut self, account: Arc<Account>, now_ns: i64) {
        let Some(replica) = self.replica.as_deref_mut() else {
            return;
        };
        replica.rests = false;
        let role = replica.role.clone();
        // What it still listens to is in the account that was.
        self.stop_listening();
        self.account = account;
        self.take_role(role, now_ns);
    }
}

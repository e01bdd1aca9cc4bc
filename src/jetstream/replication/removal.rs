//! Servers that were removed leave the meta group.
//!
//! The state forgets a server first. From then on it is given nothing, and it is not taken in again under the id that it has; only then do its votes count no more. Were it
//! the other way round, a server that runs would see that it is no member any more, and ask to be admitted before the state has forgotten it.
//!
//! What is next says [`plan_meta`]; here it is done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use raft::group::Group;

use super::super::meta::{Step, View as Sight, plan_meta};
use super::meta_machine::MetaMachine;
use super::view::View;

/// How long the voters may take to change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(3);
/// When what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Has every server leave that the state does not know, as long as this one leads. Runs until the server ends.
pub(super) async fn take_out_removed(machine: Arc<MetaMachine>, view: Weak<View>) {
    let (mut changes, mut roles) = (machine.changes(), machine.roles());
    loop {
        changes.borrow_and_update();
        roles.borrow_and_update();
        let failed = match machine.group().filter(|_| machine.leads()) {
            Some(group) => take_out(&machine, &group, &view).await,
            None => Ok(()),
        };
        if let Err(reason) = &failed {
            tracing::debug!("A removed server is still in the JetStream meta group: {reason}");
        }
        let again = tokio::time::sleep(RETRY);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = roles.changed() => if changed.is_err() { return },
            () = again, if failed.is_err() => {}
        }
    }
}

async fn take_out(machine: &MetaMachine, group: &Group, view: &Weak<View>) -> Result<(), String> {
    let is_to_do = || {
        let (meta, members) = (machine.meta(), group.members());
        let mut voters = members.voters().into_iter();
        voters.any(|node| {
            let server = members.server_of(node);
            server.is_some_and(|server| !meta.peers().contains_key(server))
        })
    };
    if !is_to_do() {
        return Ok(());
    }
    // Who has just begun to lead may not know yet who came.
    let current = group.read_index().await;
    current.map_err(|error| error.to_string())?;
    if !is_to_do() {
        return Ok(());
    }
    let seen = Sight::of_leader(&group.status()).ok_or("it does not lead any more")?;
    let view = view.upgrade().ok_or("the server ends")?;
    let step = plan_meta(&machine.meta(), &seen, &view.sightings());
    match step.ok_or("nothing can be done about it now")? {
        Step::Vote(stay) => {
            let changed = group.change_members(stay, CHANGE_TIMEOUT).await;
            changed.map_err(|error| error.to_string())
        }
        // This server is the one: who leads next takes it out.
        Step::Transfer { to } => {
            let handed_over = group.transfer_leadership(to).await;
            handed_over.map_err(|error| error.to_string())
        }
        Step::Learn(_) | Step::Settled { .. } => {
            Err("nobody is taken out of a group that way".to_owned())
        }
    }
}

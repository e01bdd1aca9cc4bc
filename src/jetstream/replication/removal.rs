//! Servers that were removed leave the meta group.
//!
//! The state forgets a server first. From then on it is given nothing, and it is not taken in again under the id that it has; only then do its votes count no more. Were it
//! the other way round, a server that runs would see that it is no member any more, and ask to be admitted before the state has forgotten it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use raft::group::Group;
use raft::types::NodeId;

use super::meta_machine::MetaMachine;
use super::steward::most_current;
use super::view::View;

/// How long the voters may take to change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(3);
/// When what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The voters of a group as they are to be; nothing when there is nothing to do.
fn voters_without_removed(
    members: &raft::group::Members,
    is_known: impl Fn(&str) -> bool,
) -> Option<BTreeMap<NodeId, String>> {
    let voters = members.voters();
    let named = voters.iter().filter_map(|node| {
        let server = members.server_of(*node)?;
        Some((*node, server.to_owned()))
    });
    let stay: BTreeMap<NodeId, String> = named.filter(|(_, server)| is_known(server)).collect();
    (stay.len() < voters.len() && !stay.is_empty()).then_some(stay)
}

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
    let stay = || {
        let meta = machine.meta();
        voters_without_removed(&group.members(), |server| meta.peers().contains_key(server))
    };
    if stay().is_none() {
        return Ok(());
    }
    // Who has just begun to lead may not know yet who came.
    let current = group.read_index().await;
    current.map_err(|error| error.to_string())?;
    let Some(stay) = stay() else {
        return Ok(());
    };
    let own = group.myself().node;
    if stay.contains_key(&own) {
        let changed = group.change_members(stay, CHANGE_TIMEOUT).await;
        return changed.map_err(|error| error.to_string());
    }
    // This server is the one: who leads next takes it out.
    let view = view.upgrade().ok_or("the server ends")?;
    let next = most_current(&group.status(), &view.sightings());
    let next = next.map_err(|error| error.description.to_string())?;
    let handed_over = group.transfer_leadership(next).await;
    handed_over.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use raft::group::Members;

    use super::*;

    #[test]
    fn who_is_not_known_leaves_and_somebody_stays() {
        let named = [(1, "a"), (2, "b"), (3, "c")];
        let named = named.map(|(node, server)| (node, server.to_owned()));
        let members = Members::of_voters(named.clone());
        let stay = |known: &[&str]| voters_without_removed(&members, |name| known.contains(&name));
        assert_eq!(stay(&["a", "b", "c"]), None);
        let expected: BTreeMap<_, _> = named[..2].iter().cloned().collect();
        assert_eq!(stay(&["a", "b", "d"]), Some(expected));
        assert_eq!(stay(&[]), None, "a group without members is none");
    }
}

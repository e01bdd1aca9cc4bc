//! Whether what this server knows of the meta group's state is all that was committed when it began.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use raft::group::Channel;

use super::kinds::CURRENT;
use super::meta_machine::MetaMachine;
use crate::cluster::link::{Links, Request};

/// How long the leader may take to say how far it is.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers other servers how far the state is, when this one leads the meta group.
pub(super) fn listen(links: &Links, machine: &Arc<MetaMachine>, runtime: &tokio::runtime::Handle) {
    let (machine, runtime) = (Arc::clone(machine), runtime.clone());
    let asked = move |request: Request| {
        let Some(group) = machine.group().filter(|_| machine.leads()) else {
            return request.responder.refuse("not the leader");
        };
        runtime.spawn(async move {
            match group.read_index().await {
                Ok(at) => {
                    let index = Bytes::copy_from_slice(&at.index.to_le_bytes());
                    request.responder.answer(index);
                }
                Err(error) => request.responder.refuse(error.to_string()),
            }
        });
    };
    links.handle(CURRENT, Arc::new(asked));
}

/// How far the state was when this was asked, as its leader knows; `None` when nobody can say that.
pub(super) async fn goal(machine: &MetaMachine, links: &Links) -> Option<u64> {
    if machine.leads() {
        // It leads with all applied that was committed before.
        return Some(machine.meta().applied());
    }
    let leader = machine.group()?.leader()?;
    let (to, within) = (&leader.server, QUESTION_TIMEOUT);
    let asked = links.request(to, Channel::Control, CURRENT, Bytes::new(), within);
    asked.await.ok()?.try_get_u64_le().ok()
}

//! What a server has to do so that it runs what is assigned to it.
//!
//! # Invariant
//! A replica is deleted only when the state names it as released. What no assignment explains is set aside, with a name and a reason: it may be that the state is
//! the one that is wrong.

use std::collections::{BTreeMap, BTreeSet};

use raft::group::{GroupNumber, Member};
use raft::types::NodeId;

use super::assignment::{Form, Group, StreamAssignment, StreamRef};
use super::state::Meta;

/// How a replica is on this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It is whole, and does not run.
    Stopped,
    /// It was here, and what it must not forget is lost or damaged.
    Lost,
}

/// A replica that this server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its id in the group.
    pub node: NodeId,
    /// The form of its log.
    pub form: Form,
    /// How it is.
    pub condition: Condition,
    /// The revision of the assignment that it was last told of; 0 for none.
    pub revision: u64,
    /// The account that it is of.
    pub account: String,
    /// The stream that it is.
    pub stream: String,
    /// Its consumers, with the revision of each that it was last told of.
    pub consumers: BTreeMap<String, u64>,
}

/// What a server has, by group.
pub type Holdings = BTreeMap<GroupNumber, Held>;

/// How a replica is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A plain log, for the first time.
    New,
    /// A plain log, or a replica under an id, that was here before.
    Again,
    /// One of the first members of its group, for the first time.
    Founder {
        /// All of them.
        founders: Vec<Member>,
        /// Whether it is the one that should lead first.
        preferred: bool,
    },
    /// For the first time, into a group that others began.
    Joiner,
}

/// Something that a server has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a replica that does not run.
    Start {
        /// Of which stream.
        of: StreamRef,
        /// Under which id.
        node: NodeId,
        /// In which form.
        form: Form,
        /// How.
        how: Start,
    },
    /// Stop a replica, and begin as another one with the data that it has: its log changes its form, or it comes under a new id.
    Convert {
        /// Of which stream.
        of: StreamRef,
        /// The id that it had.
        from: NodeId,
        /// The id that it has from now on.
        node: NodeId,
        /// The form from now on.
        form: Form,
        /// How it begins.
        how: Start,
    },
    /// Tell a replica of a new configuration; the one that leads writes it into its log.
    Configure {
        /// Which stream.
        of: StreamRef,
        /// The revision that it is told of.
        revision: u64,
    },
    /// Create or update a consumer.
    PutConsumer {
        /// Of which stream.
        of: StreamRef,
        /// Which one.
        name: String,
        /// The revision that it is told of.
        revision: u64,
    },
    /// Delete a consumer: its stream is here, and the state names it no more.
    DeleteConsumer {
        /// Of which stream.
        of: StreamRef,
        /// Which one.
        name: String,
    },
    /// Delete a replica, with all that it holds, and report it gone.
    Delete {
        /// Of which group.
        group: GroupNumber,
        /// Which one.
        node: NodeId,
    },
    /// Report a replica gone that was to be deleted and is not here.
    ReportGone {
        /// Of which group.
        group: GroupNumber,
        /// Which one.
        node: NodeId,
    },
    /// Stop a replica that nothing explains, keep all that it holds under another name, and report that.
    SetAside {
        /// Of which group.
        group: GroupNumber,
        /// Why.
        reason: String,
    },
    /// Report that a replica's log is lost, so that the server can join again under a new id.
    ReportLost {
        /// Of which stream.
        of: StreamRef,
        /// Under which id it was.
        node: NodeId,
    },
    /// Say that the stream is offline: this version does not know what it is configured to do.
    Offline {
        /// Which stream.
        of: StreamRef,
        /// Why.
        reason: String,
    },
}

/// The ids that every group had handed out when this server learnt the state as it is, in this run. Under those it may have been a replica before, and voted; what
/// is not here of them is lost. Later ones are new to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past(BTreeMap<GroupNumber, NodeId>);

impl Past {
    /// As of that state.
    pub fn of(meta: &Meta) -> Self {
        let streams = meta.all_streams();
        Self(
            streams
                .map(|(of, stream)| (of.group, stream.group.nodes_next))
                .collect(),
        )
    }

    fn includes(&self, group: GroupNumber, node: NodeId) -> bool {
        self.0.get(&group).is_some_and(|next| node < *next)
    }
}

/// What the server has to do, given what is assigned and what it has. When all is done and reported, nothing is left to do.
///
/// The state must be one that is known to be current: a server that has just started first applies what was committed before, or it would set aside streams that
/// were created after its last checkpoint.
pub fn reconcile(meta: &Meta, server: &str, holdings: &Holdings, past: &Past) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut explained: BTreeSet<GroupNumber> = BTreeSet::new();
    for (of, stream) in meta.all_streams() {
        if let Some(member) = stream.group.member_on(server) {
            explained.insert(of.group);
            let held = holdings.get(&of.group);
            match held {
                None if stream.group.form == Form::Raft && past.includes(of.group, member.node) => {
                    report_lost(&of, stream, member.node, &mut actions);
                }
                held => run(&of, stream, member, held, &mut actions),
            }
        }
    }
    let mut released: BTreeMap<GroupNumber, Vec<NodeId>> = BTreeMap::new();
    let mine = meta
        .released()
        .iter()
        .filter(|(_, replica)| replica.server == server);
    for ((group, node), _) in mine {
        released.entry(*group).or_default().push(*node);
    }
    for (group, nodes) in released {
        let here = holdings.get(&group);
        let here = here.filter(|_| !explained.contains(&group));
        // An earlier id went before one that is released: this server never came to take the later one up.
        match here.filter(|held| nodes.iter().any(|node| held.node <= *node)) {
            Some(held) => {
                explained.insert(group);
                actions.push(Action::Delete {
                    group,
                    node: held.node,
                });
            }
            // Nothing of it is here any more, or what is here goes on under another id.
            None => actions.extend(
                nodes
                    .iter()
                    .map(|node| Action::ReportGone { group, node: *node }),
            ),
        }
    }
    for (group, held) in holdings {
        if !explained.contains(group) {
            let (account, stream) = (&held.account, &held.stream);
            actions.push(Action::SetAside {
                group: *group,
                reason: format!(
                    "no assignment names group {group} ({account} > {stream}) on this server"
                ),
            });
        }
    }
    actions
}

/// Once: then it stands in the state.
fn report_lost(of: &StreamRef, stream: &StreamAssignment, node: NodeId, actions: &mut Vec<Action>) {
    let known = stream.group.lost.contains(&node);
    if !known && stream.stored.unsupported.is_none() {
        actions.push(Action::ReportLost {
            of: of.clone(),
            node,
        });
    }
}

fn run(
    of: &StreamRef,
    stream: &StreamAssignment,
    member: &Member,
    held: Option<&Held>,
    actions: &mut Vec<Action>,
) {
    if let Some(reason) = &stream.stored.unsupported {
        actions.push(Action::Offline {
            of: of.clone(),
            reason: reason.clone(),
        });
        return;
    }
    let group = &stream.group;
    let Some(held) = held else {
        actions.push(Action::Start {
            of: of.clone(),
            node: member.node,
            form: group.form,
            how: first_start(group, member),
        });
        return;
    };
    if held.condition == Condition::Lost && held.node == member.node {
        return report_lost(of, stream, member.node, actions);
    }
    if held.node != member.node || held.form != group.form {
        actions.push(Action::Convert {
            of: of.clone(),
            from: held.node,
            node: member.node,
            form: group.form,
            how: match held.node == member.node {
                // The same replica goes on; only its log has another form.
                true => Start::Again,
                false => first_start(group, member),
            },
        });
        return;
    }
    if held.condition == Condition::Stopped {
        actions.push(Action::Start {
            of: of.clone(),
            node: member.node,
            form: group.form,
            how: Start::Again,
        });
        return;
    }
    if held.revision != stream.revision {
        actions.push(Action::Configure {
            of: of.clone(),
            revision: stream.revision,
        });
    }
    consumers(of, stream, held, actions);
}

fn first_start(group: &Group, member: &Member) -> Start {
    if group.form == Form::Plain {
        return Start::New;
    }
    let founds = group
        .founders
        .iter()
        .any(|founder| founder.node == member.node);
    match founds {
        true => Start::Founder {
            founders: group.founders.clone(),
            preferred: group.preferred == member.server,
        },
        false => Start::Joiner,
    }
}

fn consumers(of: &StreamRef, stream: &StreamAssignment, held: &Held, actions: &mut Vec<Action>) {
    for (name, consumer) in &stream.consumers {
        if held.consumers.get(name) != Some(&consumer.revision) {
            actions.push(Action::PutConsumer {
                of: of.clone(),
                name: name.clone(),
                revision: consumer.revision,
            });
        }
    }
    let gone = held.consumers.keys();
    for name in gone.filter(|name| !stream.consumers.contains_key(*name)) {
        actions.push(Action::DeleteConsumer {
            of: of.clone(),
            name: name.clone(),
        });
    }
}

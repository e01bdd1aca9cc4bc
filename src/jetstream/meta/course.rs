//! How a group's assignment goes from one set of members to another.

use raft::group::Member;
use raft::types::NodeId;

use super::assignment::{ChangeKind, Form, Group};
use super::command::NewMembers;

impl Group {
    /// Sets out for other members. Whoever stays keeps its id; whoever comes gets a new one; whoever goes serves until the new ones do.
    pub(super) fn head_for(&mut self, to: &NewMembers) {
        if self.change.is_none() {
            self.before = self.servers();
        }
        self.begin_raft();
        let mut had: Vec<Member> = self
            .members
            .drain(..)
            .chain(self.leaving.drain(..))
            .collect();
        for server in &to.servers {
            let stays = had
                .iter()
                .position(|member| member.server == *server && !self.lost.contains(&member.node));
            let member = match stays {
                Some(at) => had.swap_remove(at),
                None => self.join(server.clone()),
            };
            self.members.push(member);
        }
        had.sort_by_key(|member| member.node);
        self.leaving = had;
        self.change = Some(to.kind);
        self.preferred = to.preferred.clone();
        if !to.name.is_empty() {
            self.name = to.name.clone();
        }
        if !to.cluster.is_empty() {
            self.cluster = to.cluster.clone();
        }
    }

    /// Turns a stream with a plain log into a group with one member: the one that has the log, under an id that no vote was ever cast with.
    fn begin_raft(&mut self) {
        if self.form == Form::Raft {
            return;
        }
        let holder = self.members.first().map(|member| member.server.clone());
        self.form = Form::Raft;
        self.begun = false;
        self.lost.clear();
        self.members.clear();
        if let Some(server) = holder {
            let member = self.join(server);
            self.members.push(member);
        }
        self.founders = self.members.clone();
    }

    /// Where a cancelled move leads to.
    pub(super) fn way_back(&self) -> Option<NewMembers> {
        if self.change != Some(ChangeKind::Move) {
            return None;
        }
        Some(NewMembers {
            kind: ChangeKind::Move,
            servers: self.before.clone(),
            preferred: String::new(),
            name: String::new(),
            cluster: String::new(),
        })
    }

    /// The members are there; gives back those that left. With one replica the log becomes a plain one again.
    pub(super) fn settle(&mut self, single: bool) -> Vec<Member> {
        self.change = None;
        self.before.clear();
        self.lost.clear();
        self.preferred.clear();
        if single && self.members.len() == 1 {
            self.form = Form::Plain;
            self.founders = self.members.clone();
        }
        std::mem::take(&mut self.leaving)
    }

    /// A member's log is lost. Says whether somebody takes its place.
    ///
    /// While a majority of those that vote still has what was committed, the server joins again under a new id. When a single one has it, the group begins again
    /// with that one. When none has, and the stream was kept in memory, it begins again and empty. Anything between is left alone: which of the
    /// remaining logs is the right one cannot be told here.
    pub(super) fn lose(&mut self, node: NodeId, volatile: bool) -> bool {
        self.lost.insert(node);
        let before = self.voters_before();
        let whole = self.whole(&before);
        let majority = whole.len() > before.len() / 2;
        match whole.as_slice() {
            [] if volatile || self.is_unborn() => self.begin_with(None),
            _ if self.form == Form::Plain => false,
            _ if majority => self.renew_lost(),
            [survivor] if volatile || !self.has_majority() => self.begin_with(Some(*survivor)),
            _ => false,
        }
    }

    /// Gives a member whose data is spoilt a new id on the same server, one at a time: what it has logged still counts until all others are known to be well.
    /// Says whether that is so.
    pub(super) fn replace_spoilt(&mut self, node: NodeId, volatile: bool) -> bool {
        let is_at_rest = self.form == Form::Raft && self.begun && !self.is_changing();
        if !is_at_rest || !self.lost.is_empty() || self.members.len() < 2 {
            return false;
        }
        let replaced = self.lose(node, volatile);
        if !replaced {
            self.lost.remove(&node);
        }
        replaced
    }

    /// Those that voted before the change under way, or vote if there is none.
    fn voters_before(&self) -> Vec<NodeId> {
        if self.change.is_none() {
            return self.members.iter().map(|member| member.node).collect();
        }
        let leaves = |server: &String| self.leaving.iter().any(|member| member.server == *server);
        let stayed = self.members.iter().filter(|member| {
            let there = self.before.contains(&member.server);
            there && !leaves(&member.server)
        });
        let voters = stayed.chain(&self.leaving);
        voters.map(|member| member.node).collect()
    }

    /// Whether nothing was ever promised to anybody in it: several began with nothing, and never had a leader.
    fn is_unborn(&self) -> bool {
        !self.begun && self.founders.len() > 1
    }

    fn whole(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let whole = nodes.iter().filter(|node| !self.lost.contains(node));
        whole.copied().collect()
    }

    /// Whether most of those that are to be members have their logs.
    fn has_majority(&self) -> bool {
        let members: Vec<NodeId> = self.members.iter().map(|member| member.node).collect();
        self.whole(&members).len() > members.len() / 2
    }

    /// Gives every lost member that is to stay a new id on the same server.
    fn renew_lost(&mut self) -> bool {
        let servers = self.servers();
        let stays_lost = self
            .members
            .iter()
            .any(|member| self.lost.contains(&member.node));
        if !stays_lost {
            return false;
        }
        let kind = self.change.unwrap_or(ChangeKind::Repair);
        let preferred = self.preferred.clone();
        self.head_for(&NewMembers {
            kind,
            servers,
            preferred,
            name: String::new(),
            cluster: String::new(),
        });
        true
    }

    /// Begins again on the same servers, under new ids: with the one that has a log, whom the others join, or with all of them and nothing.
    fn begin_with(&mut self, survivor: Option<NodeId>) -> bool {
        let mut everyone = self.members.iter().chain(&self.leaving);
        let survivor = everyone.find(|member| Some(member.node) == survivor);
        let survivor = survivor.map(|member| member.server.clone());
        let servers = self.servers();
        self.lost.clear();
        self.leaving.clear();
        self.members.clear();
        self.begun = false;
        for server in &servers {
            let member = self.join(server.clone());
            self.members.push(member);
        }
        match survivor {
            None => {
                self.founders = self.members.clone();
                self.change = None;
                self.before.clear();
            }
            Some(server) => {
                let founder = match self.member_on(&server) {
                    Some(member) => member.clone(),
                    // It was about to leave: it serves until the members do.
                    None => {
                        let member = self.join(server.clone());
                        self.leaving.push(member.clone());
                        member
                    }
                };
                self.founders = vec![founder];
                self.before = vec![server];
                self.change = Some(self.change.unwrap_or(ChangeKind::Repair));
            }
        }
        true
    }
}

//! How commands change the state.
//!
//! # Invariant
//! Only what is in the state and in the command decides: the same commands lead to the same state on every server, and a command at an index that is in the state
//! already changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::group::{GroupNumber, Member};
use raft::types::NodeId;

use super::assignment::{
    ConsumerAssignment, Form, Group, Orphan, Released, Stored, StreamAssignment, StreamRef,
};
use super::change::{Change, Refusal};
use super::command::{Command, NewMembers};
use super::peer::PeerProfile;
use super::state::Meta;
use crate::jetstream::types::{Storage, StreamConfig, Time};

/// What may be noted as set aside; more is not kept.
pub const ORPHANS_MAX: usize = 10_000;

type Applied = Result<Change, Refusal>;

/// What the group of a new stream begins with.
struct NewGroup<'a> {
    name: &'a str,
    cluster: &'a str,
    servers: &'a [String],
    preferred: &'a str,
}

impl Meta {
    /// Takes the committed command at `index`, and says what it changed: nothing at all when the index is in the state already.
    pub fn apply(&mut self, index: u64, command: &Command) -> Vec<Change> {
        if index <= self.applied {
            return Vec::new();
        }
        self.applied = index;
        if let Command::AccountPurge { account } = command {
            return self.purge_account(account);
        }
        let change = self.carry_out(command);
        vec![change.unwrap_or_else(Change::Refused)]
    }

    /// Takes note of an entry that is no command.
    pub fn pass(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    fn carry_out(&mut self, command: &Command) -> Applied {
        match command {
            Command::PeerPut { profile, renew } => Ok(self.put_peer(profile, *renew)),
            Command::PeerRemove { server } => self.remove_peer(server),
            Command::StreamCreate { .. } => self.create_stream(command),
            Command::StreamRestored { .. } => self.place_restored(command),
            Command::StreamUpdate {
                of,
                revision,
                config,
                members,
            } => self.update_stream(of, *revision, config, members.as_ref()),
            Command::StreamDelete { of } => self.delete_stream(of),
            Command::ConsumerCreate {
                of,
                name,
                config,
                created,
            } => self.create_consumer(of, name, config, *created),
            Command::ConsumerUpdate {
                of,
                name,
                revision,
                config,
            } => self.update_consumer(of, name, *revision, config),
            Command::ConsumerDelete { of, name } => self.delete_consumer(of, name),
            Command::MembersReplace {
                of,
                revision,
                members,
            } => self.replace_members(of, *revision, members),
            Command::MoveCancel { of, config } => self.cancel_move(of, config.as_deref()),
            Command::GroupBegun { of } => self.group_begun(of),
            Command::GroupSettled { of, nodes } => self.group_settled(of, nodes),
            Command::MemberLost { of, node } => self.member_lost(of, *node),
            Command::MemberSpoilt { of, node } => self.member_spoilt(of, *node),
            Command::ReplicaGone { group, node } => Ok(self.replica_gone(*group, *node)),
            Command::OrphanNote { .. } => self.note_orphan(command),
            Command::OrphanGone { server, place } => Ok(self.orphan_gone(server, place)),
            Command::AccountPurge { .. } => Ok(Change::Unchanged),
        }
    }

    fn put_peer(&mut self, profile: &PeerProfile, renew: bool) -> Change {
        let server = profile.server.clone();
        let earlier = self.peers.get(&server).map(|peer| peer.node);
        match (earlier, self.peers.get_mut(&server)) {
            (Some(node), Some(peer)) if !renew => {
                if peer.profile == *profile {
                    return Change::Unchanged;
                }
                peer.profile = profile.clone();
                Change::PeerPut {
                    server,
                    node,
                    earlier: None,
                }
            }
            _ => {
                let node = self.admit(profile.clone());
                Change::PeerPut {
                    server,
                    node,
                    earlier,
                }
            }
        }
    }

    fn remove_peer(&mut self, server: &str) -> Applied {
        let peer = self.peers.remove(server).ok_or(Refusal::NoPeer)?;
        // Should the server come back, nothing tells it to delete anything: it sets aside what it still has.
        self.released.retain(|_, replica| replica.server != server);
        self.orphans.retain(|(on, _), _| on != server);
        Ok(Change::PeerRemoved {
            server: server.to_owned(),
            node: peer.node,
        })
    }

    fn create_stream(&mut self, command: &Command) -> Applied {
        let Command::StreamCreate {
            account,
            stream,
            config,
            created,
            group_name,
            cluster,
            servers,
            preferred,
        } = command
        else {
            return Ok(Change::Unchanged);
        };
        if let Some(existing) = self.stream(account, stream) {
            return match existing.stored.json() == config.as_slice() {
                true => Ok(Change::Unchanged),
                false => Err(Refusal::StreamExists),
            };
        }
        self.check_servers(servers)?;
        let group = NewGroup {
            name: group_name,
            cluster,
            servers,
            preferred,
        };
        self.put_stream(account, stream, config, *created, &group)
    }

    /// It begins with the one replica that is there, and goes on to the others as any stream does that is to have more.
    fn place_restored(&mut self, command: &Command) -> Applied {
        let Command::StreamRestored {
            account,
            stream,
            config,
            created,
            home,
            members,
        } = command
        else {
            return Ok(Change::Unchanged);
        };
        if let Some(existing) = self.stream(account, stream) {
            let same = existing.created == *created && existing.stored.json() == config.as_slice();
            return match same {
                true => Ok(Change::Unchanged),
                false => Err(Refusal::StreamExists),
            };
        }
        self.check_servers(&members.servers)?;
        if !members.servers.contains(home) {
            return Err(Refusal::Unplaceable);
        }
        let group = NewGroup {
            name: &members.name,
            cluster: &members.cluster,
            servers: std::slice::from_ref(home),
            preferred: home,
        };
        let put = self.put_stream(account, stream, config, *created, &group)?;
        if let (Change::StreamCreated(of), true) = (&put, members.servers.len() > 1)
            && let Some(stream) = self.stream_mut(of)
        {
            stream.group.head_for(members);
        }
        Ok(put)
    }

    fn put_stream(
        &mut self,
        account: &str,
        stream: &str,
        config: &[u8],
        created: Time,
        new: &NewGroup<'_>,
    ) -> Applied {
        let stored = Stored::<StreamConfig>::from_json(config);
        if self.subjects_overlap(account, stream, &stored.config.subjects) {
            return Err(Refusal::SubjectOverlap);
        }
        let number = GroupNumber(self.groups_next);
        self.groups_next += 1;
        let mut group = Group {
            number,
            name: new.name.to_owned(),
            cluster: new.cluster.to_owned(),
            form: form_of(new.servers.len()),
            founders: Vec::new(),
            members: Vec::new(),
            leaving: Vec::new(),
            change: None,
            before: Vec::new(),
            lost: BTreeSet::new(),
            begun: false,
            preferred: new.preferred.to_owned(),
            nodes_next: 1,
        };
        for server in new.servers {
            let member = group.join(server.clone());
            group.members.push(member);
        }
        group.founders = group.members.clone();
        let assignment = StreamAssignment {
            stored,
            created,
            group,
            revision: 1,
            consumers: BTreeMap::new(),
        };
        let streams = self.accounts.entry(account.to_owned()).or_default();
        Arc::make_mut(streams).insert(stream.to_owned(), Arc::new(assignment));
        Ok(Change::StreamCreated(StreamRef {
            account: account.to_owned(),
            stream: stream.to_owned(),
            group: number,
        }))
    }

    /// Servers may be gone since the leader chose them.
    fn check_servers(&self, servers: &[String]) -> Result<(), Refusal> {
        let distinct: BTreeSet<&String> = servers.iter().collect();
        let known = servers.iter().all(|server| self.peers.contains_key(server));
        if servers.is_empty() || distinct.len() != servers.len() || !known {
            return Err(Refusal::Unplaceable);
        }
        Ok(())
    }

    /// The stream, if nothing changed it since `revision`.
    fn decided_on(
        &mut self,
        of: &StreamRef,
        revision: u64,
    ) -> Result<&mut StreamAssignment, Refusal> {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        match stream.revision == revision {
            true => Ok(stream),
            false => Err(Refusal::Outdated),
        }
    }

    fn update_stream(
        &mut self,
        of: &StreamRef,
        revision: u64,
        config: &[u8],
        members: Option<&NewMembers>,
    ) -> Applied {
        let stored = Stored::<StreamConfig>::from_json(config);
        if self.subjects_overlap(&of.account, &of.stream, &stored.config.subjects) {
            return Err(Refusal::SubjectOverlap);
        }
        if let Some(members) = members {
            self.check_servers(&members.servers)?;
        }
        let stream = self.decided_on(of, revision)?;
        if members.is_none() && stream.stored == stored {
            return Ok(Change::Unchanged);
        }
        stream.stored = stored;
        stream.revision += 1;
        match members {
            Some(members) => {
                stream.group.head_for(members);
                Ok(Change::MembersChanged(of.clone()))
            }
            None => Ok(Change::StreamUpdated(of.clone())),
        }
    }

    fn delete_stream(&mut self, of: &StreamRef) -> Applied {
        self.stream_of(of).ok_or(Refusal::NoStream)?;
        let removed = self.accounts.get_mut(&of.account).and_then(|streams| {
            let streams = Arc::make_mut(streams);
            streams.remove(&of.stream)
        });
        if self
            .accounts
            .get(&of.account)
            .is_some_and(|streams| streams.is_empty())
        {
            self.accounts.remove(&of.account);
        }
        let removed = removed.ok_or(Refusal::NoStream)?;
        let everyone = removed.group.everyone().cloned().collect();
        let released = self.release(of, removed.created, everyone);
        Ok(Change::StreamDeleted {
            of: of.clone(),
            released,
        })
    }

    fn purge_account(&mut self, account: &str) -> Vec<Change> {
        let streams: Vec<StreamRef> = self
            .streams(account)
            .map(|(name, stream)| StreamRef {
                account: account.to_owned(),
                stream: name.clone(),
                group: stream.group.number,
            })
            .collect();
        let deleted = streams.iter().filter_map(|of| self.delete_stream(of).ok());
        let changes: Vec<Change> = deleted.collect();
        match changes.is_empty() {
            true => vec![Change::Unchanged],
            false => changes,
        }
    }

    /// Lets the servers of these replicas delete them.
    fn release(&mut self, of: &StreamRef, created: Time, replicas: Vec<Member>) -> Vec<Member> {
        for replica in &replicas {
            if self.peers.contains_key(&replica.server) {
                let released = Released {
                    server: replica.server.clone(),
                    account: of.account.clone(),
                    stream: of.stream.clone(),
                    created,
                };
                self.released.insert((of.group, replica.node), released);
            }
        }
        replicas
    }

    fn replica_gone(&mut self, group: GroupNumber, node: NodeId) -> Change {
        match self.released.remove(&(group, node)) {
            Some(_) => Change::ReplicaGone { group, node },
            None => Change::Unchanged,
        }
    }

    fn create_consumer(
        &mut self,
        of: &StreamRef,
        name: &str,
        config: &[u8],
        created: Time,
    ) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        if let Some(existing) = stream.consumers.get(name) {
            return match existing.stored.json() == config {
                true => Ok(Change::Unchanged),
                false => Err(Refusal::ConsumerExists),
            };
        }
        let consumer = ConsumerAssignment {
            stored: Stored::from_json(config),
            created,
            revision: 1,
        };
        stream.consumers.insert(name.to_owned(), Arc::new(consumer));
        Ok(Change::ConsumerCreated {
            of: of.clone(),
            name: name.to_owned(),
        })
    }

    fn update_consumer(
        &mut self,
        of: &StreamRef,
        name: &str,
        revision: u64,
        config: &[u8],
    ) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        let consumer = stream.consumers.get_mut(name).ok_or(Refusal::NoConsumer)?;
        if consumer.revision != revision {
            return Err(Refusal::Outdated);
        }
        if consumer.stored.json() == config {
            return Ok(Change::Unchanged);
        }
        let consumer = Arc::make_mut(consumer);
        consumer.stored = Stored::from_json(config);
        consumer.revision += 1;
        Ok(Change::ConsumerUpdated {
            of: of.clone(),
            name: name.to_owned(),
        })
    }

    fn delete_consumer(&mut self, of: &StreamRef, name: &str) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        stream.consumers.remove(name).ok_or(Refusal::NoConsumer)?;
        Ok(Change::ConsumerDeleted {
            of: of.clone(),
            name: name.to_owned(),
        })
    }

    fn replace_members(&mut self, of: &StreamRef, revision: u64, members: &NewMembers) -> Applied {
        self.check_servers(&members.servers)?;
        let stream = self.decided_on(of, revision)?;
        stream.revision += 1;
        stream.group.head_for(members);
        Ok(Change::MembersChanged(of.clone()))
    }

    fn cancel_move(&mut self, of: &StreamRef, config: Option<&[u8]>) -> Applied {
        let stream = self.stream_of(of).ok_or(Refusal::NoStream)?;
        let back = stream.group.way_back().ok_or(Refusal::NoMove)?;
        self.check_servers(&back.servers)?;
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        if let Some(config) = config {
            stream.stored = Stored::from_json(config);
        }
        stream.revision += 1;
        stream.group.head_for(&back);
        Ok(Change::MembersChanged(of.clone()))
    }

    fn group_begun(&mut self, of: &StreamRef) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        if stream.group.begun {
            return Ok(Change::Unchanged);
        }
        stream.group.begun = true;
        if stream.group.change.is_none() {
            // It says who is to lead first.
            stream.group.preferred.clear();
        }
        Ok(Change::GroupBegun(of.clone()))
    }

    fn group_settled(&mut self, of: &StreamRef, nodes: &[NodeId]) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        let settled: BTreeSet<NodeId> = nodes.iter().copied().collect();
        if settled != stream.group.nodes() {
            return Err(Refusal::Outdated);
        }
        if stream.group.change.is_none() {
            return Ok(Change::Unchanged);
        }
        let single = stream.replicas() == 1;
        let (left, created) = (stream.group.settle(single), stream.created);
        stream.revision += 1;
        let released = self.release(of, created, left);
        Ok(Change::GroupSettled {
            of: of.clone(),
            released,
        })
    }

    fn member_lost(&mut self, of: &StreamRef, node: NodeId) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        if !stream.group.everyone().any(|member| member.node == node) {
            return Ok(Change::Unchanged);
        }
        let volatile = stream.config().storage == Storage::Memory;
        let replaced = stream.group.lose(node, volatile);
        stream.revision += 1;
        match replaced {
            true => Ok(Change::MembersChanged(of.clone())),
            false => Ok(Change::MemberLost {
                of: of.clone(),
                node,
            }),
        }
    }

    fn member_spoilt(&mut self, of: &StreamRef, node: NodeId) -> Applied {
        let stream = self.stream_mut(of).ok_or(Refusal::NoStream)?;
        if !stream.group.nodes().contains(&node) {
            return Ok(Change::Unchanged);
        }
        let volatile = stream.config().storage == Storage::Memory;
        if !stream.group.replace_spoilt(node, volatile) {
            return Err(Refusal::Needed);
        }
        stream.revision += 1;
        Ok(Change::MembersChanged(of.clone()))
    }

    fn note_orphan(&mut self, command: &Command) -> Applied {
        let Command::OrphanNote {
            server,
            place,
            account,
            stream,
            reason,
            since,
        } = command
        else {
            return Ok(Change::Unchanged);
        };
        if !self.peers.contains_key(server) {
            return Err(Refusal::NoPeer);
        }
        let key = (server.clone(), place.clone());
        if self.orphans.contains_key(&key) {
            return Ok(Change::Unchanged);
        }
        if self.orphans.len() >= ORPHANS_MAX {
            return Err(Refusal::TooMany);
        }
        let orphan = Orphan {
            account: account.clone(),
            stream: stream.clone(),
            reason: reason.clone(),
            since: *since,
        };
        self.orphans.insert(key, orphan);
        Ok(Change::OrphansChanged {
            server: server.clone(),
        })
    }

    fn orphan_gone(&mut self, server: &str, place: &str) -> Change {
        let key = (server.to_owned(), place.to_owned());
        match self.orphans.remove(&key) {
            Some(_) => Change::OrphansChanged {
                server: server.to_owned(),
            },
            None => Change::Unchanged,
        }
    }
}

/// The form that a new stream with so many replicas begins with.
fn form_of(replicas: usize) -> Form {
    match replicas {
        0 | 1 => Form::Plain,
        _ => Form::Raft,
    }
}

//! The state as bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::group::GroupNumber;

use super::*;
use crate::jetstream::meta::assignment::{
    ConsumerAssignment, Form, Group, Orphan, Released, Stored, StreamAssignment,
};
use crate::jetstream::meta::peer::Peer;
use crate::jetstream::meta::state::Meta;

impl Meta {
    /// The whole state as bytes: equal states have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(STATE_VERSION);
        writer.number(self.applied);
        writer.number(self.groups_next);
        writer.number(self.nodes_next);
        writer.number(self.peers.len() as u64);
        for peer in self.peers.values() {
            profile(&mut writer, &peer.profile);
            writer.number(peer.node);
        }
        writer.number(self.accounts.len() as u64);
        for (account, streams) in &self.accounts {
            text(&mut writer, account);
            writer.number(streams.len() as u64);
            for (name, stream) in streams.iter() {
                text(&mut writer, name);
                put_stream(&mut writer, stream);
            }
        }
        writer.number(self.released.len() as u64);
        for ((group, node), released) in &self.released {
            writer.number(group.0);
            writer.number(*node);
            for value in [&released.server, &released.account, &released.stream] {
                text(&mut writer, value);
            }
            time(&mut writer, released.created);
        }
        writer.number(self.orphans.len() as u64);
        for ((server, place), orphan) in &self.orphans {
            for value in [
                server,
                place,
                &orphan.account,
                &orphan.stream,
                &orphan.reason,
            ] {
                text(&mut writer, value);
            }
            time(&mut writer, orphan.since);
        }
        writer.bytes
    }

    /// Reads what [`Meta::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let reader = &mut reader;
        let version = version(reader, STATE_VERSION)?;
        let meta = Self {
            applied: read_counter(reader)?,
            groups_next: read_counter(reader)?,
            nodes_next: read_counter(reader)?,
            peers: read_map(reader, |reader| {
                let profile = read_profile(reader)?;
                let node = reader.number()?;
                Ok((profile.server.clone(), Peer { profile, node }))
            })?,
            accounts: read_map(reader, |reader| {
                let account = read_text(reader)?;
                let streams = read_map(reader, |reader| {
                    let name = read_text(reader)?;
                    Ok((name, Arc::new(read_stream(reader)?)))
                })?;
                Ok((account, Arc::new(streams)))
            })?,
            released: read_map(reader, |reader| {
                let group = GroupNumber(reader.number()?);
                let node = reader.number()?;
                let mut released = Released {
                    server: read_text(reader)?,
                    account: String::new(),
                    stream: String::new(),
                    created: Time::from_nanoseconds(0),
                };
                if version > 1 {
                    released.account = read_text(reader)?;
                    released.stream = read_text(reader)?;
                    released.created = read_time(reader)?;
                }
                Ok(((group, node), released))
            })?,
            orphans: read_map(reader, |reader| {
                let key = (read_text(reader)?, read_text(reader)?);
                let orphan = Orphan {
                    account: read_text(reader)?,
                    stream: read_text(reader)?,
                    reason: read_text(reader)?,
                    since: read_time(reader)?,
                };
                Ok((key, orphan))
            })?,
        };
        at_end(reader)?;
        Ok(meta)
    }

    /// What stands for the whole state: equal on servers that hold the same.
    pub fn digest(&self) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        Sha256::digest(self.encode()).into()
    }
}

/// Keys come in order, each once: so that a state has one form only.
fn read_map<K: Ord + Clone, V>(
    reader: &mut Reader<'_>,
    take: impl FnMut(&mut Reader<'_>) -> Read<(K, V)>,
) -> Read<BTreeMap<K, V>> {
    let items = read_list(reader, take)?;
    let ordered = items
        .iter()
        .zip(items.iter().skip(1))
        .all(|((left, _), (right, _))| left < right);
    match ordered {
        true => Ok(items.into_iter().collect()),
        false => Err(DecodeError::Range { what: "order" }),
    }
}

fn put_stream(writer: &mut Writer, stream: &StreamAssignment) {
    writer.blob(stream.stored.json());
    time(writer, stream.created);
    put_group(writer, &stream.group);
    writer.number(stream.revision);
    writer.number(stream.consumers.len() as u64);
    for (name, consumer) in &stream.consumers {
        text(writer, name);
        writer.blob(consumer.stored.json());
        time(writer, consumer.created);
        writer.number(consumer.revision);
    }
}

fn read_stream(reader: &mut Reader<'_>) -> Read<StreamAssignment> {
    Ok(StreamAssignment {
        stored: Stored::from_json(reader.blob()?),
        created: read_time(reader)?,
        group: read_group(reader)?,
        revision: read_counter(reader)?,
        consumers: read_map(reader, |reader| {
            let name = read_text(reader)?;
            let consumer = ConsumerAssignment {
                stored: Stored::from_json(reader.blob()?),
                created: read_time(reader)?,
                revision: read_counter(reader)?,
            };
            Ok((name, Arc::new(consumer)))
        })?,
    })
}

fn put_group(writer: &mut Writer, group: &Group) {
    writer.number(group.number.0);
    text(writer, &group.name);
    text(writer, &group.cluster);
    flag(writer, group.form == Form::Raft);
    members(writer, &group.founders);
    members(writer, &group.members);
    members(writer, &group.leaving);
    match group.change {
        None => writer.u8(0),
        Some(change) => kind(writer, change),
    }
    texts(writer, &group.before);
    let lost: Vec<u64> = group.lost.iter().copied().collect();
    list(writer, &lost, |writer, node| writer.number(*node));
    flag(writer, group.begun);
    text(writer, &group.preferred);
    writer.number(group.nodes_next);
}

fn read_group(reader: &mut Reader<'_>) -> Read<Group> {
    Ok(Group {
        number: GroupNumber(reader.number()?),
        name: read_text(reader)?,
        cluster: read_text(reader)?,
        form: match read_flag(reader)? {
            true => Form::Raft,
            false => Form::Plain,
        },
        founders: read_members(reader)?,
        members: read_members(reader)?,
        leaving: read_members(reader)?,
        change: match reader.u8()? {
            0 => None,
            byte => Some(read_kind(byte)?),
        },
        before: read_texts(reader)?,
        lost: read_list(reader, |reader| reader.number())?
            .into_iter()
            .collect::<BTreeSet<_>>(),
        begun: read_flag(reader)?,
        preferred: read_text(reader)?,
        nodes_next: read_counter(reader)?,
    })
}

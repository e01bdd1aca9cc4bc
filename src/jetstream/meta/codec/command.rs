//! Commands as bytes.

use raft::group::GroupNumber;

use super::*;
use crate::jetstream::meta::assignment::StreamRef;
use crate::jetstream::meta::command::{Command, NewMembers};

/// The longest command: a configuration with its metadata is far below.
pub const COMMAND_BYTES_MAX: usize = 4 * 1024 * 1024;

fn stream_ref(writer: &mut Writer, of: &StreamRef) {
    text(writer, &of.account);
    text(writer, &of.stream);
    writer.number(of.group.0);
}

fn read_stream_ref(reader: &mut Reader<'_>) -> Read<StreamRef> {
    Ok(StreamRef {
        account: read_text(reader)?,
        stream: read_text(reader)?,
        group: GroupNumber(reader.number()?),
    })
}

fn new_members(writer: &mut Writer, members: &NewMembers) {
    kind(writer, members.kind);
    texts(writer, &members.servers);
    text(writer, &members.preferred);
    text(writer, &members.name);
    text(writer, &members.cluster);
}

fn read_new_members(reader: &mut Reader<'_>) -> Read<NewMembers> {
    Ok(NewMembers {
        kind: read_kind(reader.u8()?)?,
        servers: read_texts(reader)?,
        preferred: read_text(reader)?,
        name: read_text(reader)?,
        cluster: read_text(reader)?,
    })
}

impl Command {
    /// As bytes, for the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.u8(self.kind());
        self.put(&mut writer);
        writer.bytes
    }

    fn kind(&self) -> u8 {
        match self {
            Self::PeerPut { .. } => 1,
            Self::PeerRemove { .. } => 2,
            Self::StreamCreate { .. } => 3,
            Self::StreamUpdate { .. } => 4,
            Self::StreamDelete { .. } => 5,
            Self::ConsumerCreate { .. } => 6,
            Self::ConsumerUpdate { .. } => 7,
            Self::ConsumerDelete { .. } => 8,
            Self::MembersReplace { .. } => 9,
            Self::MoveCancel { .. } => 10,
            Self::AccountPurge { .. } => 11,
            Self::GroupBegun { .. } => 12,
            Self::GroupSettled { .. } => 13,
            Self::MemberLost { .. } => 14,
            Self::MemberSpoilt { .. } => 19,
            Self::ReplicaGone { .. } => 15,
            Self::OrphanNote { .. } => 16,
            Self::OrphanGone { .. } => 17,
            Self::StreamRestored { .. } => 18,
        }
    }

    fn put(&self, writer: &mut Writer) {
        match self {
            Self::PeerPut { profile: of, renew } => {
                profile(writer, of);
                flag(writer, *renew);
            }
            Self::PeerRemove { server } => text(writer, server),
            Self::StreamCreate {
                account,
                stream,
                config,
                created,
                group_name,
                cluster,
                servers,
                preferred,
            } => {
                text(writer, account);
                text(writer, stream);
                writer.blob(config);
                time(writer, *created);
                text(writer, group_name);
                text(writer, cluster);
                texts(writer, servers);
                text(writer, preferred);
            }
            Self::StreamRestored {
                account,
                stream,
                config,
                created,
                home,
                members,
            } => {
                text(writer, account);
                text(writer, stream);
                writer.blob(config);
                time(writer, *created);
                text(writer, home);
                new_members(writer, members);
            }
            Self::StreamUpdate {
                of,
                revision,
                config,
                members,
            } => {
                stream_ref(writer, of);
                writer.number(*revision);
                writer.blob(config);
                flag(writer, members.is_some());
                if let Some(members) = members {
                    new_members(writer, members);
                }
            }
            Self::ConsumerCreate {
                of,
                name,
                config,
                created,
            } => {
                stream_ref(writer, of);
                text(writer, name);
                writer.blob(config);
                time(writer, *created);
            }
            Self::ConsumerUpdate {
                of,
                name,
                revision,
                config,
            } => {
                stream_ref(writer, of);
                text(writer, name);
                writer.number(*revision);
                writer.blob(config);
            }
            Self::ConsumerDelete { of, name } => {
                stream_ref(writer, of);
                text(writer, name);
            }
            Self::MembersReplace {
                of,
                revision,
                members,
            } => {
                stream_ref(writer, of);
                writer.number(*revision);
                new_members(writer, members);
            }
            Self::MoveCancel { of, config } => {
                stream_ref(writer, of);
                flag(writer, config.is_some());
                if let Some(config) = config {
                    writer.blob(config);
                }
            }
            Self::AccountPurge { account } => text(writer, account),
            Self::StreamDelete { of } | Self::GroupBegun { of } => stream_ref(writer, of),
            Self::GroupSettled { of, nodes } => {
                stream_ref(writer, of);
                list(writer, nodes, |writer, node| writer.number(*node));
            }
            Self::MemberLost { of, node } | Self::MemberSpoilt { of, node } => {
                stream_ref(writer, of);
                writer.number(*node);
            }
            Self::ReplicaGone { group, node } => {
                writer.number(group.0);
                writer.number(*node);
            }
            Self::OrphanNote {
                server,
                place,
                account,
                stream,
                reason,
                since,
            } => {
                for value in [server, place, account, stream, reason] {
                    text(writer, value);
                }
                time(writer, *since);
            }
            Self::OrphanGone { server, place } => {
                text(writer, server);
                text(writer, place);
            }
        }
    }

    /// Reads what [`Command::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(DecodeError::Range { what: "length" });
        }
        let mut reader = Reader::new(bytes);
        version(&mut reader, VERSION)?;
        let kind = reader.u8()?;
        let command = Self::take(kind, &mut reader)?;
        at_end(&reader)?;
        Ok(command)
    }

    fn take(kind: u8, reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match kind {
            1 => Self::PeerPut {
                profile: read_profile(reader)?,
                renew: read_flag(reader)?,
            },
            2 => Self::PeerRemove {
                server: read_text(reader)?,
            },
            3 => Self::StreamCreate {
                account: read_text(reader)?,
                stream: read_text(reader)?,
                config: reader.blob()?.to_vec(),
                created: read_time(reader)?,
                group_name: read_text(reader)?,
                cluster: read_text(reader)?,
                servers: read_texts(reader)?,
                preferred: read_text(reader)?,
            },
            4 => Self::StreamUpdate {
                of: read_stream_ref(reader)?,
                revision: reader.number()?,
                config: reader.blob()?.to_vec(),
                members: match read_flag(reader)? {
                    true => Some(read_new_members(reader)?),
                    false => None,
                },
            },
            5 => Self::StreamDelete {
                of: read_stream_ref(reader)?,
            },
            6 => Self::ConsumerCreate {
                of: read_stream_ref(reader)?,
                name: read_text(reader)?,
                config: reader.blob()?.to_vec(),
                created: read_time(reader)?,
            },
            7 => Self::ConsumerUpdate {
                of: read_stream_ref(reader)?,
                name: read_text(reader)?,
                revision: reader.number()?,
                config: reader.blob()?.to_vec(),
            },
            8 => Self::ConsumerDelete {
                of: read_stream_ref(reader)?,
                name: read_text(reader)?,
            },
            9 => Self::MembersReplace {
                of: read_stream_ref(reader)?,
                revision: reader.number()?,
                members: read_new_members(reader)?,
            },
            10 => Self::MoveCancel {
                of: read_stream_ref(reader)?,
                config: match read_flag(reader)? {
                    true => Some(reader.blob()?.to_vec()),
                    false => None,
                },
            },
            11 => Self::AccountPurge {
                account: read_text(reader)?,
            },
            18 => Self::StreamRestored {
                account: read_text(reader)?,
                stream: read_text(reader)?,
                config: reader.blob()?.to_vec(),
                created: read_time(reader)?,
                home: read_text(reader)?,
                members: read_new_members(reader)?,
            },
            _ => Self::take_report(kind, reader)?,
        })
    }

    fn take_report(kind: u8, reader: &mut Reader<'_>) -> Read<Self> {
        Ok(match kind {
            12 => Self::GroupBegun {
                of: read_stream_ref(reader)?,
            },
            13 => Self::GroupSettled {
                of: read_stream_ref(reader)?,
                nodes: read_list(reader, |reader| reader.number())?,
            },
            14 => Self::MemberLost {
                of: read_stream_ref(reader)?,
                node: reader.number()?,
            },
            19 => Self::MemberSpoilt {
                of: read_stream_ref(reader)?,
                node: reader.number()?,
            },
            15 => Self::ReplicaGone {
                group: GroupNumber(reader.number()?),
                node: reader.number()?,
            },
            16 => Self::OrphanNote {
                server: read_text(reader)?,
                place: read_text(reader)?,
                account: read_text(reader)?,
                stream: read_text(reader)?,
                reason: read_text(reader)?,
                since: read_time(reader)?,
            },
            17 => Self::OrphanGone {
                server: read_text(reader)?,
                place: read_text(reader)?,
            },
            _ => return Err(DecodeError::Range { what: "command" }),
        })
    }
}

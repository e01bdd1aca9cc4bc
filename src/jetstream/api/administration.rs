//! Requests about the cluster itself: who leads the meta group, which servers are part of it, where streams are, and accounts that are to be emptied.
//!
//! They are for the leader of the meta group. All but the moves of an account's own streams are for the system account only, and nobody else is answered.

use serde::Deserialize;

use super::super::meta::request::moves::{self, MoveRequest};
use super::super::meta::request::servers::{self, RemoveRequest};
use super::super::meta::request::{Decision, Desk};
use super::super::meta::{Meta, Sightings};
use super::super::types::{
    ApiError, ErrorCode, Placement, StreamInfo, Strictness, decode, decode_optional,
    is_empty_request,
};
use super::response::{AccountPurged, MetaSteppedDown, ServerRemoved, StreamUpdated, encode_reply};
use super::route::PREFIX;

/// What a subject asks to be done with the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Administration<'a> {
    /// Another server is to lead the meta group.
    MetaStepDown,
    /// A server is to leave the cluster.
    ServerRemove,
    /// Everything of an account is to be gone.
    AccountPurge(&'a str),
    /// A replica of a stream is to be elsewhere.
    StreamMove {
        /// The stream's account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
    },
    /// A stream that moves is to stay.
    StreamMoveCancel {
        /// The stream's account.
        account: &'a str,
        /// The stream.
        stream: &'a str,
    },
}

impl<'a> Administration<'a> {
    /// Reads a whole subject; `None` when it asks for none of this.
    pub fn parse(subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix(PREFIX)?;
        let tokens: Vec<&str> = rest.split('.').collect();
        match tokens.as_slice() {
            ["META", "LEADER", "STEPDOWN"] => Some(Self::MetaStepDown),
            ["SERVER", "REMOVE"] => Some(Self::ServerRemove),
            ["ACCOUNT", "PURGE", account] => Some(Self::AccountPurge(account)),
            ["ACCOUNT", "STREAM", "MOVE", account, stream] => {
                Some(Self::StreamMove { account, stream })
            }
            ["ACCOUNT", "STREAM", "CANCEL_MOVE", account, stream] => {
                Some(Self::StreamMoveCancel { account, stream })
            }
            _ => None,
        }
    }

    /// Whether a client of that account is answered.
    pub fn is_open_to(&self, account: &str, is_system: bool) -> bool {
        is_system
            || match self {
                Self::StreamMove { account: own, .. }
                | Self::StreamMoveCancel { account: own, .. } => *own == account,
                _ => false,
            }
    }

    /// The account whose streams it is about, if it is about one: the desk must be that account's.
    pub fn account(&self) -> Option<&'a str> {
        match self {
            Self::MetaStepDown | Self::ServerRemove => None,
            Self::AccountPurge(account)
            | Self::StreamMove { account, .. }
            | Self::StreamMoveCancel { account, .. } => Some(account),
        }
    }

    /// What is to be done, on the leader of the meta group, whose name is `leader` and whose members are these.
    pub fn decide(
        &self,
        desk: &Desk<'_>,
        leader: &str,
        members: &[String],
        body: &[u8],
        strictness: Strictness,
    ) -> Result<Act, ApiError> {
        let decided = match self {
            Self::MetaStepDown => {
                let next = next_leader(desk.meta, desk.sightings, members, leader, desk.seed);
                return next(body, strictness).map(Act::StepDown);
            }
            Self::ServerRemove => {
                if is_empty_request(body) {
                    return Err(ErrorCode::BadRequest.into());
                }
                let request: RemoveRequest = decode(body, strictness)?;
                servers::remove(desk.meta, &request)?
            }
            Self::AccountPurge(account) => servers::purge_account(account)?,
            Self::StreamMove { stream, .. } => {
                let request: MoveRequest = decode(body, strictness)?;
                moves::start(desk, stream, &request)?
            }
            Self::StreamMoveCancel { stream, .. } => moves::cancel(desk, stream)?,
        };
        Ok(Act::Decided(Box::new(decided)))
    }

    /// The reply when it was done, or what it failed for. A move is answered with the stream.
    pub fn reply(&self, result: Result<Option<Box<StreamInfo>>, ApiError>) -> Vec<u8> {
        match self {
            Self::MetaStepDown => encode_reply(result.map(|_| MetaSteppedDown { success: true })),
            Self::ServerRemove => encode_reply(result.map(|_| ServerRemoved { success: true })),
            Self::AccountPurge(_) => {
                encode_reply(result.map(|_| AccountPurged { initiated: true }))
            }
            Self::StreamMove { .. } | Self::StreamMoveCancel { .. } => {
                encode_reply(result.map(|info| StreamUpdated {
                    info: info.map(|info| *info),
                }))
            }
        }
    }
}

/// What the leader of the meta group does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// What a request comes to: a command to propose, or nothing.
    Decided(Box<Decision>),
    /// It lets another server lead: that one, or whoever the others choose.
    StepDown(Option<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StepDownRequest {
    placement: Option<Placement>,
}

/// Reads who is to lead next out of a step-down request, for the group with these members.
pub fn next_leader<'a>(
    meta: &'a Meta,
    sightings: &'a Sightings,
    members: &'a [String],
    leader: &'a str,
    seed: u64,
) -> impl FnOnce(&[u8], Strictness) -> Result<Option<String>, ApiError> + 'a {
    move |body, strictness| {
        let request: StepDownRequest = decode_optional(body, strictness)?;
        let placement = request.placement.as_ref();
        servers::next_leader(meta, sightings, members, leader, placement, seed)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PeerRemoveRequest {
    peer: String,
}

/// What the request to take a replica off a server comes to.
pub fn remove_peer(
    desk: &Desk<'_>,
    stream: &str,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decision, ApiError> {
    if is_empty_request(body) {
        return Err(ErrorCode::BadRequest.into());
    }
    let request: PeerRemoveRequest = decode(body, strictness)?;
    servers::remove_from_stream(desk, stream, &request.peer)
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::AccountTiers;
    use super::super::super::limits::ServerLimits;
    use super::super::super::meta::{Command, PlacementRules, Sighting};
    use super::super::super::types::Time;
    use super::*;

    #[test]
    fn subjects_say_what_is_to_be_done_and_who_may_ask() {
        let parse = Administration::parse;
        assert_eq!(
            parse("$JS.API.META.LEADER.STEPDOWN"),
            Some(Administration::MetaStepDown)
        );
        assert_eq!(
            parse("$JS.API.SERVER.REMOVE"),
            Some(Administration::ServerRemove)
        );
        let purge = parse("$JS.API.ACCOUNT.PURGE.A").expect("a purge");
        assert_eq!(purge, Administration::AccountPurge("A"));
        let (account, stream) = ("A", "S");
        let go = parse("$JS.API.ACCOUNT.STREAM.MOVE.A.S").expect("a move");
        assert_eq!(go, Administration::StreamMove { account, stream });
        let stay = parse("$JS.API.ACCOUNT.STREAM.CANCEL_MOVE.A.S").expect("a cancel");
        assert_eq!(stay, Administration::StreamMoveCancel { account, stream });
        for subject in [
            "$JS.API.META.LEADER",
            "$JS.API.ACCOUNT.PURGE.A.B",
            "$JS.API.ACCOUNT.STREAM.MOVE.A",
            "$JS.API.INFO",
            "META.LEADER.STEPDOWN",
        ] {
            assert_eq!(parse(subject), None, "{subject}");
        }
        assert!(purge.is_open_to("SYS", true) && !purge.is_open_to("A", false));
        assert!(go.is_open_to("A", false) && !go.is_open_to("B", false));
        assert_eq!((purge.account(), go.account()), (Some("A"), Some("A")));
    }

    struct Office {
        meta: Meta,
        sightings: Sightings,
        tiers: AccountTiers,
        server: ServerLimits,
        members: Vec<String>,
    }

    impl Office {
        fn new() -> Self {
            let members: Vec<String> = ["n1", "n2", "n3"].map(str::to_owned).into();
            let seen = Sighting {
                online: true,
                ..Sighting::default()
            };
            Self {
                meta: Meta::founding(members.iter().map(String::as_str)),
                sightings: members.iter().map(|name| (name.clone(), seen)).collect(),
                tiers: AccountTiers::default(),
                server: ServerLimits::default(),
                members,
            }
        }

        fn desk(&self) -> Desk<'_> {
            Desk {
                meta: &self.meta,
                sightings: &self.sightings,
                placement: PlacementRules::default(),
                account: "A",
                tiers: &self.tiers,
                server: &self.server,
                cluster: "C1",
                alternates: &[],
                now: Time::from_nanoseconds(1),
                seed: 1,
            }
        }

        fn decide(&self, subject: &str, body: &str) -> Result<Act, ApiError> {
            let asked = Administration::parse(subject).expect("a subject");
            let (desk, members) = (self.desk(), &self.members);
            asked.decide(&desk, "n1", members, body.as_bytes(), Strictness::Strict)
        }
    }

    #[test]
    fn who_leads_next_is_read_from_the_request() {
        let office = Office::new();
        let subject = "$JS.API.META.LEADER.STEPDOWN";
        assert_eq!(office.decide(subject, ""), Ok(Act::StepDown(None)));
        let preferred = r#"{"placement":{"preferred":"n2"}}"#;
        let next = Some("n2".to_owned());
        assert_eq!(office.decide(subject, preferred), Ok(Act::StepDown(next)));
        let own = r#"{"placement":{"preferred":"n1"}}"#;
        let refused = office.decide(subject, own).expect_err("it leads");
        assert_eq!(refused.err_code, 10005);
        let refused = office.decide(subject, r#"{"nonsense":1}"#);
        assert_eq!(refused.expect_err("unknown field").err_code, 10025);
    }

    #[test]
    fn servers_are_removed_by_name_or_id_and_accounts_purged() {
        let office = Office::new();
        let subject = "$JS.API.SERVER.REMOVE";
        let server = "n3".to_owned();
        let decision = Decision::Propose(Command::PeerRemove { server });
        let removed = Act::Decided(Box::new(decision));
        assert_eq!(office.decide(subject, r#"{"peer":"n3"}"#), Ok(removed));
        let code = |result: Result<Act, ApiError>| result.expect_err("refused").err_code;
        assert_eq!(code(office.decide(subject, "")), 10003);
        assert_eq!(code(office.decide(subject, r#"{"peer":"n9"}"#)), 10044);
        assert!(office.decide("$JS.API.ACCOUNT.PURGE.A", "").is_ok());
        let subject = "$JS.API.ACCOUNT.STREAM.MOVE.A.S";
        assert_eq!(code(office.decide(subject, r#"{"server":"n1"}"#)), 10059);
        let subject = "$JS.API.ACCOUNT.STREAM.CANCEL_MOVE.A.S";
        assert_eq!(code(office.decide(subject, "")), 10059);
        let removal = remove_peer(&office.desk(), "S", br#"{"peer":"n1"}"#, Strictness::Strict);
        assert_eq!(removal.expect_err("no stream").err_code, 10059);
    }

    #[test]
    fn replies_are_typed_as_the_reference_types_them() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        assert_eq!(
            text(Administration::MetaStepDown.reply(Ok(None))),
            r#"{"type":"io.nats.jetstream.api.v1.meta_leader_stepdown_response","success":true}"#
        );
        assert_eq!(
            text(Administration::ServerRemove.reply(Ok(None))),
            r#"{"type":"io.nats.jetstream.api.v1.meta_server_remove_response","success":true}"#
        );
        assert_eq!(
            text(Administration::AccountPurge("A").reply(Ok(None))),
            r#"{"type":"io.nats.jetstream.api.v1.account_purge_response","initiated":true}"#
        );
        let failed =
            Administration::ServerRemove.reply(Err(ErrorCode::ClusterServerNotMember.into()));
        assert_eq!(
            text(failed),
            r#"{"type":"io.nats.jetstream.api.v1.meta_server_remove_response","error":{"code":400,"err_code":10044,"description":"server is not a member of the cluster"}}"#
        );
    }
}

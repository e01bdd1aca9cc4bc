//! What `/varz` and `/jsz` show of JetStream.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::api::ApiStats;
use super::core::{InfoQuery, StreamReply, StreamRequest};
use super::limits::{AccountLimits, ServerLimits};
use super::registry::{AccountStreams, Stream};
use super::types::{
    ClusterInfo, ConsumerInfo, MetaClusterInfo, PeerId, Storage, StreamConfig, StreamInfo,
    StreamSourceInfo, StreamState, Time, is_false, is_zero,
};

/// How JetStream is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Bytes that memory streams may hold.
    pub max_memory: u64,
    /// Bytes that file streams may hold.
    pub max_storage: u64,
    /// Where streams live; empty where that is not to be told.
    #[serde(skip_serializing_if = "is_empty_path")]
    pub store_dir: PathBuf,
    /// How often data is synced, in nanoseconds; 0 when it is synced before each ack.
    #[serde(skip_serializing_if = "is_zero")]
    pub sync_interval: i64,
    /// Whether data is synced before each ack.
    #[serde(skip_serializing_if = "is_false")]
    pub sync_always: bool,
    /// Its domain; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Whether streams may be compressed.
    pub compress_ok: bool,
    /// The tag in which the servers of a stream's replicas must differ; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unique_tag: String,
    /// Whether requests with unknown fields are refused.
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
}

fn is_empty_path(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

/// What JetStream uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JetStreamStats {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Bytes that memory streams may grow to.
    pub reserved_memory: u64,
    /// Bytes that file streams may grow to.
    pub reserved_storage: u64,
    /// Accounts with JetStream.
    pub accounts: usize,
    /// Replicated streams and consumers.
    pub ha_assets: usize,
    /// How often the API was used.
    pub api: ApiStats,
}

/// The `jetstream` object of `/varz`.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// How it is set up.
    pub config: Settings,
    /// What it uses.
    pub stats: JetStreamStats,
    /// The cluster's meta group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<MetaClusterInfo>,
    /// What it allows.
    pub limits: ServerLimits,
}

/// What `/jsz` is asked to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only this account.
    pub account: Option<String>,
    /// Every account.
    pub accounts: bool,
    /// Their streams.
    pub streams: bool,
    /// Their consumers; implies streams.
    pub consumers: bool,
    /// Consumers that serve the server's own purposes, too; without consumers they do not count.
    pub direct_consumers: bool,
    /// Configurations.
    pub config: bool,
    /// Only streams that this server leads.
    pub stream_leader_only: bool,
    /// Names of groups, and how much this server leads.
    pub groups: bool,
    /// Accounts to leave out.
    pub offset: usize,
    /// Accounts to show; 0 is 1024.
    pub limit: usize,
}

/// `/jsz`.
#[derive(Debug, Clone, Serialize)]
pub struct JetStreamInfo {
    /// What all accounts use.
    #[serde(flatten)]
    pub stats: JetStreamStats,
    /// Which server says so.
    pub server_id: String,
    /// When.
    pub now: Time,
    /// There is no JetStream here.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// How it is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Settings>,
    /// What it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ServerLimits>,
    /// Streams.
    pub streams: usize,
    /// Those that this server leads, when groups are asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub streams_leader: u64,
    /// Consumers.
    pub consumers: u64,
    /// Those that this server leads, when groups are asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub consumers_leader: u64,
    /// Messages in all streams.
    pub messages: u64,
    /// Accounted bytes in all streams.
    pub bytes: u64,
    /// The cluster's meta group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_cluster: Option<MetaClusterInfo>,
    /// The accounts asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub account_details: Vec<AccountDetail>,
    /// Accounts with JetStream.
    pub total: usize,
}

impl JetStreamInfo {
    /// What a server without JetStream says.
    pub fn disabled(server_id: &str, now: Time) -> Self {
        Self {
            stats: JetStreamStats::default(),
            server_id: server_id.to_owned(),
            now,
            disabled: true,
            config: None,
            limits: None,
            streams: 0,
            streams_leader: 0,
            consumers: 0,
            consumers_leader: 0,
            messages: 0,
            bytes: 0,
            meta_cluster: None,
            account_details: Vec::new(),
            total: 0,
        }
    }
}

/// An account in `/jsz`.
#[derive(Debug, Clone, Serialize)]
pub struct AccountDetail {
    /// What people call it.
    pub name: String,
    /// What the server calls it.
    pub id: String,
    /// What it uses. As in the reference, the reserved figures are the account's limits.
    #[serde(flatten)]
    pub stats: JetStreamStats,
    /// Its streams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream_detail: Vec<StreamDetail>,
}

/// A stream in `/jsz`.
#[derive(Debug, Clone, Serialize)]
pub struct StreamDetail {
    /// Its name.
    pub name: String,
    /// Since when it exists.
    pub created: Time,
    /// Who holds copies.
    pub cluster: ClusterInfo,
    /// What it is configured to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<StreamConfig>,
    /// Its totals.
    pub state: StreamState,
    /// Its consumers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumer_detail: Vec<serde_json::Value>,
    /// Those of them that are direct.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub direct_consumer_detail: Vec<serde_json::Value>,
    /// How far its mirror has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSourceInfo>,
    /// How far its sources have come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSourceInfo>,
    /// What its group is called.
    #[serde(rename = "stream_raft_group", skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// What the groups of its consumers are called, which is the same: consumers live in their stream's.
    #[serde(rename = "consumer_raft_groups", skip_serializing_if = "Vec::is_empty")]
    pub consumer_groups: Vec<ConsumerGroup>,
}

/// What the group of a consumer is called.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumerGroup {
    /// The consumer.
    pub name: String,
    /// Its group.
    pub raft_group: String,
}

/// The groups that a server takes part in, by account and name. What the meta layer has is under no account.
pub type GroupDetails = BTreeMap<String, BTreeMap<String, GroupDetail>>;

/// A group as one of its replicas sees it, with the keys of the reference. What it has and is never so here is not shown where the reference leaves it out, too: paused groups, and
/// those that are overrun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupDetail {
    /// The replica's server.
    pub id: PeerId,
    /// What it is in the group.
    pub state: &'static str,
    /// Servers in the group.
    pub size: usize,
    /// How many of them are a majority.
    pub quorum_needed: usize,
    /// Whether it has no vote, and leads never.
    #[serde(skip_serializing_if = "is_false")]
    pub observer: bool,
    /// The last entry that is known to be committed.
    pub committed: u64,
    /// The last entry that is applied.
    pub applied: u64,
    /// Whether it is being given a state.
    #[serde(skip_serializing_if = "is_false")]
    pub catching_up: bool,
    /// Who leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<PeerId>,
    /// Since when, if this server does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Time>,
    /// Whether anybody ever led.
    pub ever_had_leader: bool,
    /// The term it is in.
    pub term: u64,
    /// Who has its vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voted_for: Option<PeerId>,
    /// The term of the last entry of its log.
    pub pterm: u64,
    /// The last entry of its log.
    pub pindex: u64,
    /// Whether its traffic counts for the system account, as that of links does.
    pub system_account: bool,
    /// That account.
    pub traffic_account: String,
    /// Proposals that wait to be logged.
    pub ipq_proposal_len: usize,
    /// Entries of the leader that wait: none, they are taken as they come.
    pub ipq_entry_len: usize,
    /// Answers of followers that wait: none, they are taken as they come.
    pub ipq_resp_len: usize,
    /// Committed entries that wait to be applied.
    pub ipq_apply_len: u64,
    /// What its log has. Entries have no times of their own.
    pub wal: StreamState,
    /// The others.
    pub peers: BTreeMap<PeerId, GroupPeer>,
}

/// A stream that is to be here and is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// Its account.
    pub account: String,
    /// The stream.
    pub stream: String,
    /// What is wrong.
    pub reason: &'static str,
}

/// Another replica of a group, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupPeer {
    /// Its server.
    pub name: String,
    /// Whether it is a member that votes.
    pub known: bool,
    /// The last entry that it is known to have; told by whoever leads.
    #[serde(skip_serializing_if = "is_zero")]
    pub last_replicated_index: u64,
    /// How long ago it was heard of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_seen: String,
}

/// The totals of one account, and of each of its streams.
pub(crate) struct Usage {
    pub streams: Vec<StreamInfo>,
    pub memory: u64,
    pub storage: u64,
}

impl Usage {
    /// Asks these streams of an account at once.
    pub(crate) fn of(streams: &[Arc<Stream>]) -> Self {
        let pending: Vec<_> = streams
            .iter()
            .map(|stream| stream.start(StreamRequest::Info(InfoQuery::default())))
            .collect();
        let mut usage = Self {
            streams: Vec::with_capacity(pending.len()),
            memory: 0,
            storage: 0,
        };
        for pending in pending {
            // A stream that has gone meanwhile uses nothing.
            if let StreamReply::Info { info, .. } = pending.wait() {
                match info.config.storage {
                    Storage::File => usage.storage += info.state.bytes,
                    Storage::Memory => usage.memory += info.state.bytes,
                }
                usage.streams.push(*info);
            }
        }
        usage
    }

    /// Consumers of all streams.
    pub(crate) fn consumers(&self) -> u64 {
        self.streams
            .iter()
            .map(|stream| stream.state.consumer_count)
            .sum()
    }
}

/// One account as `/jsz` shows it.
pub(crate) fn account_detail(
    account: &AccountStreams,
    usage: Usage,
    query: &Query,
    server_name: &str,
    cluster_of: impl Fn(&str) -> ClusterInfo,
    group_of: impl Fn(&str) -> Option<String>,
) -> AccountDetail {
    let (total, errors) = account.api.get();
    let tiers = account.tiers();
    let reserved = |bytes: fn(&AccountLimits) -> i64| tiers.all.as_ref().map_or(0, bytes);
    let streams = usage.streams.into_iter().filter(|_| query.streams);
    AccountDetail {
        name: account.name.clone(),
        id: account.name.clone(),
        stats: JetStreamStats {
            memory: usage.memory,
            storage: usage.storage,
            reserved_memory: reserved(|limits| limits.max_memory).cast_unsigned(),
            reserved_storage: reserved(|limits| limits.max_storage).cast_unsigned(),
            accounts: 0,
            ha_assets: 0,
            api: ApiStats {
                total,
                errors,
                ..ApiStats::default()
            },
        },
        stream_detail: streams
            .map(|info| {
                let cluster = cluster_of(&info.config.name);
                (info, cluster)
            })
            .filter(|(_, cluster)| !query.stream_leader_only || cluster.leader == server_name)
            .map(|(info, cluster)| {
                let group = group_of(&info.config.name).filter(|_| query.groups);
                stream_detail(account, info, query, cluster, group.unwrap_or_default())
            })
            .collect(),
    }
}

fn stream_detail(
    account: &AccountStreams,
    info: StreamInfo,
    query: &Query,
    cluster: ClusterInfo,
    group: String,
) -> StreamDetail {
    let consumers = match account.get(&info.config.name) {
        Some(stream) if query.consumers => consumer_infos(&stream),
        _ => Vec::new(),
    };
    let shown = |direct: bool| {
        consumers
            .iter()
            .filter(|consumer| consumer.config.direct == direct)
            .map(|consumer| consumer_detail(consumer, query.config))
            .collect()
    };
    let names = || {
        let public = consumers.iter().filter(|consumer| !consumer.config.direct);
        public.map(|consumer| &consumer.name)
    };
    StreamDetail {
        name: info.config.name.clone(),
        created: info.created,
        cluster,
        config: query.config.then_some(info.config),
        state: info.state,
        consumer_detail: shown(false),
        direct_consumer_detail: match query.direct_consumers {
            true => shown(true),
            false => Vec::new(),
        },
        mirror: info.mirror,
        sources: info.sources,
        consumer_groups: match group.is_empty() {
            true => Vec::new(),
            false => names()
                .map(|name| ConsumerGroup {
                    name: name.clone(),
                    raft_group: group.clone(),
                })
                .collect(),
        },
        group,
    }
}

fn consumer_infos(stream: &Stream) -> Vec<ConsumerInfo> {
    let everything = StreamRequest::ConsumerInfos {
        offset: 0,
        limit: usize::MAX,
    };
    match stream.ask(everything) {
        StreamReply::ConsumerInfos { infos, .. } => infos,
        _ => Vec::new(),
    }
}

fn consumer_detail(info: &ConsumerInfo, with_config: bool) -> serde_json::Value {
    let mut value = serde_json::to_value(info).unwrap_or_default();
    if !with_config && let Some(fields) = value.as_object_mut() {
        fields.shift_remove("config");
    }
    value
}

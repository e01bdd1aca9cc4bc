//! Which servers a stream is put on.
//!
//! # Invariant
//! The same state, sightings, wish and seed lead to the same servers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::peer::{Peer, Sighting, Sightings, is_online};
use super::state::Meta;
use crate::jetstream::limits::reservation;
use crate::jetstream::types::{ApiError, ErrorCode, Storage, StreamConfig};

/// A server with this tag takes no replicas.
const EXCLUDED_TAG: &str = "!jetstream";

/// What the operator asks of every placement.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlacementRules<'a> {
    /// Replicas of a stream go to servers whose tags with this prefix differ; empty for no such rule.
    pub unique_tag: &'a str,
    /// Replicated groups that a server takes part in at most; 0 is no limit.
    pub ha_assets_max: u64,
}

/// Where a stream is to be put.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// How many servers are needed, with those that are kept.
    pub replicas: usize,
    /// In which cluster.
    pub cluster: &'a str,
    /// What the stream is configured to do.
    pub config: &'a StreamConfig,
    /// Servers that it is on and stays on: they come first in the answer.
    pub keep: &'a [String],
    /// How many of these, counted from the first, are about to leave, so that their tags do not count.
    pub leaving: usize,
    /// Servers that it must not be put on.
    pub avoid: &'a [String],
}

/// Why no servers could be found: all that stood in the way of one server or another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoPlace {
    offline: bool,
    excluded: bool,
    no_storage: bool,
    tag_not_unique: bool,
    other: bool,
    no_servers: bool,
    tags_missing: BTreeSet<String>,
    tags_excluded: BTreeSet<String>,
}

impl NoPlace {
    /// Adds what stood in the way elsewhere.
    pub fn and(mut self, other: Self) -> Self {
        self.offline |= other.offline;
        self.excluded |= other.excluded;
        self.no_storage |= other.no_storage;
        self.tag_not_unique |= other.tag_not_unique;
        self.other |= other.other;
        self.no_servers |= other.no_servers;
        self.tags_missing.extend(other.tags_missing);
        self.tags_excluded.extend(other.tags_excluded);
        self
    }
}

impl std::fmt::Display for NoPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no suitable peers for placement")?;
        for (applies, reason) in [
            (self.offline, "peer offline"),
            (self.excluded, "exclude tag set"),
            (self.no_storage, "insufficient storage"),
            (self.tag_not_unique, "server tag not unique"),
            (self.other, "miscellaneous issue"),
            (self.no_servers, "jetstream not enabled in cluster"),
        ] {
            if applies {
                write!(f, ", {reason}")?;
            }
        }
        for (tags, reason) in [
            (&self.tags_missing, "tags not matched"),
            (&self.tags_excluded, "tags excluded"),
        ] {
            if !tags.is_empty() {
                let quoted: Vec<String> = tags.iter().map(|tag| format!("'{tag}'")).collect();
                write!(f, ", {reason} [{}]", quoted.join(", "))?;
            }
        }
        Ok(())
    }
}

impl From<NoPlace> for ApiError {
    fn from(reasons: NoPlace) -> Self {
        ErrorCode::ClusterNoPeers.with(reasons)
    }
}

/// What a server holds by assignment.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    streams: usize,
    replicated: usize,
    memory_reserved: u64,
    storage_reserved: u64,
}

fn loads(meta: &Meta) -> BTreeMap<&str, Load> {
    let mut loads: BTreeMap<&str, Load> = BTreeMap::new();
    for streams in meta.accounts().values() {
        for stream in streams.values() {
            let config = stream.config();
            for member in stream.group.everyone() {
                let load = loads.entry(&member.server).or_default();
                load.streams += 1;
                load.replicated += usize::from(stream.group.members.len() > 1);
                let reserved = match config.storage {
                    Storage::Memory => &mut load.memory_reserved,
                    Storage::File => &mut load.storage_reserved,
                };
                *reserved = reserved.saturating_add(reservation(config));
            }
        }
    }
    loads
}

/// Finds servers for a stream: online ones before others, with the most room, the fewest streams and, for replicated ones, the fewest groups; where nothing tells
/// them apart, the seed decides.
pub fn place(
    meta: &Meta,
    sightings: &Sightings,
    rules: &PlacementRules<'_>,
    wish: &Wish<'_>,
    seed: u64,
) -> Result<Vec<String>, NoPlace> {
    if wish.cluster.is_empty() {
        return Err(NoPlace {
            other: true,
            ..NoPlace::default()
        });
    }
    if !wish.keep.is_empty() && wish.keep.len() >= wish.replicas {
        return Ok(wish.keep.iter().take(wish.replicas).cloned().collect());
    }
    let loads = loads(meta);
    let mut candidates = Candidates {
        rules,
        wish,
        tags: Tags::of(wish, rules),
        owners: BTreeMap::new(),
        refused: NoPlace::default(),
        found: Vec::new(),
    };
    let stay = wish.keep.iter().skip(wish.leaving);
    for peer in stay.filter_map(|server| meta.peers().get(server)) {
        candidates.owns_unique_tag(peer);
    }
    let mut peers: Vec<&Peer> = meta.peers().values().collect();
    peers.sort_by_key(|peer| shuffle(seed, &peer.profile.server));
    for peer in peers {
        let server = peer.profile.server.as_str();
        let load = loads.get(server).copied().unwrap_or_default();
        candidates.consider(peer, sightings.get(server), load);
    }
    candidates.choose(meta.peers().is_empty(), sightings)
}

/// A number that puts servers in an order that only the seed knows.
fn shuffle(seed: u64, server: &str) -> u64 {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    for byte in server.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// The tags that a placement asks for, in lower case.
struct Tags {
    wanted: Vec<String>,
    excluded: Vec<String>,
    /// Empty when uniqueness is not asked for, or a tag of that kind is named.
    unique: String,
}

impl Tags {
    fn of(wish: &Wish<'_>, rules: &PlacementRules<'_>) -> Self {
        let placement = wish.config.placement.as_ref();
        let asked = placement.map_or(&[][..], |placement| placement.tags.as_slice());
        let mut tags = Self {
            wanted: Vec::new(),
            excluded: Vec::new(),
            unique: rules.unique_tag.to_lowercase(),
        };
        for tag in asked {
            let tag = tag.trim().to_lowercase();
            let (list, tag) = match tag.strip_prefix('!') {
                Some(tag) => (&mut tags.excluded, tag.to_owned()),
                None => (&mut tags.wanted, tag),
            };
            list.push(tag);
        }
        let mut named = tags.wanted.iter().chain(&tags.excluded);
        if !tags.unique.is_empty() && named.any(|tag| tag.starts_with(&tags.unique)) {
            tags.unique.clear();
        }
        tags
    }
}

struct Candidate {
    server: String,
    online: bool,
    available: u64,
    streams: usize,
    replicated: usize,
}

struct Candidates<'a> {
    rules: &'a PlacementRules<'a>,
    wish: &'a Wish<'a>,
    tags: Tags,
    /// Who has which tag of those that must differ.
    owners: BTreeMap<String, String>,
    refused: NoPlace,
    found: Vec<Candidate>,
}

impl Candidates<'_> {
    fn consider(&mut self, peer: &Peer, sighting: Option<&Sighting>, load: Load) {
        let profile = &peer.profile;
        if profile.cluster != self.wish.cluster {
            return;
        }
        let Some(seen) = sighting.filter(|_| profile.jetstream) else {
            self.refused.offline = true;
            return;
        };
        let named = |list: &[String]| list.contains(&profile.server);
        if named(self.wish.avoid) || named(self.wish.keep) {
            return;
        }
        if !self.tags_match(&profile.tags) {
            return;
        }
        let available = available(peer, seen, load, self.wish.config.storage);
        let needed = reservation(self.wish.config);
        if needed > 0 && needed > available {
            self.refused.no_storage = true;
            return;
        }
        if self.rules.ha_assets_max > 0 && seen.ha_assets > self.rules.ha_assets_max {
            self.refused.other = true;
            return;
        }
        if !self.owns_unique_tag(peer) {
            self.refused.tag_not_unique = true;
            return;
        }
        self.found.push(Candidate {
            server: profile.server.clone(),
            online: seen.online,
            available,
            streams: load.streams,
            replicated: load.replicated,
        });
    }

    fn tags_match(&mut self, tags: &[String]) -> bool {
        let has = |tag: &str| tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        if has(EXCLUDED_TAG) {
            self.refused.excluded = true;
            return false;
        }
        if let Some(tag) = self.tags.excluded.iter().find(|tag| has(tag)) {
            self.refused.tags_excluded.insert(tag.clone());
            return false;
        }
        if let Some(tag) = self.tags.wanted.iter().find(|tag| !has(tag)) {
            self.refused.tags_missing.insert(tag.clone());
            return false;
        }
        true
    }

    /// Takes the server's tag of the kind that must differ; fails when another one has it, or it has none.
    fn owns_unique_tag(&mut self, peer: &Peer) -> bool {
        if self.tags.unique.is_empty() {
            return true;
        }
        let mut tags = peer.profile.tags.iter().map(|tag| tag.to_lowercase());
        let Some(tag) = tags.find(|tag| tag.starts_with(&self.tags.unique)) else {
            return false;
        };
        let server = &peer.profile.server;
        let owner = self.owners.entry(tag).or_insert_with(|| server.clone());
        owner == server
    }

    fn choose(mut self, no_servers: bool, sightings: &Sightings) -> Result<Vec<String>, NoPlace> {
        let keep = self.wish.keep;
        let missing = self.wish.replicas - keep.len();
        let online = self.found.iter().filter(|found| found.online).count();
        let kept_online = keep.iter().filter(|server| is_online(sightings, server));
        let quorum = self.wish.replicas / 2 + 1;
        let too_few = self.found.len() < missing;
        // Those that stay count whether they can be reached or not; somebody must be there, though.
        let no_quorum = online + keep.len() < quorum || online + kept_online.count() == 0;
        if too_few || no_quorum {
            self.refused.no_servers = no_servers;
            self.refused.offline |= !too_few && no_quorum;
            return Err(self.refused);
        }
        self.found.sort_by_key(|found| {
            let room = Reverse(found.available);
            (!found.online, room, found.streams)
        });
        if self.wish.config.replicas() > 1 {
            self.found
                .sort_by_key(|found| (!found.online, found.replicated));
        }
        let chosen = self.found.into_iter().take(missing);
        let chosen = chosen.map(|found| found.server);
        Ok(keep.iter().cloned().chain(chosen).collect())
    }
}

/// What is left of a server's room: what streams reserve counts, and what they hold where that is more.
fn available(peer: &Peer, seen: &Sighting, load: Load, storage: Storage) -> u64 {
    let (max, reserved, held) = match storage {
        Storage::Memory => (
            peer.profile.memory_bytes_max,
            load.memory_reserved,
            seen.memory_bytes,
        ),
        Storage::File => (
            peer.profile.storage_bytes_max,
            load.storage_reserved,
            seen.storage_bytes,
        ),
    };
    max.saturating_sub(reserved.max(held))
}

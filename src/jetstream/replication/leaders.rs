//! Who leads which group, and how much each server holds, as servers tell each other.
//!
//! A server tells all others when it begins to lead a group, and a server that it is newly linked with all that it leads. Of two that say that they
//! lead, the one of the later term does. What is too much for one report is told in several, each of which says all about the groups from one number to another.
//!
//! ```text
//! report: version u8 (8) | bytes held in memory u64, on disk u64 | first group u64, last group u64
//!         | u16 count, each: length u16, account without JetStream
//!         | u32 count, each: group u64 that has stopped | u32 count, each: group u64 whose memory is lost
//!         | u16 count, each: length u16, account with limits, bytes held in memory u64, on disk u64,
//!         |     u8 count, each: u8 replicas, bytes that streams with so many hold in memory u64, on disk u64
//!         | u32 count, each: group u64, term u64
//! ```
//!
//! All numbers are little-endian.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use raft::group::GroupNumber;

use super::super::api::now;
use super::super::types::Time;
use super::super::usage::{Held, HeldByTier};

const VERSION: u8 = 8;
const HEAD_BYTES: usize = 49;
const LED_BYTES: usize = 16;
/// Accounts in one report; whoever does not hear of the others asks in vain that one of their streams be led there.
const REPORT_ACCOUNTS_MAX: usize = 1024;
/// Groups in one report that have stopped; of the others nobody hears why.
const REPORT_STOPPED_MAX: usize = 1024;
/// Groups in one report of which the memory is lost; of the others it is taken to be there.
const REPORT_FORGOT_MAX: usize = 16 * 1024;
/// Groups in one report; what a server leads beyond that comes with the next.
const REPORT_GROUPS_MAX: usize = if cfg!(test) { 4 } else { 16 * 1024 };

/// A group that the sender of a report leads, and in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Led {
    pub group: GroupNumber,
    pub term: u64,
}

/// What a server tells all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Bytes that its streams in memory hold.
    pub memory_bytes: u64,
    /// Bytes that its streams on disk hold.
    pub storage_bytes: u64,
    /// Accounts that have no JetStream on it, and that it has replicas of.
    pub resting: BTreeSet<String>,
    /// Groups whose replica on it has stopped at what a later version wrote.
    pub stopped: BTreeSet<GroupNumber>,
    /// Groups whose replica on it has started again, and has met nobody since who has what was in memory.
    pub forgot: BTreeSet<GroupNumber>,
    /// What accounts with limits hold on it.
    pub held: BTreeMap<String, HeldByTier>,
    /// What it leads.
    pub led: Vec<Led>,
}

/// A report as it is heard: of the groups in between, the sender leads these and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// What it says.
    pub report: Report,
    /// The groups that it is about.
    pub groups: RangeInclusive<GroupNumber>,
}

/// Bytes that are no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a report of leaders cannot be read")]
pub(super) struct MalformedReport;

/// A report as bytes, in as many pieces as it takes.
pub(super) fn encode(report: &Report) -> Vec<Bytes> {
    let mut led = report.led.clone();
    led.sort_unstable_by_key(|led| led.group);
    let mut pieces = Vec::new();
    let mut first = 0;
    let mut rest = led.as_slice();
    loop {
        let (piece, after) = rest.split_at(rest.len().min(REPORT_GROUPS_MAX));
        let last = match (after.is_empty(), piece.last()) {
            (false, Some(led)) => led.group.0,
            _ => u64::MAX,
        };
        pieces.push(encode_piece(report, (first, last), piece));
        if after.is_empty() {
            return pieces;
        }
        (first, rest) = (last.saturating_add(1), after);
    }
}

fn encode_piece(report: &Report, (first, last): (u64, u64), led: &[Led]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + led.len() * LED_BYTES);
    out.put_u8(VERSION);
    out.put_u64_le(report.memory_bytes);
    out.put_u64_le(report.storage_bytes);
    out.put_u64_le(first);
    out.put_u64_le(last);
    put_accounts(&mut out, &report.resting);
    put_groups(&mut out, &report.stopped, REPORT_STOPPED_MAX);
    put_groups(&mut out, &report.forgot, REPORT_FORGOT_MAX);
    put_held(&mut out, &report.held);
    out.put_u32_le(u32::try_from(led.len()).unwrap_or(u32::MAX));
    for led in led {
        out.put_u64_le(led.group.0);
        out.put_u64_le(led.term);
    }
    out.freeze()
}

fn put_accounts(out: &mut BytesMut, accounts: &BTreeSet<String>) {
    let lengths = accounts
        .iter()
        .filter_map(|name| Some((name, u16::try_from(name.len()).ok()?)));
    let told: Vec<_> = lengths.take(REPORT_ACCOUNTS_MAX).collect();
    out.put_u16_le(told.len() as u16);
    for (name, length) in told {
        out.put_u16_le(length);
        out.put_slice(name.as_bytes());
    }
}

fn put_held(out: &mut BytesMut, held: &BTreeMap<String, HeldByTier>) {
    let lengths = held
        .iter()
        .filter_map(|one| Some((one, u16::try_from(one.0.len()).ok()?)));
    let told: Vec<_> = lengths.take(REPORT_ACCOUNTS_MAX).collect();
    out.put_u16_le(told.len() as u16);
    for ((name, held), length) in told {
        out.put_u16_le(length);
        out.put_slice(name.as_bytes());
        put_bytes(out, held.all);
        let numbers = held.tiers.iter();
        let tiers =
            numbers.filter_map(|(replicas, held)| Some((u8::try_from(*replicas).ok()?, held)));
        let tiers: Vec<_> = tiers.take(usize::from(u8::MAX)).collect();
        out.put_u8(tiers.len() as u8);
        for (replicas, held) in tiers {
            out.put_u8(replicas);
            put_bytes(out, *held);
        }
    }
}

fn put_bytes(out: &mut BytesMut, (memory, storage): Held) {
    out.put_u64_le(memory);
    out.put_u64_le(storage);
}

fn take_bytes(bytes: &mut Bytes) -> Result<Held, MalformedReport> {
    let mut number = || bytes.try_get_u64_le().map_err(|_| MalformedReport);
    Ok((number()?, number()?))
}

fn take_held(bytes: &mut Bytes) -> Result<BTreeMap<String, HeldByTier>, MalformedReport> {
    let count = bytes.try_get_u16_le().map_err(|_| MalformedReport)?;
    let mut held = BTreeMap::new();
    for _ in 0..count {
        let name = take_name(bytes)?;
        let mut of_one = HeldByTier {
            all: take_bytes(bytes)?,
            tiers: BTreeMap::new(),
        };
        for _ in 0..bytes.try_get_u8().map_err(|_| MalformedReport)? {
            let replicas = bytes.try_get_u8().map_err(|_| MalformedReport)?;
            of_one.tiers.insert(replicas.into(), take_bytes(bytes)?);
        }
        held.insert(name, of_one);
    }
    Ok(held)
}

fn put_groups(out: &mut BytesMut, groups: &BTreeSet<GroupNumber>, most: usize) {
    let told = groups.len().min(most);
    out.put_u32_le(told as u32);
    for group in groups.iter().take(told) {
        out.put_u64_le(group.0);
    }
}

fn take_groups(bytes: &mut Bytes) -> Result<BTreeSet<GroupNumber>, MalformedReport> {
    let count = bytes.try_get_u32_le().map_err(|_| MalformedReport)?;
    let mut groups = BTreeSet::new();
    for _ in 0..count {
        let group = bytes.try_get_u64_le().map_err(|_| MalformedReport)?;
        groups.insert(GroupNumber(group));
    }
    Ok(groups)
}

fn take_accounts(bytes: &mut Bytes) -> Result<BTreeSet<String>, MalformedReport> {
    let count = bytes.try_get_u16_le().map_err(|_| MalformedReport)?;
    let mut accounts = BTreeSet::new();
    for _ in 0..count {
        accounts.insert(take_name(bytes)?);
    }
    Ok(accounts)
}

fn take_name(bytes: &mut Bytes) -> Result<String, MalformedReport> {
    let length = bytes.try_get_u16_le().map_err(|_| MalformedReport)?;
    let length = usize::from(length);
    if length > bytes.len() {
        return Err(MalformedReport);
    }
    let name = String::from_utf8(bytes.split_to(length).to_vec());
    name.map_err(|_| MalformedReport)
}

/// Reads a piece of what [`encode`] wrote.
pub(super) fn decode(mut bytes: Bytes) -> Result<Heard, MalformedReport> {
    if bytes.try_get_u8() != Ok(VERSION) {
        return Err(MalformedReport);
    }
    let mut number = || bytes.try_get_u64_le().map_err(|_| MalformedReport);
    let (memory_bytes, storage_bytes) = (number()?, number()?);
    let groups = GroupNumber(number()?)..=GroupNumber(number()?);
    let resting = take_accounts(&mut bytes)?;
    let stopped = take_groups(&mut bytes)?;
    let forgot = take_groups(&mut bytes)?;
    let held = take_held(&mut bytes)?;
    let count = bytes.try_get_u32_le().map_err(|_| MalformedReport)?;
    let count = usize::try_from(count).map_err(|_| MalformedReport)?;
    if count.checked_mul(LED_BYTES) != Some(bytes.len()) {
        return Err(MalformedReport);
    }
    let mut led = Vec::with_capacity(count);
    while bytes.has_remaining() {
        led.push(Led {
            group: GroupNumber(bytes.get_u64_le()),
            term: bytes.get_u64_le(),
        });
    }
    if led.iter().any(|led| !groups.contains(&led.group)) {
        return Err(MalformedReport);
    }
    let report = Report {
        memory_bytes,
        storage_bytes,
        resting,
        stopped,
        forgot,
        held,
        led,
    };
    Ok(Heard { report, groups })
}

/// Who leads which group, as far as it is known here.
#[derive(Default)]
pub(super) struct Leaders {
    known: RwLock<HashMap<GroupNumber, Lead>>,
}

struct Lead {
    term: u64,
    server: Arc<str>,
    /// When this server heard of it first.
    since: Time,
}

impl Leaders {
    /// A server says that it leads.
    pub fn leads(&self, server: &Arc<str>, led: Led) {
        let mut known = self.known.write();
        let stands = known.get(&led.group).is_some_and(|lead| {
            lead.term > led.term || (lead.term == led.term && lead.server == *server)
        });
        if !stands {
            let lead = Lead {
                term: led.term,
                server: Arc::clone(server),
                since: now(),
            };
            known.insert(led.group, lead);
        }
    }

    /// It does not lead any more; who does instead is not known.
    pub fn leads_no_more(&self, server: &str, group: GroupNumber) {
        let mut known = self.known.write();
        if known
            .get(&group)
            .is_some_and(|lead| *lead.server == *server)
        {
            known.remove(&group);
        }
    }

    /// The group is gone.
    pub fn forget(&self, group: GroupNumber) {
        self.known.write().remove(&group);
    }

    /// Who leads the group.
    pub fn leader(&self, group: GroupNumber) -> Option<Arc<str>> {
        let known = self.known.read();
        known.get(&group).map(|lead| Arc::clone(&lead.server))
    }

    /// Who leads the group, and since when as far as this server has heard.
    pub fn leadership(&self, group: GroupNumber) -> Option<(Arc<str>, Time)> {
        let known = self.known.read();
        let lead = known.get(&group)?;
        Some((Arc::clone(&lead.server), lead.since))
    }

    /// What that server leads.
    pub fn led_by(&self, server: &str) -> Vec<Led> {
        let known = self.known.read();
        let led = known.iter().filter(|(_, lead)| *lead.server == *server);
        led.map(|(group, lead)| Led {
            group: *group,
            term: lead.term,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(group: u64, term: u64) -> Led {
        Led {
            group: GroupNumber(group),
            term,
        }
    }

    #[test]
    fn the_later_term_leads_and_who_gave_up_does_not() {
        let leaders = Leaders::default();
        let (a, b) = (Arc::<str>::from("a"), Arc::<str>::from("b"));
        leaders.leads(&a, led(1, 3));
        leaders.leads(&b, led(1, 2));
        assert_eq!(leaders.leader(GroupNumber(1)).as_deref(), Some("a"));
        leaders.leads(&b, led(1, 4));
        let since = leaders.leadership(GroupNumber(1));
        leaders.leads(&b, led(1, 4));
        assert_eq!(leaders.leadership(GroupNumber(1)), since, "nothing new");
        leaders.leads_no_more("a", GroupNumber(1));
        assert_eq!(leaders.leader(GroupNumber(1)).as_deref(), Some("b"));
        assert_eq!(leaders.led_by("b"), [led(1, 4)]);
        leaders.leads_no_more("b", GroupNumber(1));
        assert_eq!(leaders.leader(GroupNumber(1)), None);
        leaders.leads(&a, led(2, 1));
        leaders.forget(GroupNumber(2));
        assert!(leaders.led_by("a").is_empty());
    }

    #[test]
    fn a_report_comes_back_as_it_was_and_its_count_is_not_believed() {
        let report = Report {
            memory_bytes: 7,
            storage_bytes: u64::MAX,
            resting: ["A", "", "another"].map(str::to_owned).into(),
            stopped: [GroupNumber(8), GroupNumber(9)].into(),
            forgot: [GroupNumber(3)].into(),
            held: [(
                "L".to_owned(),
                HeldByTier {
                    all: (1, u64::MAX),
                    tiers: [(1, (1, 0)), (3, (0, u64::MAX))].into(),
                },
            )]
            .into(),
            led: vec![led(1, 2), led(3, u64::MAX)],
        };
        let pieces = encode(&report);
        let [bytes] = pieces.as_slice() else {
            panic!("{} pieces", pieces.len());
        };
        let heard = decode(bytes.clone()).expect("reads");
        assert_eq!(heard.report, report);
        assert_eq!(heard.groups, GroupNumber(0)..=GroupNumber(u64::MAX));
        for cut in 0..bytes.len() {
            assert_eq!(decode(bytes.slice(..cut)), Err(MalformedReport));
        }
        let mut many = encode(&Report::default())[0].to_vec();
        many.truncate(many.len() - 4);
        many.extend([0xff; 4]);
        assert_eq!(decode(many.into()), Err(MalformedReport));
        let outside = encode_piece(&report, (2, 9), &[led(1, 1)]);
        assert_eq!(decode(outside), Err(MalformedReport));
    }

    #[test]
    fn what_is_too_much_for_one_report_comes_in_pieces_that_leave_nothing_out() {
        let all: Vec<Led> = (1..=10).rev().map(|number| led(number * 5, 1)).collect();
        let report = Report {
            led: all,
            ..Report::default()
        };
        let pieces = encode(&report);
        let heard: Vec<Heard> = pieces
            .into_iter()
            .map(|piece| decode(piece).expect("reads"))
            .collect();
        assert_eq!(heard.len(), 3);
        let mut next = 0;
        let mut told = Vec::new();
        for piece in &heard {
            assert_eq!(piece.groups.start().0, next);
            next = piece.groups.end().0.wrapping_add(1);
            told.extend(piece.report.led.iter().map(|led| led.group.0));
        }
        assert_eq!(next, 0, "up to the last number");
        assert_eq!(told, (1..=10).map(|number| number * 5).collect::<Vec<_>>());
        let full = Report {
            led: (1..=4).map(|number| led(number, 1)).collect(),
            ..Report::default()
        };
        assert_eq!(encode(&full).len(), 1);
    }
}

//! Which servers live: one sign of life per pair of servers and interval, whatever the number of their groups.
//!
//! Pure: the moments are passed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::options::Timing;
use super::spec::GroupNumber;

/// What is known of the servers that this one shares groups with.
pub(super) struct Liveness {
    lost_after: Duration,
    interval: Duration,
    peers: BTreeMap<String, Peer>,
    /// The servers that each group needs to know of.
    wanted: HashMap<GroupNumber, BTreeSet<String>>,
    /// When others that said that they live were last told apart.
    strangers: BTreeMap<String, Instant>,
    last_look: Option<Instant>,
    last_signs: Option<Instant>,
}

struct Peer {
    /// How many groups need to know of it.
    groups: usize,
    /// When something was heard of it; when it came to be of interest, before that.
    since: Instant,
    heard: bool,
    lost: bool,
    /// The number of its run, as it last said.
    run: Option<u64>,
}

/// What changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Not heard of for too long.
    pub lost: Vec<String>,
    /// Whom to tell that this server lives.
    pub signs_to: Vec<String>,
}

/// What a frame says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It lives on.
    Alive,
    /// It was lost, and is back.
    Back,
    /// It was started anew: what it led, it leads no more.
    Restarted,
    /// It shares a group with this server, and no replica here knows that yet.
    Stranger,
}

impl Liveness {
    pub fn new(timing: &Timing) -> Self {
        Self {
            lost_after: timing.peer_lost_after,
            interval: timing.liveness_interval,
            peers: BTreeMap::new(),
            wanted: HashMap::new(),
            strangers: BTreeMap::new(),
            last_look: None,
            last_signs: None,
        }
    }

    /// The group needs to know of these servers; of none when it is gone.
    pub fn want(&mut self, group: GroupNumber, servers: BTreeSet<String>, now: Instant) {
        let known = self.wanted.remove(&group).unwrap_or_default();
        for server in servers.difference(&known) {
            let peer = self.peers.entry(server.clone()).or_insert(Peer {
                groups: 0,
                since: now,
                heard: false,
                lost: false,
                run: None,
            });
            peer.groups += 1;
        }
        for server in known.difference(&servers) {
            if let Some(peer) = self.peers.get_mut(server) {
                peer.groups -= 1;
            }
            self.peers.retain(|_, peer| peer.groups > 0);
        }
        if !servers.is_empty() {
            self.wanted.insert(group, servers);
        }
    }

    /// A frame came from that server; with the number of its run if it held a sign of life.
    pub fn heard(&mut self, server: &str, run: Option<u64>, now: Instant) -> Heard {
        let Some(peer) = self.peers.get_mut(server) else {
            return match run.is_some() && self.is_news(server, now) {
                true => Heard::Stranger,
                false => Heard::Alive,
            };
        };
        let was_lost = std::mem::replace(&mut peer.lost, false);
        peer.since = now;
        peer.heard = true;
        let restarted = run.is_some() && peer.run.is_some() && run != peer.run;
        peer.run = run.or(peer.run);
        match (restarted, was_lost) {
            (true, _) => Heard::Restarted,
            (false, true) => Heard::Back,
            (false, false) => Heard::Alive,
        }
    }

    /// Whether nothing was said of a stranger for an interval.
    fn is_news(&mut self, server: &str, now: Instant) -> bool {
        let before = self.strangers.get(server);
        let is_news = before.is_none_or(|before| now - *before >= self.interval);
        if is_news {
            self.strangers
                .retain(|_, before| now - *before < self.interval);
            self.strangers.insert(server.to_owned(), now);
        }
        is_news
    }

    /// Looks at all servers. When this one was itself held up, it gives the others the time back.
    pub fn look(&mut self, now: Instant) -> Changes {
        let held_up = match self.last_look.replace(now) {
            Some(last) => (now - last).saturating_sub(self.interval),
            None => Duration::ZERO,
        };
        let mut changes = Changes::default();
        let signs_due = self
            .last_signs
            .is_none_or(|last| now - last >= self.interval);
        if signs_due {
            self.last_signs = Some(now);
            changes.signs_to = self.peers.keys().cloned().collect();
        }
        for (name, peer) in &mut self.peers {
            peer.since = (peer.since + held_up).min(now);
            if !peer.lost && now - peer.since > self.lost_after {
                peer.lost = true;
                changes.lost.push(name.clone());
            }
        }
        changes
    }

    /// Whether any server is taken for gone.
    pub fn any_lost(&self) -> bool {
        self.peers.values().any(|peer| peer.lost)
    }

    /// Whether the server is taken for gone.
    pub fn is_lost(&self, server: &str) -> bool {
        self.peers.get(server).is_some_and(|peer| peer.lost)
    }

    /// How long ago anything was heard of it.
    pub fn last_contact(&self, server: &str, now: Instant) -> Option<Duration> {
        let peer = self.peers.get(server).filter(|peer| peer.heard)?;
        Some(now.saturating_duration_since(peer.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupNumber = GroupNumber(1);

    fn servers(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Looks every 50 ms up to `ms`, hearing `alive` each time; says when who was lost.
    fn run(
        liveness: &mut Liveness,
        begin: Instant,
        ms: std::ops::Range<u64>,
        alive: &[&str],
    ) -> Vec<(u64, String)> {
        let mut lost = Vec::new();
        for ms in ms.step_by(50) {
            let now = begin + Duration::from_millis(ms);
            for server in alive {
                liveness.heard(server, Some(1), now);
            }
            lost.extend(liveness.look(now).lost.into_iter().map(|name| (ms, name)));
        }
        lost
    }

    #[test]
    fn a_silent_server_is_lost_once_and_one_that_speaks_is_not() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(&Timing::default());
        liveness.want(GROUP, servers(&["a", "b"]), begin);
        assert_eq!(run(&mut liveness, begin, 0..1000, &["a", "b"]), []);
        let lost = run(&mut liveness, begin, 1000..3000, &["a"]);
        assert_eq!(lost, [(1500, "b".to_owned())]);
        assert!(liveness.is_lost("b") && !liveness.is_lost("a"));
        let now = begin + Duration::from_secs(3);
        assert_eq!(liveness.heard("b", Some(1), now), Heard::Back);
        assert_eq!(liveness.heard("b", Some(2), now), Heard::Restarted);
        assert!(!liveness.is_lost("b"));
    }

    #[test]
    fn a_stranger_that_lives_is_told_of_once_an_interval() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(&Timing::default());
        assert_eq!(liveness.heard("a", None, begin), Heard::Alive);
        assert_eq!(liveness.heard("a", Some(1), begin), Heard::Stranger);
        let soon = begin + Duration::from_millis(50);
        assert_eq!(liveness.heard("a", Some(1), soon), Heard::Alive);
        assert_eq!(liveness.heard("b", Some(1), soon), Heard::Stranger);
        let later = begin + Duration::from_millis(100);
        assert_eq!(liveness.heard("a", Some(1), later), Heard::Stranger);
    }

    #[test]
    fn a_server_that_was_held_up_itself_blames_nobody() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(&Timing::default());
        liveness.want(GROUP, servers(&["a"]), begin);
        run(&mut liveness, begin, 0..1000, &["a"]);
        // Stopped for ten seconds; nothing could be heard meanwhile.
        assert_eq!(run(&mut liveness, begin, 11_000..11_300, &[]), []);
        assert_eq!(run(&mut liveness, begin, 11_300..11_600, &["a"]), []);
    }

    #[test]
    fn signs_go_to_those_with_whom_a_group_is_shared_and_once_per_interval() {
        let begin = Instant::now();
        let mut liveness = Liveness::new(&Timing::default());
        for number in 0..1000 {
            liveness.want(GroupNumber(number), servers(&["a", "b"]), begin);
        }
        let mut signs = 0;
        for ms in (0..1000).step_by(50) {
            signs += liveness
                .look(begin + Duration::from_millis(ms))
                .signs_to
                .len();
        }
        assert_eq!(signs, 20);
        for number in 0..1000 {
            liveness.want(GroupNumber(number), BTreeSet::new(), begin);
        }
        let later = begin + Duration::from_secs(2);
        assert_eq!(liveness.look(later), Changes::default());
    }
}

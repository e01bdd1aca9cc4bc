//! Whole clusters: servers that do what [`reconcile`] says, groups whose leaders do what [`plan`] says, and everything that can be asked in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use raft::group::{GroupNumber, Member};

use super::*;

const SERVERS: usize = 6;

/// A group as its replicas know it.
#[derive(Default)]
struct Raft {
    founders: Vec<Member>,
    view: View,
}

/// A cluster whose servers can all be reached.
struct World {
    meta: Meta,
    holdings: BTreeMap<String, Holdings>,
    /// How much each replica has of its stream.
    data: BTreeMap<(String, GroupNumber), u64>,
    /// How much of each stream was acknowledged.
    acknowledged: BTreeMap<GroupNumber, u64>,
    groups: BTreeMap<GroupNumber, Raft>,
    online: Sightings,
}

impl World {
    fn new() -> Self {
        let seen = Sighting {
            online: true,
            ..Sighting::default()
        };
        let names = (1..=SERVERS).map(|number| format!("n{number}"));
        Self {
            meta: cluster(SERVERS),
            holdings: names.clone().map(|name| (name, Holdings::new())).collect(),
            data: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            groups: BTreeMap::new(),
            online: names.map(|name| (name, seen)).collect(),
        }
    }

    fn runs(&self, group: GroupNumber, node: u64, server: &str) -> bool {
        let held = self.holdings[server].get(&group);
        held.is_some_and(|held| held.node == node && held.condition == Condition::Running)
    }

    /// Does what a server has to do. Says whether there was anything.
    fn reconcile(&mut self, server: &str) -> bool {
        let actions = reconcile(&self.meta, server, &self.holdings[server], &Past::default());
        for action in &actions {
            self.act(server, action);
        }
        !actions.is_empty()
    }

    fn act(&mut self, server: &str, action: &Action) {
        let mine = self.holdings.get_mut(server).expect("the server");
        match action {
            Action::Start {
                of,
                node,
                form,
                how,
            } => {
                let again = mine.get(&of.group);
                assert_eq!(again.is_some(), *how == Start::Again, "{action:?}");
                let held = Held {
                    node: *node,
                    form: *form,
                    condition: Condition::Running,
                    revision: again.map_or(0, |held| held.revision),
                    account: of.account.clone(),
                    stream: of.stream.clone(),
                    consumers: again.map_or_else(BTreeMap::new, |held| held.consumers.clone()),
                };
                mine.insert(of.group, held);
                self.data.entry((server.to_owned(), of.group)).or_insert(0);
                self.acknowledged.entry(of.group).or_insert(0);
            }
            Action::Convert {
                of,
                from,
                node,
                form,
                ..
            } => {
                let held = mine.get_mut(&of.group).expect("what is converted is here");
                assert_eq!(held.node, *from);
                (held.node, held.form, held.condition) = (*node, *form, Condition::Running);
            }
            Action::Configure { of, revision } => {
                mine.get_mut(&of.group).expect("it is here").revision = *revision;
            }
            Action::PutConsumer { of, name, revision } => {
                let held = mine.get_mut(&of.group).expect("it is here");
                held.consumers.insert(name.clone(), *revision);
            }
            Action::DeleteConsumer { of, name } => {
                let held = mine.get_mut(&of.group).expect("it is here");
                held.consumers.remove(name);
            }
            Action::Delete { group, node } => {
                let held = mine.remove(group).expect("what is deleted is here");
                assert_eq!(held.node, *node);
                self.data.remove(&(server.to_owned(), *group));
                let (group, node) = (*group, *node);
                run(&mut self.meta, &Command::ReplicaGone { group, node });
            }
            Action::ReportGone { group, node } => {
                let (group, node) = (*group, *node);
                run(&mut self.meta, &Command::ReplicaGone { group, node });
            }
            Action::ReportLost { of, node } => {
                let (of, node) = (of.clone(), *node);
                run(&mut self.meta, &Command::MemberLost { of, node });
            }
            Action::SetAside { .. } | Action::Offline { .. } => {
                panic!("nothing here is unexplained: {action:?}")
            }
        }
    }

    /// The leader of a replicated stream does its next step; an unreplicated one just goes on. Says whether anything was done.
    fn lead(&mut self, of: &StreamRef) -> bool {
        let group = group(&self.meta, of).clone();
        if group.form == Form::Plain {
            let member = &group.members[0];
            if self.runs(of.group, member.node, &member.server) {
                self.write(of.group, std::slice::from_ref(&member.server));
            }
            return false;
        }
        let raft = self.groups.entry(of.group).or_default();
        if raft.founders != group.founders {
            let founders = &group.founders;
            let holdings = &self.holdings;
            let ready = founders.iter().all(|founder| {
                let held = holdings[&founder.server].get(&of.group);
                held.is_some_and(|held| held.node == founder.node)
            });
            if !ready {
                return true;
            }
            raft.founders = group.founders.clone();
            let pairs = founders.iter();
            raft.view = View {
                leader: founders[0].node,
                voters: pairs
                    .map(|founder| (founder.node, founder.server.clone()))
                    .collect(),
                ..View::default()
            };
        }
        self.elect(of);
        let raft = &self.groups[&of.group];
        let (leader, voters) = (raft.view.leader, raft.view.voters.clone());
        if !self.runs(of.group, leader, &voters[&leader]) {
            return true;
        }
        let everyone = voters.iter().chain(&raft.view.learners);
        let running: Vec<(u64, String)> = everyone
            .filter(|(node, server)| self.runs(of.group, **node, server))
            .map(|(node, server)| (*node, server.clone()))
            .collect();
        let with_vote = running
            .iter()
            .filter(|(node, _)| voters.contains_key(node))
            .count();
        if with_vote <= voters.len() / 2 {
            return true;
        }
        let servers: Vec<String> = running.iter().map(|(_, server)| server.clone()).collect();
        self.write(of.group, &servers);
        let raft = self.groups.get_mut(&of.group).expect("the group");
        raft.view.caught_up = running.into_iter().map(|(node, _)| node).collect();
        if !group.begun && is_led(&group, &raft.view) {
            run(&mut self.meta, &Command::GroupBegun { of: of.clone() });
            return true;
        }
        match plan(&group, &raft.view, &self.online) {
            None => return false,
            Some(Step::Learn(members)) => {
                let pairs = members
                    .into_iter()
                    .map(|member| (member.node, member.server));
                raft.view.learners.extend(pairs);
            }
            Some(Step::Vote(voters)) => {
                raft.view.voters = voters;
                raft.view.learners.clear();
            }
            Some(Step::Transfer { to }) => raft.view.leader = to,
            Some(Step::Settled { nodes }) => {
                let of = of.clone();
                run(&mut self.meta, &Command::GroupSettled { of, nodes });
            }
        }
        true
    }

    /// Where the leader is gone, a voter that has everything takes over.
    fn elect(&mut self, of: &StreamRef) {
        let raft = &self.groups[&of.group];
        let view = &raft.view;
        let led = view.voters.get(&view.leader);
        if led.is_some_and(|server| self.runs(of.group, view.leader, server)) {
            return;
        }
        let acknowledged = self.acknowledged[&of.group];
        let whole = view.voters.iter().find(|(node, server)| {
            let has = self.data.get(&((*server).clone(), of.group));
            self.runs(of.group, **node, server) && has == Some(&acknowledged)
        });
        if let Some((node, _)) = whole {
            let node = *node;
            self.groups
                .get_mut(&of.group)
                .expect("the group")
                .view
                .leader = node;
        }
    }

    /// Something is acknowledged, and these have it.
    fn write(&mut self, group: GroupNumber, servers: &[String]) {
        let acknowledged = self.acknowledged.entry(group).or_insert(0);
        *acknowledged += 1;
        for server in servers {
            self.data.insert((server.clone(), group), *acknowledged);
        }
    }

    /// Everybody does something, once. Says whether anybody had to.
    fn round(&mut self) -> bool {
        let mut busy = false;
        for number in 1..=SERVERS {
            busy |= self.reconcile(&format!("n{number}"));
        }
        let streams: Vec<StreamRef> = self.meta.all_streams().map(|(of, _)| of).collect();
        for of in streams {
            busy |= self.lead(&of);
        }
        busy
    }

    /// Everybody does all there is to do; that must have an end.
    fn come_to_rest(&mut self) {
        for _ in 0..60 {
            if !self.round() {
                return;
            }
        }
        panic!("no end: {:#?}", self.meta);
    }

    /// Every replica is where it is to be and has all that was acknowledged; nothing else is anywhere.
    fn check(&self) {
        let mut expected: BTreeSet<(String, GroupNumber)> = BTreeSet::new();
        for (of, stream) in self.meta.all_streams() {
            let group = &stream.group;
            assert!(
                !group.is_changing() && group.leaving.is_empty(),
                "{group:?}"
            );
            assert_eq!(group.members.len(), stream.replicas());
            for member in &group.members {
                let key = (member.server.clone(), of.group);
                assert!(
                    self.runs(of.group, member.node, &member.server),
                    "{group:?}"
                );
                assert_eq!(self.data[&key], self.acknowledged[&of.group], "{group:?}");
                let held = &self.holdings[&member.server][&of.group];
                assert!(held.consumers.keys().eq(stream.consumers.keys()));
                expected.insert(key);
            }
        }
        let there = self.holdings.iter().flat_map(|(server, holdings)| {
            holdings.keys().map(move |group| (server.clone(), *group))
        });
        assert_eq!(there.collect::<BTreeSet<_>>(), expected);
        assert!(self.meta.released().is_empty());
    }
}

#[derive(Debug, Clone)]
enum Event {
    Create {
        stream: u8,
        servers: Vec<u8>,
    },
    Delete(u8),
    Members {
        stream: u8,
        kind: bool,
        servers: Vec<u8>,
    },
    Cancel(u8),
    Consumer(u8, u8),
    Lose(u8, u8),
    Restart(u8),
    Rounds(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let servers = || proptest::sample::subsequence(vec![1u8, 2, 3, 4, 5, 6], 1..=5);
    prop_oneof![
        4 => (0u8..3, servers()).prop_map(|(stream, servers)| Event::Create { stream, servers }),
        1 => (0u8..3).prop_map(Event::Delete),
        5 => (0u8..3, any::<bool>(), servers())
            .prop_map(|(stream, kind, servers)| Event::Members { stream, kind, servers }),
        2 => (0u8..3).prop_map(Event::Cancel),
        1 => (0u8..3, 0u8..3).prop_map(|(stream, name)| Event::Consumer(stream, name)),
        2 => (0u8..3, any::<u8>()).prop_map(|(stream, which)| Event::Lose(stream, which)),
        2 => (1u8..=6).prop_map(Event::Restart),
        8 => (1u8..5).prop_map(Event::Rounds),
    ]
}

fn happen(world: &mut World, event: Event) {
    let find = |meta: &Meta, stream: u8| {
        let name = format!("S{stream}");
        let group = meta.stream("A", &name)?.group.number;
        let account = "A".to_owned();
        Some(StreamRef {
            account,
            stream: name,
            group,
        })
    };
    let names = |servers: &[u8]| -> Vec<String> {
        servers.iter().map(|server| format!("n{server}")).collect()
    };
    match event {
        Event::Create { stream, servers } => {
            let names = names(&servers);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let config = config(&format!("S{stream}"), names.len() as i64);
            run(&mut world.meta, &create(&config, &names));
        }
        Event::Delete(stream) => {
            if let Some(of) = find(&world.meta, stream) {
                run(&mut world.meta, &Command::StreamDelete { of });
            }
        }
        Event::Members {
            stream,
            kind,
            servers,
        } => {
            let Some(of) = find(&world.meta, stream) else {
                return;
            };
            let assigned = world.meta.stream_of(&of).expect("the stream");
            let mut config = assigned.config().clone();
            config.num_replicas = servers.len() as i64;
            let names = names(&servers);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let kind = match kind {
                true => ChangeKind::Move,
                false => ChangeKind::Scale,
            };
            let command = Command::StreamUpdate {
                revision: assigned.revision,
                of,
                config: encode(&config),
                members: Some(elsewhere(kind, &names)),
            };
            run(&mut world.meta, &command);
        }
        Event::Cancel(stream) => {
            let Some(of) = find(&world.meta, stream) else {
                return;
            };
            let assigned = world.meta.stream_of(&of).expect("the stream");
            let mut config = assigned.config().clone();
            config.num_replicas = assigned.group.before.len().max(1) as i64;
            let config = Some(encode(&config));
            run(&mut world.meta, &Command::MoveCancel { of, config });
        }
        Event::Consumer(stream, name) => {
            if let Some(of) = find(&world.meta, stream) {
                run(&mut world.meta, &consumer(&of, &format!("C{name}")));
            }
        }
        Event::Lose(stream, which) => {
            // One of several, and no other before it is replaced: nothing acknowledged may be gone.
            let Some(of) = find(&world.meta, stream) else {
                return;
            };
            world.come_to_rest();
            let members = group(&world.meta, &of).members.clone();
            let member = &members[usize::from(which) % members.len()];
            if members.len() > 2 {
                let mine = world.holdings.get_mut(&member.server).expect("the server");
                mine.get_mut(&of.group).expect("its replica").condition = Condition::Lost;
                world.data.insert((member.server.clone(), of.group), 0);
            }
        }
        Event::Restart(server) => {
            let mine = world
                .holdings
                .get_mut(&format!("n{server}"))
                .expect("the server");
            for held in mine
                .values_mut()
                .filter(|held| held.condition == Condition::Running)
            {
                held.condition = Condition::Stopped;
            }
        }
        Event::Rounds(rounds) => {
            for _ in 0..rounds {
                world.round();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_asked_all_come_to_rest_with_everything_acknowledged_where_it_is_to_be(
        events in prop::collection::vec(event(), 1..30)
    ) {
        let mut world = World::new();
        for event in events {
            happen(&mut world, event);
        }
        world.come_to_rest();
        // A last write, which everybody has.
        world.round();
        world.check();
    }
}

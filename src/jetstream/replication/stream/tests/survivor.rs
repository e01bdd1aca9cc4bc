//! A stream on two servers of which one has lost its log: what was acknowledged is in the other's, whether that has applied it or not.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::group::Begin;

use super::cluster::{Cluster, node_of};
use super::{config, others};

const MESSAGES: u64 = 20;

/// A stream on two of three servers: who leads it, and who follows.
fn of_two(cluster: &mut Cluster) -> (usize, usize) {
    cluster.publish("s.a", "", "1");
    let leader = cluster.leader();
    let [follower, leaves] = others(leader);
    let voters: BTreeMap<u64, String> = [leader, follower]
        .map(|at| (node_of(at), format!("s{}", at + 1)))
        .into();
    let server = &cluster.servers[leader];
    let group = &server.replica().group;
    let changed = group.change_members(voters, Duration::from_secs(30));
    let changed = server.runtime().block_on(changed);
    changed.expect("the members change");
    cluster.servers[leaves].kill();
    (leader, follower)
}

#[test]
fn the_only_one_of_two_that_has_a_log_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::new(3, config());
    let (leader, survivor) = of_two(&mut cluster);
    for number in 2..=MESSAGES {
        assert_eq!(cluster.publish("s.a", "", &number.to_string()), number);
    }
    let acknowledged = cluster.servers[leader].applied();
    cluster.servers[survivor].kill();
    cluster.servers[leader].kill();
    cluster.network.heal();
    cluster.servers[survivor].start(Begin::Again, None);
    let applied = cluster.servers[survivor].applied();
    assert!(
        applied < acknowledged,
        "nobody is left to tell it that the last entries were committed"
    );
    cluster.servers[survivor].found_anew(77);
    let next = MESSAGES + 1;
    assert_eq!(cluster.publish("s.a", "", "after"), next);
    let records = cluster.equal(&[survivor]);
    let sequences = records.iter().map(|record| record.sequence);
    assert!(sequences.eq(1..=next));
}
